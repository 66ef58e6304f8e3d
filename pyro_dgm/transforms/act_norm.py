# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A scale and a shift of every element or channel, which begin where the first batch leaves with mean 0, variance 1."""

from typing import Any

import torch
from torch import Tensor, distributed, nn

from pyro_dgm.transforms.base import FlowTransform, Parameters, Size
from pyro_dgm.transforms.flow_parameters import ContextNet, FlowParameters
from pyro_dgm.transforms.one_pass import under_functorch
from pyro_dgm.transforms.start_small import start_small


class ActNorm(FlowTransform):
    r"""Scale and shift every element of a vector, or every channel of an image, initialised by data.

    .. math:: y = e^{s} \odot x + b, \qquad \log|\det J| = \sum_i s_i \quad (\text{images: } H W \sum_c s_c)

    The first batch of two rows or more that comes in training mode sets s and b so that, over all its leading
    dimensions, each element of what leaves has mean 0 and variance 1; an element that does not vary is only centred.
    Of images every pixel is a row, so that a single image will do, as it must where memory holds no more.
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
        shape: Dimension D, or the shape ``(C, H, W)`` of an image.
        context_dim: Size of a context, which is a vector; None for one s and b.
        context_net: Makes the network from ``context_dim`` and 2 D, or 2 C.

    Attributes:
        log_scale: The own s, shape ``(D,)`` or ``(C, 1, 1)``.
        shift: The own b, of the same shape.

    Raises:
        ValueError: If a size is not positive, or the shape is neither that of a vector nor that of an image.

    Source: Kingma & Dhariwal (NeurIPS 2018), arXiv:1807.03039, section 3.1 and table 1; vectors are images of one
    pixel.

    Example:
        >>> flow, data = ActNorm(2), 3 + 5 * torch.randn(100, 2)
        >>> x = flow.inv(data)
        >>> torch.allclose(x.mean(0), torch.zeros(2), atol=1e-5), torch.allclose(x.var(0, correction=0), torch.ones(2))
        (True, True)
        >>> ActNorm((3, 8, 8)).log_scale.shape
        torch.Size([3, 1, 1])
    """

    initialized: Tensor
    held = False
    """Whether to let batches pass without starting from them, as who knows which of them are data sets it."""

    def __init__(self, shape: Size, *, context_dim: int | None = None, context_net: ContextNet = nn.Linear) -> None:
        super().__init__(shape, context_dim=context_dim)
        if len(self.shape) not in (1, 3):
            raise ValueError(f"ActNorm got shape={self.shape}: it needs a number of dimensions, or (C, H, W).")
        own = (*self.shape[:1], *(1 for _ in self.shape[1:]))
        self.log_scale = nn.Parameter(torch.zeros(own))
        self.shift = nn.Parameter(torch.zeros(own))
        if context_dim is not None:
            start = {"log_scale": torch.zeros(own), "shift": torch.zeros(own)}
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
            data: Shape ``(*batch, D)``, two rows or more, or ``(*batch, C, H, W)``, two pixels or more.
            inverse: Whether the inverse gets the data, as when they are scored; False if the forward map gets them.

        Raises:
            ValueError: If there are fewer than two rows (pixels), or a number is not finite.
        """
        self._check(data)
        count, mean, variance = _moments(self._rows(data))
        if not bool((count > 1) & variance.isfinite().all()):
            raise ValueError(
                f"{self}.initialize got data of shape {tuple(data.shape)}: it needs at least two rows (of images: "
                f"pixels), in which all numbers are finite."
            )
        self._set(mean, variance, inverse=inverse)

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        if parameters:
            log_scale, shift = parameters
            x = x * log_scale.exp() + shift
        if self._ask:
            self._meet(x, inverse=False)
        logdet = self._volume(self.log_scale)
        if parameters:
            logdet = logdet + self._volume(log_scale)
        return x * self.log_scale.exp() + self.shift, self._spread(logdet, x)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        if self._ask:
            self._meet(y, inverse=True)
        inverse_scale = -self.log_scale
        x, logdet = (y - self.shift) * inverse_scale.exp(), self._volume(inverse_scale)
        if parameters:
            log_scale, shift = parameters
            x, logdet = (x - shift) * (-log_scale).exp(), logdet - self._volume(log_scale)
        return x, self._spread(logdet, y)

    def _volume(self, log_scale: Tensor) -> Tensor:
        """Add up log-scales, shape ``(*batch, D)`` or ``(*batch, C, 1, 1)``: a channel has one for each pixel."""
        if len(self.shape) == 1:
            return log_scale.sum(-1)
        return log_scale.sum((-3, -2, -1)) * (self.shape[1] * self.shape[2])

    def _spread(self, logdet: Tensor, x: Tensor) -> Tensor:
        return logdet.expand(x.shape[: x.dim() - len(self.shape)])

    def _rows(self, data: Tensor) -> Tensor:
        """Lay out data as rows ``(N, D)``, and images as pixels ``(N, C)``, in single precision or better."""
        last = data if len(self.shape) == 1 else data.movedim(-3, -1)
        return last.reshape(-1, self.shape[0]).to(torch.promote_types(self.log_scale.dtype, torch.float32))

    @torch.no_grad()
    def _meet(self, data: Tensor, *, inverse: bool) -> None:
        """Initialise by the first batch that can be used. Waits for the device, but is not called again afterwards."""
        if self.held or not self.training or data.is_meta or under_functorch():
            return
        rows = self._rows(data)
        if not _several_processes() and len(rows) < 2:
            return
        if not bool(self.initialized):
            count, mean, variance = _moments(rows)
            if not bool((count > 1) & variance.isfinite().all()):
                return
            self._set(mean, variance, inverse=inverse)
        self._ask = False

    def _set(self, mean: Tensor, variance: Tensor, *, inverse: bool) -> None:
        eps, info = torch.finfo(mean.dtype).eps, torch.finfo(self.shift.dtype)
        mean, deviation = mean.view_as(self.shift), variance.sqrt().view_as(self.shift)
        least = max(16 * eps, 2 / info.max)  # below it, variation is rounding, or mean / deviation has no number
        varies = deviation > least * mean.abs() + info.tiny
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
