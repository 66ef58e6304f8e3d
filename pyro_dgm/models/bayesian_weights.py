# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The weights of a network as one random vector with a prior, and a posterior that is learned."""

import copy
import math
from collections.abc import Iterator
from typing import Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn
from torch.func import functional_call

from pyro_dgm.distributions.independent import Independent
from pyro_dgm.distributions.normal import Normal

Posterior = Literal["map", "normal"]


class BayesianWeights(PyroModule):
    r"""Make all P weights of a network one global variable.

    .. math:: w \sim N(0, s^2 I), \qquad q(w) = N(m, \mathrm{diag}(\exp 2 r)) \quad \text{or} \quad \delta(w - m)

    Call ``model()`` in a model and ``guide()`` in its guide, outside the data plate: each has the one site ``name``.
    The value goes with the inputs into the network. The plate has to scale the data up to their full number, as
    ``pyro.plate("data", size, subsample=...)`` does, or a mini-batch counts as if it were all there is.

    >>> def model(x, y):
    ...     w = line.model()
    ...     with pyro.plate("data", 1000, subsample=torch.arange(len(x))):
    ...         pyro.sample("y", dist.Normal(line(w, x), 0.1).to_event(1), obs=y)
    >>> line = BayesianWeights(nn.Linear(3, 1))
    >>> from pyro_dgm.infer import ELBO
    >>> loss = ELBO().loss(model, lambda x, y: line.guide(), torch.randn(50, 3), torch.randn(50, 1))

    Args:
        net: The network; a copy of it is kept. Its weights are where the posterior's mean starts.
        posterior: ``"normal"``, independent normals; or ``"map"``, a point mass: the most probable weights, with
            log-density 0, by which an ELBO becomes L(q, theta) + log p(theta).
        prior_scale: Standard deviation s of the prior.
        start_scale: Standard deviation at which the normal posterior starts: small, so that training starts as that of
            the network itself.
        name: Name of the site.

    Attributes:
        loc: Mean of the posterior, or its point, shape ``(P,)``.
        log_scale: Logs of its standard deviations, shape ``(P,)``; a point mass has none.

    Raises:
        ValueError: If the network has no weights, a scale is not positive, or the posterior is unknown.

    Source: Graves (NeurIPS 2011), Practical variational inference for neural networks; Blundell et al. (ICML 2015),
    arXiv:1505.05424, section 3; Kingma & Welling (ICLR 2014), arXiv:1312.6114, appendix F.
    """

    prior_scale: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        posterior: Posterior = "normal",
        prior_scale: int | float = 1.0,
        start_scale: int | float = 0.01,
        name: str = "weights",
    ) -> None:
        super().__init__()
        weights = dict(net.named_parameters(remove_duplicate=False))
        if not weights:
            raise ValueError(f"BayesianWeights got a {type(net).__name__} without weights: give the network itself.")
        if posterior not in get_args(Posterior):
            raise ValueError(f"BayesianWeights got posterior={posterior!r}: it is one of {get_args(Posterior)}.")
        if not (prior_scale > 0 and start_scale > 0):
            raise ValueError(
                f"BayesianWeights got prior_scale={prior_scale}, start_scale={start_scale}: both must be positive."
            )
        unique = list({id(weight): weight for weight in weights.values()}.values())
        order = {id(weight): number for number, weight in enumerate(unique)}
        self.places = {path: order[id(weight)] for path, weight in weights.items()}  # tied weights share one
        self.shapes = [weight.shape for weight in unique]
        self.name, self.kind = name, posterior
        self.net = _without_parameters(copy.deepcopy(net))
        self.loc = nn.Parameter(torch.cat([weight.detach().flatten() for weight in unique]))
        self.register_buffer("prior_scale", torch.full_like(self.loc[0].detach(), prior_scale))
        if posterior == "normal":
            self.log_scale = nn.Parameter(torch.full_like(self.loc.detach(), math.log(start_scale)))

    @pyro_method
    def model(self) -> Tensor:
        """Draw the weights from the prior: shape ``(P,)``."""
        zero = self.prior_scale.new_zeros(self.size)
        return pyro.sample(self.name, Independent(Normal(zero, self.prior_scale.expand(self.size)), 1))

    @pyro_method
    def guide(self) -> Tensor:
        """Draw the weights from the posterior: shape ``(P,)``."""
        if self.kind == "map":
            return pyro.sample(self.name, dist.Delta(self.loc, event_dim=1))
        return pyro.sample(self.name, Independent(Normal(self.loc, self.log_scale.exp()), 1))

    @property
    def size(self) -> int:
        """The number P of weights."""
        return sum(shape.numel() for shape in self.shapes)

    def forward(self, weights: Tensor, x: Tensor) -> Tensor:
        """Run the network with given weights.

        Args:
            weights: Shape ``(P,)``, or ``(K, 1, ..., 1, P)`` for K particles, each of which is a network of its own.
            x: Inputs. With particles, those of fewer dimensions than the weights are shared by all; others begin with
                K, as latent vectors ``(K, B, L)`` do beside weights ``(K, 1, P)``.

        Returns:
            The network's outputs, which begin with K where the weights do.

        Raises:
            ValueError: If there is not one vector of weights for each particle.
        """
        rows = weights.reshape(-1, self.size)
        if len(rows) == 1:
            return functional_call(self.net, self._named(rows[0]), (x,))
        shared = x.dim() < weights.dim()
        if len(weights) != len(rows) or not (shared or len(x) == len(rows)):
            raise ValueError(
                f"BayesianWeights got weights of shape {tuple(weights.shape)} and x of shape {tuple(x.shape)}: K "
                f"particles need weights (K, 1, P), sampled outside the data plate, and x that begins with K."
            )
        each = [x] * len(rows) if shared else x.unbind(0)
        pairs = zip(rows.unbind(0), each, strict=True)
        return torch.stack([functional_call(self.net, self._named(row), (part,)) for row, part in pairs])

    def drawn(self, *, mean: bool = False) -> nn.Module:
        """Give the network with weights from the posterior, as a plain module with parameters.

        Args:
            mean: Take the posterior's mean instead of a draw.

        Returns:
            A copy, which shares nothing.
        """
        weights = self.loc.detach()
        if not mean and self.kind == "normal":
            weights = weights + self.log_scale.detach().exp() * torch.randn_like(weights)
        net, parameters = copy.deepcopy(self.net), [nn.Parameter(part.clone()) for part in self._parts(weights)]
        for path, place in self.places.items():
            owner, _, leaf = path.rpartition(".")
            module = net.get_submodule(owner)
            del module._buffers[leaf]
            module.register_parameter(leaf, parameters[place])
        return net

    def _parts(self, weights: Tensor) -> Iterator[Tensor]:
        parts = weights.split([shape.numel() for shape in self.shapes])
        return (part.view(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        parts = list(self._parts(weights))
        return {path: parts[place] for path, place in self.places.items()}


def _without_parameters(net: nn.Module) -> nn.Module:
    """Keep weights as buffers that are not saved: they follow the device and dtype, and no optimiser finds them."""
    for module in net.modules():
        for leaf, weight in list(module._parameters.items()):
            if weight is not None:
                del module._parameters[leaf]
                module.register_buffer(leaf, weight.detach(), persistent=False)
    return net
