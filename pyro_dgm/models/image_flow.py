# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A flow of images with integer levels: the image before rounding is latent, and dequantisation is its guide."""

import copy
from collections.abc import Callable
from typing import Self

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import is_validation_enabled
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_dgm.distributions import UniformDequantizer
from pyro_dgm.distributions.check_levels import check_levels
from pyro_dgm.distributions.independent import Independent
from pyro_dgm.distributions.normal import Normal
from pyro_dgm.distributions.quantized import Quantized
from pyro_dgm.distributions.unit_cells import UnitCells
from pyro_dgm.models.check_integers import check_integers
from pyro_dgm.models.make_dequantizer import make_dequantizer
from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms import Compose, FlowTransform, Glow, Invert, Logit
from pyro_dgm.transforms.make_image_flow import make_image_flow
from pyro_dgm.transforms.one_pass import under_functorch
from pyro_dgm.transforms.reshape import Reshape
from pyro_dgm.transforms.spread import Spread
from pyro_dgm.transforms.start_by_data import hold_starts, start_by_data

Shape = tuple[int, ...]


class ImageFlow(PyroModule):
    r"""A density of real-valued images v, in units of levels, of which the integers x are what is left by rounding.

    .. math:: p(v) = \text{flow}, \qquad x = \min(\max(\lfloor v \rfloor, 0), L - 1), \qquad v \sim q(v \mid x)

    The guide draws v from the cell [x, x + 1) of every pixel. So dequantisation is inference, the log-weight
    :math:`\log p(v) - \log q(v \mid x)` bounds :math:`\log P(x)` in expectation, and every bound and every estimate of
    this package that draws from the guide is of *integers*: bits/dim are right by construction. With a
    `UniformDequantizer`, the ELBO is what papers report; a `VariationalDequantizer` is a tighter q, and more samples
    (`IWAE`, `log_likelihood`) tighten any.

    Rounding moves what the flow puts below 0 or above L into black and white. The guide does not look there, so that
    for images with such pixels the limit of all bounds lies below log P(x), by what a good flow puts there: little.
    Nor can it score a dream's own v there: objectives that learn from dreams (`ReweightedWakeSleep` with ``insomnia``
    below 1) do not apply, and are refused at the first such dream.

    >>> from functools import partial
    >>> from pyro_dgm.infer import ELBO
    >>> model = ImageFlow(shape=(8, 8), levels=17, flow=partial(Glow, scales=2, depth=2)).eval()
    >>> x = model.model(size=3)
    >>> x.shape, ELBO().per_datum(model.model, model.guide, x).shape  # nats; bits_per_dim makes bits of them
    (torch.Size([3, 8, 8]), torch.Size([3]))

    Layers of the flow that start from data (`ActNorm`) do so when ``model(x)`` meets its first batch in training mode,
    in a pass of its own over x with uniform noise. Dreams, codes and what else runs the flow never start them.

    Args:
        shape: Shape of one datum, ``(H, W)`` or ``(C, H, W)``.
        levels: Number of values a pixel can take: data are integers 0 ... levels - 1.
        flow: Makes the flow from ``(C, H, W)``, noise to images: a class, or `functools.partial` of one to set its
            options. Its noise is flat, of shape ``(D,)``, or has the shape of an image.
        dequantizer: Makes from ``shape`` and ``levels`` a module that turns x into q(v | x).
        alpha: Margin of the `Logit` that the flow models instead of v; None: it models v / levels - 1/2.

    Attributes:
        flow: The flow, from noise to logits.
        dequantizer: Call it with x, shape ``(*batch, *shape)``, for q(v | x). Another may take its place, to learn a
            tighter q for a flow that is fitted already.

    Raises:
        ValueError: If a size is not positive, the shape is not that of an image, levels is below 2, or the flow or
            the dequantiser is none, of another shape, or needs a context.

    Source: Ho et al. (ICML 2019), arXiv:1902.00275, section 3.1; Theis, van den Oord & Bethge (ICLR 2016),
    arXiv:1511.01844, section 3.1; Dinh et al. (ICLR 2017), arXiv:1605.08803, section 4.1.
    """

    like: Tensor
    has_codes = False
    """Its latent variable is the datum itself before rounding, and no code: it has no active units."""

    def __init__(
        self,
        *,
        shape: Shape,
        levels: int,
        flow: Callable[[Shape], FlowTransform] = Glow,
        dequantizer: Callable[[Shape, int], nn.Module] = UniformDequantizer,
        alpha: int | float | None = 1e-4,
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
        hold_starts(self.flow)
        logit = None if alpha is None else Logit(self.shape, levels=levels, alpha=alpha)
        spread = Spread(self.shape, levels) if logit is None else Invert(logit)
        reshape = [] if self.image_shape == self.shape else [Reshape(self.image_shape, self.shape)]
        self.to_levels = Compose([*reshape, spread])
        self.dequantizer = make_dequantizer(self, dequantizer, self.shape, levels)
        self.register_buffer("like", torch.empty(0), persistent=False)

    @pyro_method
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(v) P(x | v): score ``x``, or dream ``size`` images without it.

        Args:
            x: Integers of shape ``(B, *shape)``, or nothing.
            size: How many to dream.

        Returns:
            ``x``, or int64 images of shape ``(size, *shape)``.

        Raises:
            ValueError: If x is not integer, has another shape or, with Pyro's validation on, a value that is no level.
        """
        if x is not None:
            self._check(x)
            self._start(x)
        p = self.distribution()  # before the plate, through which every parameter would go by itself
        with pyro.plate("data", size if x is None else len(x)):
            v = pyro.sample("v", p)  # type: ignore[arg-type]  # (B, *shape)
            return pyro.sample("x", Quantized(v, self.levels, len(self.shape)), obs=x)  # (B, *shape)

    @pyro_method
    def guide(self, x: Tensor) -> Tensor:
        """q(v | x).

        Args:
            x: Integers of shape ``(B, *shape)``.

        Returns:
            Dequantised images, shape ``(B, *shape)``.

        Raises:
            ValueError: If x is not integer or has another shape; with Pyro's validation on, if it has a value that is
                no level, or is to score a v that does not belong to x, as dreams outside the levels do not.
        """
        self._check(x)
        q = self.dequantizer(x)
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", q)  # (B, *shape)
        self._check_cells(v, x)
        return v

    def distribution(self) -> Distribution:
        """Give p(v), of ``event_shape`` equal to ``shape``: sampling and scoring are one pass.

        Score data by :meth:`model` first, in training mode: nothing else starts an ActNorm.
        """
        flow, to_levels = self.flow, self.to_levels
        zero = self.like.new_zeros(flow.shape)
        noise = Independent(Normal(zero, zero + self.temperature), zero.dim())
        return dist.TransformedDistribution(noise, [flow, to_levels])

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
        """Give the noise, shape ``(*batch, *flow.shape)``, behind images: `decode` gives them back.

        Args:
            x: Integers of shape ``(*batch, *shape)``, for which the guide draws v, so that codes are like the noise
                that the model draws; or real v of that shape.
        """
        v = x
        if not x.is_floating_point():
            check_levels(self, x, self.levels)
            v = self.dequantizer(x).rsample()
        image = self.to_levels.inverse_and_logdet(v)[0]
        return self.flow.inverse_and_logdet(image)[0]

    def decode(self, noise: Tensor) -> Tensor:
        """Give the int64 images of noise, shape ``(*batch, *flow.shape)``: between two codes it interpolates images."""
        image = self.flow.forward_and_logdet(noise)[0]
        return Quantized(self.to_levels.forward_and_logdet(image)[0], self.levels, len(self.shape)).sample()

    def _check(self, x: Tensor) -> None:
        check_integers(self, x, shape=self.shape, levels=self.levels)
        check_levels(self, x, self.levels)

    def _check_cells(self, v: Tensor, x: Tensor) -> None:
        """Say what happened where the guide is to score a v that it cannot draw; with validation only, as it waits."""
        if not is_validation_enabled() or v.is_meta or under_functorch():
            return
        v = v.detach()
        if bool(((v.floor() != x) & ~v.isnan()).any()):
            raise ValueError(
                f"ImageFlow.guide got v outside the cells [x, x + 1), where q(v | x) has no density. Dreams of the "
                f"model are such where they leave 0 ... {self.levels} and are clipped to x: an objective that scores "
                f"dreams does not apply. Use ReweightedWakeSleep(insomnia=1), IWAE or ELBO."
            )

    def _start(self, x: Tensor) -> None:
        """Let the flow start from data, if it has not. It is looked up so that Pyro does not see it a second time."""
        if self.training and not x.is_meta:
            start_by_data(self._modules["flow"], lambda: self._noisy(x))  # type: ignore[arg-type]

    def _noisy(self, x: Tensor) -> Tensor:
        """Images as the flow gives them, with uniform noise, shape ``(B, *image_shape)``."""
        v = UnitCells(x.to(self.like.dtype), len(self.shape)).sample()
        return self.to_levels.inverse_and_logdet(v)[0]
