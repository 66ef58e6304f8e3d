# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Bounds from Renyi and chi divergences, as Pyro objectives: one to maximise, and an upper one to minimise."""

import math
from typing import Any, ClassVar

from torch import Tensor

from pyro_dgm.infer.bound import Bound
from pyro_dgm.infer.bounds import cubo, renyi
from pyro_dgm.infer.gradients import Shares, normalized


class Renyi(Bound):
    """The variational Renyi bound of K particles, per datum: from the ELBO (alpha = 1) over IWAE (0) to beyond.

    For alpha >= 0 it is a lower bound on log p(x) in expectation. For alpha < 0 it may lie on either side, and is
    maximised nevertheless, as in the paper; for a guide that covers the posterior by an upper bound use `CUBO`. Unlike
    `pyro.infer.RenyiELBO` it stays what it is under subsampling and `poutine.scale`.

    Args:
        num_particles: K. The bound of one particle is the ELBO's, whatever alpha.
        alpha: Any finite number; see `pyro_dgm.infer.renyi`.
        **options: Those of `Bound`.

    Raises:
        ValueError: If alpha is not finite.

    Source: Li & Turner (NIPS 2016), arXiv:1602.02311, section 4.
    """

    def __init__(self, num_particles: int = 2, *, alpha: int | float = 0.5, **options: Any) -> None:
        super().__init__(num_particles, **options)
        if not math.isfinite(alpha):
            raise ValueError(f"Renyi got alpha={alpha}: a finite number is needed; 1 is the ELBO, 0 is IWAE.")
        self.alpha = alpha

    def bound(self, log_w: Tensor) -> Tensor:
        """Reduce the particles by `pyro_dgm.infer.renyi`."""
        return renyi(log_w, self.alpha)

    def _slopes(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        share = normalized(log_w, 1 - self.alpha)
        return share, (1 - self.alpha) * (share - share.square())


class CUBO(Bound):
    r"""The chi upper bound on log p(x), for guides: its loss is the bound itself, and lower is tighter.

    The loss is the K-sample estimate, which is too low in expectation (see `pyro_dgm.infer.cubo`). Its plain derivative
    would lower that estimate by weights that miss the posterior. The gradient is therefore that of the bound itself,

    .. math:: \nabla_\phi \mathrm{CUBO}_n = \frac{1 - n}{n} \, \frac{\mathbb{E}_q[w^n \, \nabla_\phi \log q_\phi(z
              \mid x)]}{\mathbb{E}_q[w^n]}

    with both expectations estimated by the same particles: right as K grows, and times :math:`\exp(n \mathrm{CUBO}_{n,
    K})` without bias for every K. ``gradient="dreg"`` writes it as a path through the samples, which has less variance
    near the posterior. One particle teaches nothing ("total"), or what an ELBO would ("dreg"): take ten or more.

    The model gets no gradient, for a model that lowers an upper bound makes the data improbable: train it by a lower
    bound, beside it.

    Args:
        num_particles: K.
        order: n, above 1 for anything to be learned; 2 belongs to the chi-square divergence.
        **options: Those of `Bound`.

    Raises:
        ValueError: If the order is below 1 or not finite; at call, if a point mass of the guide depends on parameters.

    Source: Dieng, Tran, Ranganath, Paisley & Blei (NIPS 2017), arXiv:1611.00328, eq. 3 and section 2.2.
    """

    upper: ClassVar[bool] = True
    split: ClassVar[bool] = True
    reweighted: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("total", "dreg")

    def __init__(self, num_particles: int = 10, *, order: int | float = 2, **options: Any) -> None:
        super().__init__(num_particles, **options)
        if not 1 <= order < math.inf:
            raise ValueError(f"CUBO got order={order}: 1 or more is needed; below, it is no upper bound.")
        self.order = order

    def bound(self, log_w: Tensor) -> Tensor:
        """Reduce the particles by `pyro_dgm.infer.cubo`."""
        return cubo(log_w, self.order)

    def _shares(self, log_w: Tensor) -> Shares:
        share = normalized(log_w, self.order) * (1 - self.order * self.beta)
        return Shares(path=share) if self.gradient == "dreg" else Shares(score=share / self.order)
