# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Fit one mixture to one data set by several methods from one start, so that only the method differs."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

from torch import Tensor

from pyro_dgm.models import GaussianMixture
from pyro_dgm.train.mixture_fit import MixtureFit
from pyro_dgm.train.mixture_methods import METHODS, Problem

ALL = tuple(METHODS)
"""The methods by name, in the order of a table."""


def _nothing(told: str | MixtureFit) -> None:
    """Say nothing."""


def compare_mixtures(
    x: Tensor,
    held_out: Tensor,
    *,
    folder: str | PathLike[str],
    methods: Sequence[str] = ALL,
    components: int = 10,
    sweeps: int = 100,
    batch_size: int = 100,
    lr: int | float = 0.01,
    warmup: int = 100,
    samples: int = 50,
    seed: int = 0,
    say: Callable[[str], object] = _nothing,
    found: Callable[[MixtureFit], object] = _nothing,
) -> dict[str, MixtureFit]:
    """Fit a mixture of normals with full covariances by each method.

    ============== ===========================================================================================
    ``em``          expectation maximisation, a sweep an epoch
    ``svi``         log p(x) by gradients: Adam on mini-batches, assignments summed (`EnumeratedObjective`)
    ``amortised``   an ELBO by the same gradients, with q(z | x) by a network (`AmortisedMixture`), which learns alone
                    for the first tenth of the sweeps: what it does not know yet would tear the start apart
    ``mean_field``  coordinate ascent for `BayesianMixture`, with q independent over parameters and assignments
    ``nuts``        draws from the posterior of the same Bayesian model, assignments summed (`MarginalMixture`)
    ``k_means``     the limit of equal, spherical, vanishing covariances; scored with the best spherical one
    ============== ===========================================================================================

    All but ``mean_field`` begin at the same start: k-means++ and ten sweeps of k-means (see `started`). ``mean_field``
    begins from k-means until it converges, for its posterior starts from assignments. Neither start is counted among a
    method's sweeps and seconds. All but ``nuts`` go through `Trainer`; ``amortised`` does after a tenth of its sweeps,
    which fit the network alone and are counted.

    Args:
        x: Training data, real numbers of shape ``(N, D)``; their dtype and device are those of all that is done.
        held_out: Data to judge by, shape ``(M, D)``.
        folder: For a run folder per method; the method's folder must not exist yet.
        methods: Names of the table above.
        components: K.
        sweeps: Passes through the data of each method but ``nuts``.
        batch_size: Of the methods by gradients; others take all data at once.
        lr: Learning rate of Adam, which falls to zero along a cosine.
        warmup: Steps of ``nuts`` that are not kept.
        samples: Steps of ``nuts`` that are.
        seed: Of starts, shuffles, networks and the chain.
        say: Is told each method's name before it begins.
        found: Is told what each method gave when it ends.

    Returns:
        A `MixtureFit` per method, by name, in the order of the methods given.

    Raises:
        ValueError: If a method is unknown or doubled, the data are no two tables of the same columns, or there are
            fewer data than components.
        FileExistsError: If a method's run folder exists.

    >>> import tempfile
    >>> x = torch.randn(100, 2, dtype=torch.float64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fits = compare_mixtures(x[:80], x[80:], folder=folder, methods=["em", "k_means"], components=2, sweeps=3)
    >>> [(name, fit.means.shape, fit.curve.sweeps) for name, fit in fits.items()]
    [('em', torch.Size([2, 2]), [0, 1, 2, 3]), ('k_means', torch.Size([2, 2]), [0, 1, 2, 3])]
    """
    _check(x, held_out, methods, components=components)
    problem = Problem(
        x=x,
        held_out=held_out,
        start=started(x, components=components, seed=seed),
        folder=Path(folder),
        sweeps=sweeps,
        batch_size=min(batch_size, len(x)),
        lr=lr,
        warmup=warmup,
        samples=samples,
        seed=seed,
    )
    fits = {}
    for name in methods:
        say(name)
        fits[name] = METHODS[name](problem)
        found(fits[name])
    return fits


def started(x: Tensor, *, components: int, seed: int = 0) -> GaussianMixture:
    """Give a mixture at its start: `GaussianMixture.start`, of the dtype and on the device of the data ``(N, D)``."""
    mixture = GaussianMixture(dim=x.shape[1], components=components).to(x)
    mixture.start(x, seed=seed)
    return mixture


def _check(x: Tensor, held_out: Tensor, methods: Sequence[str], *, components: int) -> None:
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"compare_mixtures got the methods {unknown}: it knows {', '.join(ALL)}.")
    if not methods or len(set(methods)) < len(methods):
        raise ValueError(f"compare_mixtures got methods={list(methods)}: name each one once, and at least one.")
    if x.dim() != 2 or held_out.dim() != 2 or x.shape[1] != held_out.shape[1] or not x.is_floating_point():
        raise ValueError(
            f"compare_mixtures got {x.dtype} data of shapes {tuple(x.shape)} and {tuple(held_out.shape)}: real numbers "
            f"of shapes (N, D) and (M, D) are needed."
        )
    if not 1 <= components <= len(x) or len(x) < 2 or not len(held_out):
        raise ValueError(
            f"compare_mixtures got components={components} for {len(x)} and {len(held_out)} data: at least as many "
            f"training data as components are needed, two at least, and a held-out one."
        )
