# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The base of couplings: some elements pass through unchanged, and say how the others are mapped."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NoReturn

import torch
from torch import Tensor, nn

from pyro_dgm.nn.conv_net import ConvNet
from pyro_dgm.nn.mlp import MLP
from pyro_dgm.transforms.base import FlowTransform, Parameters, Pull, Size
from pyro_dgm.transforms.check_event import titled
from pyro_dgm.transforms.elementwise import Elementwise
from pyro_dgm.transforms.masks import Checkerboard, IndexMask, Mask
from pyro_dgm.transforms.start_small import last_layer

Shape = tuple[int, ...]
CouplingNet = Callable[[Shape, Shape], nn.Module]
"""Makes the network from the shape of what it sees and the shape of the raw numbers that it gives."""

Passing = Sequence[bool] | Literal["checkerboard"]
"""What a coupling lets pass: a value for each dimension or channel, or every other pixel."""


class Coupling(FlowTransform):
    r"""Map the elements outside a mask by increasing functions whose raw numbers a network computes from those inside.

    .. math:: y_A = x_A, \qquad y_i = E(x_i; r_i(x_A, h)) \text{ for } i \notin A,
              \qquad \log|\det J| = \sum_{i \notin A} \log E'(x_i; r_i)

    Both directions are one pass. The last layer of the network starts as zeros, where it is an `nn.Linear` or an
    `nn.Conv2d`, so that a new coupling is the identity (or nearly: whatever raw zeros mean to E).

    Args:
        shape: Number of dimensions D, or the shape ``(C, H, W)`` of an image.
        elementwise: The map E of one element.
        context_dim: Size H of a context h, which the network sees beside the elements; None for none. An image's
            coupling also takes the shape ``(H, height, width)`` of a context of its own height and width.
        mask: For each dimension, or channel of an image, whether it passes through unchanged. None: the first half
            does, the smaller one of an odd number, so that a reversal of the order moves every element. Of an image,
            ``"checkerboard"`` lets the pixels pass whose row and column add up to an even number.
        swap: Whether what passes and what is changed trade places.
        net: Makes the network; `functools.partial` sets its options. For vectors it is called as
            ``net((kept + H,), (D - kept, size))`` with the number of elements that are kept and the number of raw
            numbers that an element needs, and None takes an `MLP`; for images as
            ``net((kept + H, height, width), (size * changed, height, width))``, in channels, of which all are kept and
            all are changed by a checkerboard, and None takes a `ConvNet`.

    Raises:
        ValueError: If a size is not positive; or the mask has the wrong length, keeps everything, or keeps nothing
            where there is no context either; or the network gives another shape than it should.
    """

    def __init__(
        self,
        shape: Size,
        elementwise: Elementwise,
        *,
        context_dim: Size | None = None,
        mask: Passing | None = None,
        swap: bool = False,
        net: CouplingNet | None = None,
    ) -> None:
        super().__init__(shape, context_dim=context_dim)
        if len(self.shape) not in (1, 3):
            raise ValueError(
                f"{type(self).__name__} got shape={self.shape}: it needs a number of dimensions, or (C, H, W)."
            )
        self.mask = self._make_mask(mask, swap=swap)
        self.elementwise = elementwise
        seen, image = self._seen_shape(), len(self.shape) == 3
        channels, *plane = self.mask.moved_shape
        raw = (elementwise.size * channels, *plane) if image else (channels, elementwise.size)
        net = (ConvNet if image else MLP) if net is None else net
        if not callable(net):
            raise ValueError(
                f"{type(self).__name__} got net={net!r}: it must make a network from the shape of what it sees and "
                f"that of what it gives, here net({seen}, {raw}), as {'ConvNet' if image else 'MLP'} does."
            )
        self.net = net(seen, raw)
        self.raw_shape = raw
        gives = getattr(self.net, "out_shape", raw)
        if isinstance(gives, tuple) and gives != raw:
            self._refuse(gives)
        self._start_as_identity(elementwise.size * channels)

    def bind(self, context: Tensor | None) -> Parameters:
        """Give the context as it is: the network sees it together with the elements that are kept."""
        return () if context is None else (context,)

    def raw_numbers(self, seen: Tensor, context: Parameters) -> Tensor:
        """Compute the raw numbers, shape ``(*batch, *changed, size)``, from what passes and a context."""
        if len(self.shape) == 1:
            batch = seen.shape[:-1]
            raw = self.net(torch.cat([seen, *(h.expand(*batch, -1) for h in context)], -1) if context else seen)
            if raw.shape[len(batch) :] != self.raw_shape:
                self._refuse(raw.shape[len(batch) :])
            return raw
        batch, plane = seen.shape[:-3], self.shape[1:]
        for h in context:
            planes = h if len(self.context_shape or ()) == 3 else h[..., None, None]
            seen = torch.cat([seen, planes.expand(*batch, -1, *plane)], -3)
        raw = self.net(seen.reshape(math.prod(batch), *seen.shape[-3:]))  # (N, size * channels, H, W), as torch's nets
        if raw.shape[1:] != self.raw_shape:
            self._refuse(raw.shape[1:])
        return raw.reshape(*batch, self.elementwise.size, *self.mask.moved_shape).movedim(-4, -1)

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        kept, moved, seen = self.mask.part(x)
        raw = self.raw_numbers(seen, parameters)
        return self.mask.join(kept, *self.elementwise.forward_and_logdet(moved, raw))

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        kept, moved, seen = self.mask.part(y)
        raw = self.raw_numbers(seen, parameters)
        return self.mask.join(kept, *self.elementwise.inverse_and_logdet(moved, raw))

    def _retrace(self, y: Tensor, parameters: Parameters, pull: Pull, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """As any flow's, with one pass of the network instead of two: what it sees is in y as it was in x."""
        ways = [self.elementwise.forward_and_logdet, self.elementwise.inverse_and_logdet]
        there, back = reversed(ways) if inverse else ways
        kept, moved, _ = self.mask.part(y)
        kept = kept.detach().requires_grad_()
        raw = self.raw_numbers(self.mask.see(kept), parameters)
        with torch.no_grad():
            moved = back(moved, raw)[0].detach()
        grads = pull(self.mask.join(kept, *there(moved.requires_grad_(), raw)), (kept, moved))
        with torch.no_grad():
            return self.mask.whole(kept, moved), self.mask.whole(*grads)

    def _seen_shape(self) -> Shape:
        """What the network sees: what passes, and the context, of which a vector becomes channels."""
        channels, *plane = self.mask.kept_shape
        context = self.context_shape or (0,)
        if len(context) > 1 and list(context[1:]) != plane:
            raise ValueError(
                f"{titled(self)} got context_dim={context}: an image as context must have the same height and width, "
                f"{tuple(plane)}."
                if plane
                else f"{titled(self)} got context_dim={context}: vectors need a number."
            )
        return (channels + context[0], *plane)

    def _make_mask(self, mask: Passing | None, *, swap: bool) -> Mask:
        if isinstance(mask, str):
            who = titled(self)
            if mask != "checkerboard" or len(self.shape) != 3:
                raise ValueError(
                    f"{who} got mask={mask!r}: it must be a value for each dimension or channel, or, for images (C, H, "
                    f"W), 'checkerboard'."
                )
            if self.shape[1:] == (1, 1):
                raise ValueError(
                    f"{who} got mask='checkerboard', which leaves nothing of a single pixel: take a mask of channels."
                )
            return Checkerboard(self.shape, odd=swap)
        first_half = [i < self.shape[0] // 2 for i in range(self.shape[0])]
        values = [bool(value) is not swap for value in (first_half if mask is None else mask)]
        self._check_mask(values)
        return IndexMask(self.shape, values)

    def _check_mask(self, values: Sequence[bool]) -> None:
        size = self.shape[0]
        name = titled(self)
        one = "dimension" if len(self.shape) == 1 else "channel"
        example = f"as in mask=[i % 2 == 0 for i in range({size})]"
        example = example if size > 1 else "as in mask=[False] together with a context_dim"
        if len(values) != size:
            raise ValueError(
                f"{name} got a mask of {len(values)} values: it needs {size}, one for each {one}, {example}."
            )
        if all(values):
            raise ValueError(
                f"{name} got a mask that leaves nothing to transform: True passes an element through unchanged, so at "
                f"least one value must be False, {example}."
            )
        if not any(values) and self.context_dim is None:
            raise ValueError(
                f"{name} got a mask that leaves nothing to condition on: at least one value must be True, or there "
                f"must be a context, {example}."
            )

    def _refuse(self, raw_shape: Shape) -> NoReturn:
        raise ValueError(
            f"{titled(self, context=True)} has a net= that gives {tuple(raw_shape)} for each datum, and needs "
            f"{self.raw_shape}: net= is called with the shapes of what the network sees and of what it gives, and must "
            f"keep to both."
        )

    @torch.no_grad()
    def _start_as_identity(self, outputs: int) -> None:
        layer = last_layer(self.net, nn.Linear, nn.Conv2d)
        if layer is not None and outputs in (getattr(layer, "out_features", 0), getattr(layer, "out_channels", 0)):
            for parameter in layer.parameters():
                parameter.zero_()
