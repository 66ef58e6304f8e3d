# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""KL balancing teaches the prior faster than it holds back the posterior, by sharing out the gradient of the KL."""

from torch import Tensor

from pyro_dgm.infer.kl_control import KLControl
from pyro_dgm.infer.kl_terms import require_priors, sum_terms
from pyro_dgm.infer.latent_site import LatentSite
from pyro_dgm.infer.log_weights import LogWeights


class KLBalance(KLControl):
    r"""Give each side of the KL its own share of the gradient; the value is the KL.

    .. math:: \mathrm{cost} = \sum_s \alpha\, \mathrm{KL}(\lfloor q_s \rfloor \| p_s)
              + (1 - \alpha)\, \mathrm{KL}(q_s \| \lfloor p_s \rfloor)

    with :math:`\lfloor\cdot\rfloor` a distribution whose parameters get no gradient. It matters where the prior is
    learned: for a fixed one it is a plain weight of 1 - alpha for the posterior.

    Args:
        prior: alpha, the prior's share. 0.5 treats both alike, with half the KL's gradient for each; 0.8 is
            Hafner et al.'s; 1 leaves the posterior to the reconstruction alone, 0 the prior as it is.

    Raises:
        ValueError: If ``prior`` is not between 0 and 1; in use, if a variable's samples carry no gradient and its KL
            has no closed form, as the two shares then cannot be told apart.

    Source: Hafner et al. (ICLR 2021), arXiv:2010.02193, algorithm 2. NVAE's balancing of groups (Vahdat & Kautz 2020)
    is another method of that name.

    >>> KLBalance(0.8).prior
    0.8
    """

    def __init__(self, prior: int | float = 0.8) -> None:
        if not 0 <= prior <= 1:
            raise ValueError(f"KLBalance got prior={prior}: the prior's share of the gradient lies between 0 and 1.")
        self.prior = prior

    def cost(self, weights: LogWeights, *, analytic: bool) -> Tensor:
        """Add up the balanced terms, shape ``(K, *batch)``."""
        require_priors(weights)
        return sum_terms({name: self._term(name, site, weights, analytic) for name, site in weights.sites.items()})

    def _term(self, name: str, site: LatentSite, weights: LogWeights, analytic: bool) -> Tensor:  # noqa: FBT001
        closed = site.closed_form(prior_share=self.prior) if analytic else None
        if closed is not None:
            return closed
        if not site.reparameterized:
            raise ValueError(
                f"KLBalance got the site {name!r}, whose samples carry no gradient and whose KL is "
                f"{'known in no closed form' if analytic else 'sampled'}: give posterior and prior of one family, and "
                f"leave analytic_kl as None."
            )
        return site.balanced(weights.guide_terms[name], weights.model_terms[name], prior_share=self.prior)
