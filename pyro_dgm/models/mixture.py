# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What all mixtures share: draw a component, then a datum from it; which component it was is known in closed form."""

import math
from abc import abstractmethod

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from pyro.poutine.runtime import InferDict
from torch import Tensor, nn
from torch.distributions import Distribution

ENUMERATED: InferDict = {"enumerate": "parallel"}


class Mixture(PyroModule):
    r"""A mixture of K components, as a Pyro program with the exact posterior as its guide.

    .. math:: p(x) = \sum_k \pi_k\, p(x \mid z = k), \qquad
              q(z = k \mid x) = \frac{\pi_k\, p(x \mid z = k)}{p(x)}

    So one draw of z gives every bound its exact value, log p(x). z is marked for enumeration: stock `TraceEnum_ELBO`
    sums over it; stock `Trace_ELBO` draws it, and warns that it could be summed.

    Args:
        components: K.
        learned_weights: Whether the weights are parameters; otherwise all components weigh the same.

    Attributes:
        logits: Logs of the weights up to a constant, shape ``(K,)``.
    """

    def __init__(self, *, components: int, learned_weights: bool = True) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"{type(self).__name__} got components={components}: at least 1 is needed.")
        self.components = components
        zeros = torch.zeros(components)
        if learned_weights:
            self.logits = nn.Parameter(zeros)
        else:
            self.register_buffer("logits", zeros)

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """Refuse data that are not of the model's shape and kind."""

    @abstractmethod
    def component(self, z: Tensor) -> Distribution:
        """Give p(x | z) for component numbers z of any shape."""

    @abstractmethod
    def log_joint(self, x: Tensor) -> Tensor:
        """Give log p(x, z = k) in nats for all k, from data ``(B, *event)``: shape ``(B, K)``."""

    @property
    def log_weights(self) -> Tensor:
        """Logs of the weights, shape ``(K,)``."""
        return self.logits.log_softmax(-1)

    def _log_weights(self, dtype: torch.dtype) -> Tensor:
        return self.logits.to(dtype).log_softmax(-1)

    @property
    def weights(self) -> Tensor:
        """The weights, shape ``(K,)``; they sum to 1."""
        return self.logits.softmax(-1)

    @pyro_method
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(z) p(x | z): score ``x``, or dream ``size`` data without it.

        Args:
            x: Data, shape ``(B, *event)``, or nothing.
            size: How many to dream.

        Returns:
            ``x``, or data of shape ``(size, *event)``.

        Raises:
            ValueError: If x is of another shape or kind.
        """
        if x is not None:
            self.check(x)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Categorical(logits=self.logits), infer=ENUMERATED)  # (B,)
            return pyro.sample("x", self.component(z), obs=x)  # type: ignore[arg-type]

    @pyro_method
    def guide(self, x: Tensor) -> Tensor:
        """p(z | x), the exact posterior.

        Args:
            x: Data, shape ``(B, *event)``.

        Returns:
            A sample of z, shape ``(B,)``.

        Raises:
            ValueError: If x is of another shape or kind.
        """
        logits = self.log_joint(x)  # (B, K)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Categorical(logits=logits), infer=ENUMERATED)

    def log_prob(self, x: Tensor) -> Tensor:
        """Give log p(x) of each datum, exactly.

        Args:
            x: Data, shape ``(B, *event)``.

        Returns:
            Nats, shape ``(B,)``.

        Raises:
            ValueError: If x is of another shape or kind.
        """
        return self.log_joint(x).logsumexp(-1)

    def responsibilities(self, x: Tensor) -> Tensor:
        """Give p(z = k | x), the share of each component in each datum.

        Args:
            x: Data, shape ``(B, *event)``.

        Returns:
            Probabilities, shape ``(B, K)``; rows sum to 1.

        Raises:
            ValueError: If x is of another shape or kind.
        """
        return self.log_joint(x).softmax(-1)

    def log_prior(self) -> Tensor:
        """Give the log-density of the parameters' prior in nats, 0-dim: zero, for there is none."""
        return self.logits.new_zeros(())

    def set_weights(self, mass: Tensor, *, concentration: int | float = 1) -> None:
        r"""Set the weights to their most probable values under a Dirichlet prior.

        .. math:: \pi_k = \frac{N_k + \alpha - 1}{\sum_j (N_j + \alpha - 1)}

        A component without data keeps a weight of the smallest step of float64, which is no zero whose log is -inf.

        Args:
            mass: How many data each component has, N_k, shape ``(K,)``; only ratios count where alpha is 1.
            concentration: alpha, at least 1.
        """
        share = (mass + (concentration - 1)) / (mass.sum() + self.components * (concentration - 1))
        self.logits.data.copy_(share.clamp_min(torch.finfo(torch.float64).eps).log())

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"components={self.components}"


def shares(log_joint: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Normalise log p(x, z = k) over a dimension, for an E-step: the shares p(z = k | x), and log p(x).

    Shares below 1e-20 become zero: a million times fewer than make a component count as empty, they would otherwise be
    numbers so small that processors take many times longer over them.

    Args:
        log_joint: In nats, any shape; it is overwritten.
        dim: The dimension of the components.

    >>> shares(torch.tensor([[0.0, math.log(3.0)]]), 1)
    (tensor([[0.2500, 0.7500]]), tensor([1.3863]))
    """
    best = log_joint.amax(dim, keepdim=True)
    found = nn.functional.threshold(log_joint.sub_(best), -46.0, -math.inf, inplace=True).exp_()
    total = found.sum(dim, keepdim=True)
    return found.div_(total), (best + total.log()).squeeze(dim)
