# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The bounds as Pyro objectives: use them wherever `pyro.infer.Trace_ELBO` goes."""

import math
from typing import ClassVar

from torch import Tensor

from pyro_dgm.infer.bound import Bound
from pyro_dgm.infer.bounds import elbo, iwae
from pyro_dgm.infer.gradients import Gradient, credits_of_mean, normalized
from pyro_dgm.infer.kl_control import KLControl
from pyro_dgm.infer.kl_terms import weigh_kl
from pyro_dgm.infer.log_weights import LogWeights


class ELBO(Bound):
    """The evidence lower bound, averaged over K particles: a drop-in for `pyro.infer.Trace_ELBO`.

    Linear in every term, so it is right for any mixture of scales and for global latent variables.

    Args:
        num_particles: K.
        beta: Weight of the KL terms (Higgins et al. 2017), or of what ``kl`` makes of them.
        kl: What the KL terms cost instead of themselves, e.g. `FreeBits`; ``None`` is the plain ELBO.
        analytic_kl: Whether a KL term is its closed form, KL(q(z | .) || p(z | .)), wherever one is registered in
            `torch.distributions` and the site may have it; all other sites keep log q(z) - log p(z) at the sample.
            ``None``: only where ``kl`` is not linear in the terms, as a maximum of noisy terms is too large.
        gradient: How the guide's gradient is estimated, as for `Bound`. "stl" has less variance than "total" near the
            posterior; "dreg" is the same here.
        max_plate_nesting: How many dimensions the program's plates take; infinity means: find out.
        retain_graph: Passed on to ``backward`` in `loss_and_grads`.

    Source: Kingma & Welling (ICLR 2014), arXiv:1312.6114, eq. 3; with closed forms eq. 7 and 10.
    """

    linear: ClassVar[bool] = True
    bound = staticmethod(elbo)

    def __init__(
        self,
        num_particles: int = 1,
        *,
        beta: int | float = 1.0,
        kl: KLControl | None = None,
        analytic_kl: bool | None = None,
        gradient: Gradient = "total",
        max_plate_nesting: int | float = math.inf,
        retain_graph: bool | None = None,
    ) -> None:
        super().__init__(
            num_particles,
            beta=beta,
            gradient=gradient,
            max_plate_nesting=max_plate_nesting,
            retain_graph=retain_graph,
        )
        self.kl, self.analytic_kl = kl, analytic_kl

    def _weigh(self, weights: LogWeights) -> Tensor:
        """Add up the terms, the KL ones as ``kl`` and ``analytic_kl`` say."""
        return weigh_kl(weights, beta=self.beta, control=self.kl, analytic=self.analytic_kl)

    def _signal(self, log_w: Tensor) -> Tensor:
        """Credit each particle with its own weight less the mean of the others: the general rule, in O(K)."""
        return credits_of_mean(log_w)


class IWAE(Bound):
    """The importance-weighted bound of K particles, per datum: tighter than the ELBO, and exact as K grows.

    Unlike `pyro.infer.RenyiELBO(alpha=0)` it stays a bound under subsampling and `poutine.scale`, keeps the data apart
    beside an observed global site, and has a gradient for discrete sites.

    Source: Burda, Grosse & Salakhutdinov (ICLR 2016), arXiv:1509.00519, eq. 8 and section 3.
    """

    bound = staticmethod(iwae)

    def _slopes(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        """Give the normalised weights w and w - w^2."""
        share = normalized(log_w)
        return share, share - share.square()
