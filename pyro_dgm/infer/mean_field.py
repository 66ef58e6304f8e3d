# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Mean field for any conditionally conjugate Pyro program: the coordinate updates are found from the program itself."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_dgm.infer.conjugate_factor import ContinuousFactor, EnumeratedFactor, Factor, misfit
from pyro_dgm.infer.conjugate_start import start_factor
from pyro_dgm.infer.em_history import EMHistory
from pyro_dgm.infer.expected_joint import ExpectedJoint, Nodes
from pyro_dgm.infer.one_process import require_one_process


class MeanField(nn.Module):
    r"""A posterior with one independent factor for each latent site, fitted by exact coordinate updates.

    .. math:: q(t) = \prod_j q_j(t_j), \qquad \log q_j(t_j) = E_{i \ne j} \log p(x, t) + \mathrm{const}

    No update is written down: the program is run at a few values of its sites (*nodes*) that stand exactly for the
    distributions of the others, and the factor's natural parameters are read off at a few probe values of the site.
    One probe more than needed tells whether the site is conjugate at all. Nothing is sampled but the start.

    Factors are of the prior's family: Normal (each number by itself), Normal with ``.to_event`` and MultivariateNormal
    (one vector with a full covariance), Gamma, Exponential, Beta, Dirichlet, Categorical and Bernoulli. Elements along
    a plate are updated at once and must not depend on each other given all else; this is verified, too.

    It is a step of training as well, for one batch of all data: mini-batches are refused.

    Args:
        model: A Pyro program; its plates must not subsample.
        *args: What it is called with: all data.
        seed: Of the start.
        **kwargs: Likewise, by name.

    Attributes:
        history: The bound in nats after each sweep, which cannot fall.

    Raises:
        ValueError: If a site's family has no factor, the program has no latent site or subsamples, or there are several
            processes.

    Source: Bishop (2006), section 10.1.1; Winn & Bishop (JMLR 2005) for the class of models.

    >>> import pyro.distributions as dist
    >>> def flips(x):
    ...     p = pyro.sample("p", dist.Beta(2.0, 2.0))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("x", dist.Bernoulli(p), obs=x)
    >>> field = MeanField(flips, torch.tensor([1.0, 1.0, 0.0]))
    >>> field.fit().converged
    True
    >>> field.posterior("p").mean
    tensor(0.5714)
    """

    def __init__(self, model: Callable[..., Any], *args: Any, seed: int = 0, **kwargs: Any) -> None:
        super().__init__()
        require_one_process("MeanField")
        self._joint = ExpectedJoint(model, args, kwargs, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        made = {name: start_factor(name, site, generator) for name, site in self._joint.sites.items()}
        self.names = list(made)
        self.factors = nn.ModuleList(made.values())
        self._alone: set[str] = set()  # discrete sites whose elements are known not to depend on each other
        dtype = next(buffer.dtype for buffer in self.buffers() if buffer.is_floating_point())
        self._tolerance = torch.finfo(dtype).eps ** 0.4
        self.history = EMHistory(slack=100 * torch.finfo(dtype).eps, inexact="an update was not exact; try float64")

    @property
    def module(self) -> nn.Module:
        """The factors, which are what training saves; this object's own state has the history besides."""
        return self.factors

    def get_extra_state(self) -> dict[str, Any]:
        """Collect what besides the factors is needed to continue."""
        return {"objectives": list(self.history.objectives), "converged": self.history.converged}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_extra_state` gave."""
        self.history.objectives, self.history.converged = list(state["objectives"]), state["converged"]

    def factor(self, name: str) -> Factor:
        """Give a site's factor."""
        return self.factors[self.names.index(name)]  # type: ignore[return-value]

    def posterior(self, name: str) -> Any:
        """Give q of a site as a distribution of the site's batch and event shape.

        Args:
            name: The site's name.

        Raises:
            ValueError: If there is no such latent site.
        """
        if name not in self.names:
            raise ValueError(f"MeanField has no site {name!r}: its latent sites are {self.names}.")
        return self.factor(name).distribution()

    @torch.no_grad()
    def bound(self) -> Tensor:
        """Give the bound on log p of all data, E_q log p(x, t) plus the entropy of q, in nats, 0-dim; exact."""
        entropy = torch.stack([factor.entropy() for factor in self._factors().values()]).sum()
        return self._joint.expectation(self._nodes()) + entropy

    def _factors(self) -> dict[str, Factor]:
        return dict(zip(self.names, self.factors, strict=True))  # type: ignore[arg-type]

    def _nodes(self) -> Nodes:
        return {name: factor.nodes() for name, factor in self._factors().items()}

    @torch.no_grad()
    def update(self, name: str) -> None:
        """Set one factor to its optimum given the others.

        Args:
            name: The site's name.

        Raises:
            ValueError: If the site is not conjugate, or elements of its plates depend on each other.
        """
        factor, nodes = self.factor(name), self._nodes()
        if isinstance(factor, EnumeratedFactor):
            self._require_alone(name, factor, nodes)
            factor.fit(torch.stack([self._joint.table(nodes, name, value) for value, _ in nodes[name]]))
            off = torch.zeros(())
        elif isinstance(factor, ContinuousFactor):
            off = factor.fit(lambda point: self._joint.gradient(nodes, name, point))
        if not bool(off <= self._tolerance):
            raise ValueError(self._refusal(name, f"it is off by {float(off):.1e} of its size at a probe"))
        if not factor.proper():
            why = "its best factor is no distribution, or too broad for floating point: a narrower prior helps"
            raise ValueError(self._refusal(name, why))

    def _refusal(self, name: str, why: str) -> str:
        kind = type(self.posterior(name)).__name__ if isinstance(self.factor(name), EnumeratedFactor) else "its prior"
        return (
            f"MeanField cannot update the site {name!r}: given the other sites the log joint is not conjugate to "
            f"{kind} in it, or elements along its plates depend on each other ({why}). Make dependent numbers one "
            f"vector by .to_event(1), check that all data are finite, or use ELBO with a guide, e.g. one of "
            f"pyro.infer.autoguide."
        )

    def _require_alone(self, name: str, factor: EnumeratedFactor, nodes: Nodes) -> None:
        """Look once whether giving each element another value does what the single changes do."""
        if name in self._alone:
            return
        values = [value for value, _ in nodes[name]]
        fixed: Nodes = {other: [(points[0][0], 1.0)] for other, points in nodes.items()}
        fixed[name] = nodes[name]
        index = torch.arange(values[0].numel(), device=values[0].device).reshape(values[0].shape)
        index = ((index * 7 + index // 2) % len(values)).unsqueeze(0)
        mixed = self._joint.table(fixed, name, torch.stack(values).gather(0, index)[0])
        alone = torch.stack([self._joint.table(fixed, name, value) for value in values]).gather(0, index)[0]
        if bool(misfit(mixed, alone, alone) > self._tolerance):
            raise ValueError(self._refusal(name, "changing all of them is not the sum of the single changes"))
        self._alone.add(name)

    def sweep(self) -> float:
        """Update each factor once, the discrete ones last, and note the bound, in nats.

        Raises:
            ValueError: If a site is not conjugate.
        """
        late = [name for name in self.names if isinstance(self.factor(name), EnumeratedFactor)]
        for name in [name for name in self.names if name not in late] + late:
            self.update(name)
        self.history.objectives.append(float(self.bound()))
        return self.history.objectives[-1]

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Make a sweep as a step of training.

        Args:
            batch: All data: the tensor that the program was given at the beginning, in any order. (The sweep is on that
                one, which this is compared with.)

        Returns:
            ``loss``: minus the bound in nats per datum, of which there are ``len(batch)``.

        Raises:
            ValueError: If the batch is a part of the data or other data, or a site is not conjugate.
        """
        known = [value for value in (*self._joint.args, *self._joint.kwargs.values()) if isinstance(value, Tensor)]
        if not any(batch is data or _alike(batch, data) for data in known):
            raise ValueError(
                f"MeanField got a batch of shape {tuple(batch.shape)} that is not the data it was made for, of shape "
                f"{[tuple(data.shape) for data in known]}: a sweep takes all of them, as one batch. For other data "
                f"make another MeanField; for mini-batches use CoordinateAscent with online=, or ELBO."
            )
        return {"loss": torch.tensor(-self.sweep() / len(batch), dtype=torch.float64, device=batch.device)}

    def fit(self, *, sweeps: int = 100, tolerance: int | float = 1e-6) -> EMHistory:
        """Sweep until the bound gains less than the tolerance.

        Args:
            sweeps: At most so many.
            tolerance: In nats, of the whole bound.

        Returns:
            The history: the bound after each sweep, in nats.

        Raises:
            ValueError: If a site is not conjugate.
        """
        for _ in range(sweeps):
            self.sweep()
            self.history.converged = self.history.gain <= tolerance and not self.history.falls
            if self.history.gain <= tolerance:
                break
        return self.history

    def guide(self, *_: Any, **__: Any) -> None:
        """Sample each site from its factor, in the model's plates: a Pyro guide for the same data."""
        plates: dict[str, Any] = {}
        for name, site in self._joint.sites.items():
            with ExitStack() as stack:
                for frame in site["cond_indep_stack"]:
                    if frame.vectorized:
                        plate = plates.get(frame.name) or pyro.plate(frame.name, frame.size, dim=frame.dim)
                        stack.enter_context(plates.setdefault(frame.name, plate))
                pyro.sample(name, self.posterior(name))


def _alike(batch: Tensor, data: Tensor) -> bool:
    """Tell whether two tensors have the same numbers in some order, as a shuffled loader gives them."""
    if batch.shape != data.shape or batch.dtype != data.dtype:
        return False
    batch = batch.to(data.device)
    return torch.equal(batch, data) or torch.equal(batch.flatten().sort().values, data.flatten().sort().values)
