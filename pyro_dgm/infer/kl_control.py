# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A control decides what the ELBO pays for its KL terms: a weight, a floor, a target, or a balance of two gradients."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from pyro_dgm.infer.log_weights import LogWeights


class KLControl(ABC):
    r"""What the option ``kl=`` of an ELBO takes: it turns the KL terms into their cost.

    .. math:: \mathbb{E}_q \log p(x \mid z) - \beta \cdot \mathrm{cost}(\mathrm{KL}_1, \mathrm{KL}_2, \dots)

    A subclass gives `cost`. Only an ELBO takes a control, for only there do the KL terms stand by themselves; inside
    the logarithm of a mean (IWAE) they do not. With most controls the result is no bound on log p(x) any more, so
    what is trained with one is validated and evaluated without it.

    Attributes:
        linear: Whether the cost is a weighted sum of the terms, so that an unbiased estimate of each will do. Otherwise
            the terms are exact wherever there is a closed form: with sampled ones a threshold is passed by chance, a
            maximum is on average too large, and ``gradient="stl"`` has a bias near the threshold.
    """

    linear: ClassVar[bool] = False

    @property
    def idle(self) -> bool:
        """Whether the cost is the plain KL at these settings; the ELBO then does as if there were no control."""
        return False

    @abstractmethod
    def cost(self, weights: LogWeights, *, analytic: bool) -> Tensor:
        """Say what the KL terms cost, at beta = 1.

        Args:
            weights: What was weighed, with the terms of each site.
            analytic: Whether to take the closed form of a KL term where there is one.

        Returns:
            Nats, shape ``(K, *batch)``.
        """
