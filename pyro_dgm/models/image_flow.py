# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A flow of images with integer levels: the image before rounding is latent, and dequantisation is its guide."""

import copy
from collections.abc import Callable
from typing import Self

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution
from torch.distributions.transforms import ReshapeTransform

from pyro_dgm.distributions import UniformDequantizer
from pyro_dgm.distributions.independent import Independent
from pyro_dgm.distributions.normal import Normal
from pyro_dgm.distributions.quantized import Quantized
from pyro_dgm.models.check_integers import check_integers
from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms import FlowTransform, Glow, Invert, Logit
from pyro_dgm.transforms.make_image_flow import make_image_flow

Shape = tuple[int, ...]


class ImageFlow(PyroModule):
    r"""A density of real-valued images v, in units of levels, of which the integers x are what is left by rounding.

    .. math:: p(v) = \text{flow}, \qquad x = \min(\max(\lfloor v \rfloor, 0), L - 1), \qquad v \sim q(v \mid x)

    The guide draws v from the cell [x, x + 1) of every pixel. So dequantisation is inference, the log-weight
    :math:`\log p(v) - \log q(v \mid x)` bounds :math:`\log P(x)` in expectation, and every bound and every estimate of
    this package is of *integers*: bits/dim are right by construction. With a `UniformDequantizer`, the ELBO is what
    papers report; a `VariationalDequantizer` is a tighter q, and more samples (`IWAE`, `log_likelihood`) tighten any.

    Rounding moves what the flow puts below 0 or above L into black and white. The guide does not look there, so that
    for images with such pixels the limit of all bounds lies below log P(x), by what a good flow puts there: little.

    >>> from functools import partial
    >>> from pyro_dgm.infer import ELBO
    >>> model = ImageFlow(shape=(8, 8), levels=17, flow=partial(Glow, levels=2, depth=2)).eval()
    >>> x = model.model(size=3)
    >>> x.shape, ELBO().per_datum(model.model, model.guide, x).shape  # nats; bits_per_dim makes bits of them
    (torch.Size([3, 8, 8]), torch.Size([3]))

    Layers that start from data (`ActNorm`) do so with the first batch that is scored in training mode. Dream before
    that in evaluation mode only, lest they start from noise.

    Args:
        shape: Shape of one datum, ``(H, W)`` or ``(C, H, W)``.
        levels: Number of values a pixel can take: data are integers 0 ... levels - 1.
        flow: Makes the flow from ``(C, H, W)``, noise to images: a class, or `functools.partial` of one to set its
            options. Its noise is flat, of shape ``(D,)``, or has the shape of an image.
        dequantizer: Makes from ``shape`` and ``levels`` a module that turns x into q(v | x).
        alpha: Margin of the `Logit` that the flow models instead of v; None: it models v / levels - 1/2.

    Attributes:
        flow: The flow, from noise to logits.
        dequantizer: Call it with x, shape ``(*batch, *shape)``, for q(v | x).

    Raises:
        ValueError: If a size is not positive, the shape is not that of an image, levels is below 2, or the flow is
            none, of another shape, or needs a context.

    Source: Ho et al. (ICML 2019), arXiv:1902.00275, section 3.1; Theis, van den Oord & Bethge (ICLR 2016),
    arXiv:1511.01844, section 3.1; Dinh et al. (ICLR 2017), arXiv:1605.08803, section 4.1.
    """

    zero: Tensor
    one: Tensor
    has_codes = False
    """Its latent variable is the datum itself before rounding, and no code: it has no active units."""

    def __init__(
        self,
        *,
        shape: Shape,
        levels: int,
        flow: Callable[[Shape], FlowTransform] = Glow,
        dequantizer: Callable[[Shape, int], nn.Module] = UniformDequantizer,
        alpha: int | float | None = 0.05,
    ) -> None:
        super().__init__()
        self.shape, self.levels, self.temperature = positive_shape(self, "shape", shape), levels, 1.0
        if len(self.shape) not in (2, 3) or levels < 2:
            raise ValueError(
                f"ImageFlow got shape={self.shape}, levels={levels}: images have (H, W) or (C, H, W), and at least 2 "
                f"levels. A data set's description has both: shape=data.description.shape."
            )
        self.image_shape: Shape = (1,) * (3 - len(self.shape)) + self.shape
        self.flow = make_image_flow(self, flow, self.image_shape)
        self.to_levels = None if alpha is None else Invert(Logit(self.shape, levels=levels, alpha=alpha))
        self.dequantizer = dequantizer(self.shape, levels)
        self.register_buffer("zero", torch.zeros(self.flow.shape), persistent=False)
        self.register_buffer("one", torch.ones(self.flow.shape), persistent=False)

    @pyro_method
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(v) P(x | v): score ``x``, or dream ``size`` images without it.

        Args:
            x: Integers of shape ``(B, *shape)``, or nothing.
            size: How many to dream.

        Returns:
            ``x``, or int64 images of shape ``(size, *shape)``.

        Raises:
            ValueError: If x is not integer or has another shape.
        """
        if x is not None:
            check_integers(self, x, shape=self.shape, levels=self.levels)
        with pyro.plate("data", size if x is None else len(x)):
            v = pyro.sample("v", self.distribution())  # type: ignore[arg-type]  # (B, *shape)
            return pyro.sample("x", Quantized(v, self.levels, len(self.shape)), obs=x)  # (B, *shape)

    @pyro_method
    def guide(self, x: Tensor) -> Tensor:
        """q(v | x).

        Args:
            x: Integers of shape ``(B, *shape)``.

        Returns:
            Dequantised images, shape ``(B, *shape)``.

        Raises:
            ValueError: If x is not integer or has another shape.
        """
        check_integers(self, x, shape=self.shape, levels=self.levels)
        with pyro.plate("data", len(x)):
            return pyro.sample("v", self.dequantizer(x))  # (B, *shape)

    def distribution(self) -> Distribution:
        """Give p(v), of ``event_shape`` equal to ``shape``: sampling and scoring are one pass."""
        noise = Independent(Normal(self.zero, self.temperature * self.one), self.zero.dim())
        shapes = torch.Size(self.image_shape), torch.Size(self.shape)
        reshape = [] if shapes[0] == shapes[1] else [ReshapeTransform(*shapes, cache_size=1)]
        return dist.TransformedDistribution(noise, [self.flow, *reshape, self._to_levels()])

    def at_temperature(self, temperature: int | float) -> Self:
        """Give the model, with the same parameters, whose noise has another standard deviation.

        For dreaming: below 1, images are more alike and have fewer mistakes. Numbers are reported at temperature 1.

        Args:
            temperature: Standard deviation of the noise, positive; papers take 0.7.

        Raises:
            ValueError: If it is not positive.

        Source: Kingma & Dhariwal (NeurIPS 2018), arXiv:1807.03039, section 6.
        """
        if not temperature > 0:
            raise ValueError(f"ImageFlow.at_temperature got {temperature}: it must be positive, e.g. 0.7.")
        new = copy.copy(self)
        new.temperature = float(temperature)
        return new

    def encode(self, x: Tensor) -> Tensor:
        """Give the noise of the middles of the cells of x, shape ``(*batch, *flow.shape)``: `decode` gives x back."""
        value = self._to_levels().inv(x.to(self.zero.dtype) + 0.5)
        batch = value.shape[: value.dim() - len(self.shape)]
        return self.flow.inverse_and_logdet(value.reshape(*batch, *self.image_shape))[0]

    def decode(self, noise: Tensor) -> Tensor:
        """Give the int64 images of noise, shape ``(*batch, *flow.shape)``: between two codes it interpolates images."""
        value = self.flow.forward_and_logdet(noise)[0]
        batch = value.shape[: value.dim() - 3]
        return Quantized(self._to_levels()(value.reshape(*batch, *self.shape)), self.levels, len(self.shape)).sample()

    def _to_levels(self) -> FlowTransform | AffineTransform:
        """From what the flow gives to units of levels."""
        if self.to_levels is not None:
            return self.to_levels
        return AffineTransform(self.levels / 2, float(self.levels), event_dim=len(self.shape), cache_size=1)
