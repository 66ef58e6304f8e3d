# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Mean field by coordinate ascent: each factor in turn becomes the best one given the others, in closed form."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pyro_dgm.infer.em_history import EMHistory
from pyro_dgm.infer.one_process import require_one_process
from pyro_dgm.infer.sweeps import Statistics, SweepStep, add, in_chunks, precision_of, sweep_until


@runtime_checkable
class ConjugateForm(Protocol):
    """A Bayesian model whose mean-field updates are formulas, with local variables z_n and global ones theta."""

    def start(self, x: Tensor, *, seed: int = 0) -> None:
        """Set q(theta) to a good start for the data, shape ``(N, *event)``; another seed, another start."""

    def coordinate_statistics(self, x: Tensor) -> Statistics:
        """Local step: set each q(z_n) to its optimum, and sum over the data what q(theta) needs, without gradients.

        Among them are ``"count"``, the number of data, and ``"bound"``, the data's share of the bound in nats,
        E_q[log p(x, z | theta) - log q(z)]. Sums of several calls must be the statistics of all their data together.
        """

    def coordinate_update(self, statistics: Statistics, *, scale: int | float = 1.0, rate: int | float = 1.0) -> None:
        """Global step: move q(theta) the share ``rate`` of the way to its optimum in natural parameters.

        The statistics come from the parameters as they are, and stand for ``scale`` times as many data.
        """

    def global_bound(self) -> Tensor:
        """Share of q(theta) in the bound, E_q[log p(theta) - log q(theta)], in nats, 0-dim."""


class CoordinateAscent(SweepStep):
    r"""A sweep of coordinate ascent as a step of training: batches add up, the end of the epoch updates q(theta).

    .. math:: \log q_j(t_j) = E_{i \ne j} \log p(X, T) + \mathrm{const}

    A batch sets its q(z_n) and adds its statistics; batches only bound the memory. With ``online`` each batch moves
    q(theta) as if it were all the data, by steps that shrink (stochastic variational inference): a natural gradient
    step of the bound,

    .. math:: \lambda_t = (1 - \rho_t)\, \lambda_{t-1} + \rho_t\, \hat\lambda(\text{batch}), \qquad
              \rho_t = (t + t_0)^{-\kappa}

    Online, each batch is looked at for NaN before it is let in, for which the host waits for the device, and
    ``history`` stays empty: there is no sweep with fixed parameters.

    Args:
        model: An `nn.Module` with the methods of `ConjugateForm`, already at its start: call ``model.start(x)``.
        online: None, or ``(t0, kappa)``; it converges for 0.5 < kappa <= 1, e.g. ``(1, 0.7)``.
        size: How many data there are. Needed online; otherwise it is what the first sweep counts.
        chunk_size: Split larger batches into chunks of so many data, to bound the memory; None for no splitting.
            A chunk takes a few numbers for each component, datum and dimension.

    Raises:
        ValueError: If the model is no `ConjugateForm`, a setting is out of its range, there are several processes, an
            epoch ends without data, or the bound is not finite: the parameters are as they were, then, and the sweep's
            statistics (online: the batch's) forgotten.

    Source: Bishop (2006), section 10.1.1; Hoffman, Blei, Wang & Paisley (JMLR 2013), arXiv:1206.7051, figure 4.

    >>> from pyro_dgm.models import BayesianMixture
    >>> x = torch.randn(100, 2)
    >>> model = BayesianMixture(dim=2, components=3)
    >>> model.start(x)
    >>> step = CoordinateAscent(model)
    >>> for _ in range(5):
    ...     losses = [step(batch)["loss"] for batch in x.split(50)]
    ...     step.epoch_end()
    >>> step.history.monotone
    True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        online: tuple[int | float, int | float] | None = None,
        size: int | None = None,
        chunk_size: int | None = 4096,
    ) -> None:
        if not isinstance(model, ConjugateForm):
            raise ValueError(
                f"CoordinateAscent got {type(model).__name__}, which has no closed form: it needs start, "
                f"coordinate_statistics, coordinate_update and global_bound (see ConjugateForm). For models "
                f"with closed-form EM, as GaussianMixture, use EM; for other conditionally conjugate Pyro programs "
                f"MeanField, for any other ELBO."
            )
        for name, value in (("size", size), ("chunk_size", chunk_size)):
            if value is not None and value < 1:
                raise ValueError(f"CoordinateAscent got {name}={value}: it must be at least 1.")
        if online is not None and (online[0] < 0 or not 0.5 < online[1] <= 1 or size is None):
            raise ValueError(
                f"CoordinateAscent got online={online}, size={size}: (t0, kappa) need t0 >= 0 and 0.5 < kappa <= 1, "
                f"and the number of data must be known. Try online=(1, 0.7), size=len(data)."
            )
        require_one_process("CoordinateAscent")
        why = "an update did not reach the maximum; in low precision try float64"
        super().__init__(model, online, EMHistory(slack=100 * precision_of(model), inexact=why))
        self.model: ConjugateForm = model
        self.size, self.chunk_size = size, chunk_size

    @torch.no_grad()
    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        """Take a batch in: the local step, and online the global one.

        Args:
            batch: Data, shape ``(B, *event)``.

        Returns:
            ``loss``: minus the bound in nats per datum by the parameters before the step, estimated from the batch;
            in the first sweep without ``size``, as if the batch were all data.
        """
        found = in_chunks(self.model.coordinate_statistics, batch, chunk_size=self.chunk_size, who="CoordinateAscent")
        size = self.size or found["count"]
        loss = -found["bound"] / found["count"] - self.model.global_bound().double() / size
        if self.online is not None:
            self._finite(loss)
        self.batches += 1
        if self.online is None:
            self.statistics = add(self.statistics, found)
        else:
            t0, kappa = self.online
            scale = (self.size or len(batch)) / len(batch)
            self.model.coordinate_update(found, scale=scale, rate=min(1.0, (self.batches + t0) ** -kappa))
        return {"loss": loss}

    @torch.no_grad()
    def evaluate(self) -> float:
        """Note the bound of the parameters that the statistics belong to, and give it, in nats per datum."""
        found = self._complete()
        bound = (found["bound"] + self.model.global_bound().double()) / found["count"]
        self.history.objectives.append(self._finite(bound))
        self.size = self.size or int(found["count"])
        return self.history.objectives[-1]

    def update(self) -> None:
        """Set q(theta) to its optimum and forget the statistics."""
        found = self._complete()
        self._finite(found["bound"])
        self.model.coordinate_update(found)
        self.statistics = None

    def state_dict(self) -> dict[str, Any]:
        """Collect what besides the parameters is needed to continue, in the middle of a sweep too."""
        return {**super().state_dict(), "size": self.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        super().load_state_dict(state)
        self.size = state["size"]


def coordinate_ascent(
    model: nn.Module,
    x: Tensor,
    *,
    sweeps: int = 100,
    tolerance: int | float = 1e-6,
    seed: int | None = 0,
    chunk_size: int | None = 4096,
) -> EMHistory:
    """Fit q by coordinate ascent until a sweep gains less than the tolerance.

    Args:
        model: An `nn.Module` with the methods of `ConjugateForm`; its parameters are changed in place.
        x: All data, shape ``(N, *event)``.
        sweeps: At most so many updates of q(theta).
        tolerance: Stop when a sweep moves the bound by no more than this, in nats per datum, or by rounding.
        seed: Seed of the start; None goes on from the parameters as they are.
        chunk_size: See `CoordinateAscent`.

    Returns:
        The history: the bound on log p(x_1 ... x_N) / N of each sweep; the last one is that of q as it is now.

    Raises:
        ValueError: If the model is no `ConjugateForm`, a number is out of its range, or the bound is not finite.

    >>> from pyro_dgm.models import BayesianMixture
    >>> history = coordinate_ascent(BayesianMixture(dim=1, components=2), torch.randn(200, 1), tolerance=1e-3)
    >>> history.converged, history.monotone
    (True, True)
    """
    if sweeps < 0 or tolerance < 0:
        raise ValueError(f"coordinate_ascent got sweeps={sweeps}, tolerance={tolerance}: neither can be negative.")
    step = CoordinateAscent(model, chunk_size=chunk_size)
    if seed is not None:
        step.model.start(x, seed=seed)
    return sweep_until(step, x, sweeps=sweeps, tolerance=tolerance)
