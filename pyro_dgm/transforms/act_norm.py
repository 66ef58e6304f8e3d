# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A scale and a shift of every element, which begin where the first batch comes out with mean 0 and variance 1."""

from typing import Any

import torch
from torch import Tensor, distributed, nn

from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.flow_parameters import ContextNet, FlowParameters
from pyro_dgm.transforms.one_pass import under_functorch
from pyro_dgm.transforms.start_small import start_small


class ActNorm(FlowTransform):
    r"""Scale and shift every element, initialised by data.

    .. math:: y = e^{s} \odot x + b, \qquad \log|\det J| = \sum_i s_i

    The first batch of two rows or more that comes in training mode sets s and b so that, over all its leading
    dimensions, each element of what leaves has mean 0 and variance 1; an element that does not vary is only centred.
    What leaves is x when data are scored, for which the inverse runs, and y when noise is sampled. Hence:

    - Let data come first. To choose them: :meth:`initialize`, or ``flow.train().inverse_and_logdet(data)`` for every
      ActNorm inside a stack. The first batch counts without gradients too.
    - In evaluation mode nothing is initialised; before initialisation s = b = 0. A batch that is not finite is passed
      over, and so are single rows, calls under `torch.func`, and the meta device.
    - Under `torch.compile` with ``fullgraph=True``, initialise it before.
    - Whether it is initialised is a buffer, so that a loaded state_dict or a copy does not begin anew. It is read until
      the first batch has been seen, and not afterwards: no later call waits for the device.
    - Of several processes (`torch.distributed`), all must make the first call; they start from the moments over all.

    With a context, y = exp(s) (exp(s(h)) x + b(h)) + b, of which the network's part starts near the identity.

    Args:
        dim: Dimension D.
        context_dim: Size H of a context; None for one s and b.
        context_net: Makes the network from ``context_dim`` and 2 D.

    Raises:
        ValueError: If a size is not positive.

    Source: Kingma & Dhariwal (NeurIPS 2018), arXiv:1807.03039, section 3.1, for vectors.

    Example:
        >>> flow, data = ActNorm(2), 3 + 5 * torch.randn(100, 2)
        >>> x = flow.inv(data)
        >>> torch.allclose(x.mean(0), torch.zeros(2), atol=1e-5), torch.allclose(x.var(0, correction=0), torch.ones(2))
        (True, True)
    """

    initialized: Tensor

    def __init__(self, dim: int, *, context_dim: int | None = None, context_net: ContextNet = nn.Linear) -> None:
        super().__init__(dim, context_dim=context_dim)
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.shift = nn.Parameter(torch.zeros(dim))
        if context_dim is not None:
            start = {"log_scale": torch.zeros(dim), "shift": torch.zeros(dim)}
            self.values = FlowParameters(start, context_dim, context_net)
            start_small(self.values.net)
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        self._ask = True

    def bind(self, context: Tensor | None) -> Parameters:
        """Compute s(h) and b(h) from a context; with None, nothing."""
        return () if context is None else self.values(context)

    @torch.no_grad()
    def initialize(self, data: Tensor, *, inverse: bool = False) -> None:
        """Set s and b by data, whatever they were.

        Args:
            data: Shape ``(*batch, D)``, two rows or more.
            inverse: Whether the inverse gets the data, as when they are scored; False if the forward map gets them.

        Raises:
            ValueError: If there are fewer than two rows, or a number is not finite.
        """
        self._check(data)
        count, mean, variance = _moments(data.reshape(-1, self.dim).to(self.log_scale.dtype))
        if not bool((count > 1) & variance.isfinite().all()):
            raise ValueError(
                f"{self}.initialize got data of shape {tuple(data.shape)}: it needs at least two rows, in which all "
                f"numbers are finite."
            )
        self._set(mean, variance, inverse=inverse)

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        if parameters:
            log_scale, shift = parameters
            x = x * log_scale.exp() + shift
        if self._ask:
            self._meet(x, inverse=False)
        logdet = self.log_scale.sum() + log_scale.sum(-1) if parameters else self.log_scale.sum()
        return x * self.log_scale.exp() + self.shift, logdet.expand(x.shape[:-1])

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        if self._ask:
            self._meet(y, inverse=True)
        inverse_scale = -self.log_scale
        x, logdet = (y - self.shift) * inverse_scale.exp(), inverse_scale.sum()
        if parameters:
            log_scale, shift = parameters
            x, logdet = (x - shift) * (-log_scale).exp(), logdet - log_scale.sum(-1)
        return x, logdet.expand(y.shape[:-1])

    @torch.no_grad()
    def _meet(self, data: Tensor, *, inverse: bool) -> None:
        """Initialise by the first batch that can be used. Waits for the device, but is not called again afterwards."""
        if not self.training or data.is_meta or under_functorch():
            return
        rows = data.reshape(-1, self.dim).to(self.log_scale.dtype)
        if not _several_processes() and len(rows) < 2:
            return
        if not bool(self.initialized):
            count, mean, variance = _moments(rows)
            if not bool((count > 1) & variance.isfinite().all()):
                return
            self._set(mean, variance, inverse=inverse)
        self._ask = False

    def _set(self, mean: Tensor, variance: Tensor, *, inverse: bool) -> None:
        info = torch.finfo(mean.dtype)
        deviation = variance.sqrt()
        varies = deviation > 16 * info.eps * mean.abs() + info.tiny
        deviation = torch.where(varies, deviation, 1)
        self.log_scale.copy_(deviation.log() if inverse else -deviation.log())
        self.shift.copy_(mean if inverse else -mean / deviation)
        self.initialized.fill_(1)
        self._ask = False

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._ask = True


def _several_processes() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _over_processes(total: Tensor) -> Tensor:
    if _several_processes():
        distributed.all_reduce(total)
    return total


def _moments(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count the rows of all processes; with mean and variance of every element over them."""
    total = _over_processes(torch.cat([rows.sum(0), rows.new_full((1,), len(rows))]))
    count = total[-1]
    mean = total[:-1] / count
    return count, mean, _over_processes((rows - mean).square().sum(0)) / count
