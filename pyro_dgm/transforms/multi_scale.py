# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Images from noise, from coarse to fine: each scale adds noise of its own to what the coarser ones have made."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from pyro_dgm.transforms.act_norm import ActNorm
from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.split import Split


class MultiScale(FlowTransform):
    r"""Map flat noise to images by one flow for each scale, the coarsest first.

    .. math:: z_L = f_L(t(\varepsilon_L)), \qquad z_l = f_l(s_l(z_{l+1}, \varepsilon_l)), \qquad x = z_1

    s is a `Split`: the noise of a scale is shifted and scaled by what the coarser scales have made, and joins it as
    more channels. Scoring runs the other way: after each scale some channels are factored out, so that later flows have
    less to do, and latents of every scale are near the likelihood. Both directions are one pass of each flow.

    Noise is a vector ``(D,)``: the coarsest scale's first, then each split's, the finest last, so that the base of a
    `TransformedDistribution` is ``Normal(0, 1).expand([D]).to_event(1)``. Samples of reduced temperature T, less varied
    and often nicer to look at, are those of the base ``Normal(0, T)``: no density of theirs is meant. :meth:`latents`
    parts the noise, so that one scale can be drawn anew while others stay.

    Args:
        scales: The flow of each scale, from noise to data, the finest first: it gives the images. What flow i + 1 gives
            is the first channels of what flow i takes. All that are amortised take the same context, a vector.
        splits: What stands between flow i + 1 and flow i, a `Split` of the shape that flow i takes which keeps the
            channels that flow i + 1 gives. None: as `learned_prior` says.
        top: A flow t of the coarsest noise before anything else. None: as `learned_prior` says.
        learned_prior: What stands where nothing is given. True: splits with a network, and an `ActNorm` at the top, a
            mean and a scale for each channel; they see the context that the scales take. False: all noise stays
            standard normal.

    Attributes:
        scales: The flow of each scale, the finest first.
        splits: The splits between them.
        top: The flow of the coarsest noise, or None.
        latent_shapes: Shape of each scale's noise, the coarsest first.

    Raises:
        ValueError: If there are no scales, something is no flow of images, or shapes or contexts do not fit together.

    Source: Dinh et al. (ICLR 2017), arXiv:1605.08803, section 3.6; Kingma & Dhariwal (NeurIPS 2018), arXiv:1807.03039,
    figure 2 and their code, for splits and a top that are learned.

    Example:
        >>> from pyro_dgm.transforms import AffineCoupling, Compose, Invert, Squeeze
        >>> fine = Compose([AffineCoupling((4, 4, 4)), Invert(Squeeze((1, 8, 8)))])
        >>> coarse = Compose([AffineCoupling((8, 2, 2)), Invert(Squeeze((2, 4, 4)))])
        >>> flow = MultiScale([fine, coarse])
        >>> flow(torch.randn(5, 64)).shape, flow.latent_shapes
        (torch.Size([5, 1, 8, 8]), [(8, 2, 2), (2, 4, 4)])
        >>> noise = flow.latents(torch.randn(64))
        >>> noise = [noise[0], torch.randn(5, 2, 4, 4)]  # one coarse image with details drawn five times
        >>> flow(flow.flatten(noise)).shape
        torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self,
        scales: Sequence[FlowTransform],
        *,
        splits: Sequence[Split] | None = None,
        top: FlowTransform | None = None,
        learned_prior: bool = True,
    ) -> None:
        scales = list(scales)
        self._check_scales(scales)
        context = self._one_context(scales) if learned_prior else None
        if splits is None:
            between = [(fine.shape, coarse.out_shape[0]) for fine, coarse in pairwise(scales)]
            splits = [Split(z, keep=keep, learned=learned_prior, context_dim=context) for z, keep in between]
        if top is None and learned_prior:
            top = ActNorm(scales[-1].shape, context_dim=context)
        splits = list(splits)
        self._check_between(scales, splits, top)
        context = self._one_context([*scales, *splits, *([] if top is None else [top])])
        shapes = [scales[-1].shape, *(split.factored_shape for split in reversed(splits))]
        super().__init__(sum(map(math.prod, shapes)), out_shape=scales[0].out_shape, context_dim=context)
        self.latent_shapes = shapes
        self.scales = cast(Sequence[FlowTransform], nn.ModuleList(scales))
        self.splits = cast(Sequence[Split], nn.ModuleList(splits))
        self.top = top

    def latents(self, noise: Tensor) -> list[Tensor]:
        """Part noise, shape ``(*batch, D)``, into that of each scale, ``(*batch, c, h, w)``, the coarsest first."""
        self._check(noise)
        return list(self._latents(noise))

    def flatten(self, latents: Sequence[Tensor]) -> Tensor:
        """Put the noise of all scales together, the coarsest first; leading dimensions broadcast.

        Args:
            latents: One tensor for each scale, of shape ``(*batch, c, h, w)`` as `latent_shapes` has it.

        Returns:
            Noise, shape ``(*batch, D)``.

        Raises:
            ValueError: If there are more or fewer than there are scales, or a shape is another.
        """
        found = [tuple(z.shape[-3:]) for z in latents]
        if found != self.latent_shapes:
            raise ValueError(
                f"{type(self).__name__}.flatten got latents of the shapes {found}, without leading dimensions: they "
                f"must be {self.latent_shapes}, the coarsest first."
            )
        batch = torch.broadcast_shapes(*(z.shape[:-3] for z in latents))
        return torch.cat([z.flatten(-3).expand(*batch, -1) for z in latents], -1)

    def bind(self, context: Tensor | None) -> Parameters:
        """Compute the parameters of every flow: the scales', the splits' and the top's."""
        return tuple(
            tuple(flow.bind(None if flow.context_dim is None else context) for flow in flows)
            for flows in (self.scales, self.splits, [] if self.top is None else [self.top])
        )

    def __repr__(self) -> str:
        context = "" if self.context_dim is None else f", context_dim={self.context_dim}"
        return f"{type(self).__name__}({self.out_shape}, scales={len(self.scales)}{context})"

    def _latents(self, noise: Tensor) -> Iterator[Tensor]:
        parts = noise.split([math.prod(shape) for shape in self.latent_shapes], -1)
        return (part.unflatten(-1, shape) for part, shape in zip(parts, self.latent_shapes, strict=True))

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        of_scales, of_splits, of_top = parameters
        z, *finer = self._latents(x)
        logdets = []
        if self.top is not None:
            z, logdet = self.top._forward_and_logdet(z, *of_top)
            logdets.append(logdet)
        for i in reversed(range(len(self.scales))):
            if i < len(self.splits):
                z, logdet = self.splits[i]._forward_and_logdet(torch.cat([z, finer[-1 - i]], -3), of_splits[i])
                logdets.append(logdet)
            z, logdet = self.scales[i]._forward_and_logdet(z, of_scales[i])
            logdets.append(logdet)
        return z, sum(logdets[1:], logdets[0])

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        of_scales, of_splits, of_top = parameters
        latents, logdets = [], []
        for i, (flow, own) in enumerate(zip(self.scales, of_scales, strict=True)):
            y, logdet = flow._inverse_and_logdet(y, own)
            logdets.append(logdet)
            if i < len(self.splits):
                y, logdet = self.splits[i]._inverse_and_logdet(y, of_splits[i])
                logdets.append(logdet)
                y, factored = self.splits[i].part(y)
                latents.append(factored)
        if self.top is not None:
            y, logdet = self.top._inverse_and_logdet(y, *of_top)
            logdets.append(logdet)
        flat = torch.cat([z.flatten(-3) for z in (y, *reversed(latents))], -1)
        return flat, sum(logdets[1:], logdets[0])

    def _check_scales(self, scales: list[FlowTransform]) -> None:
        name = type(self).__name__
        strange = [type(flow).__name__ for flow in scales if not isinstance(flow, FlowTransform)]
        if strange or not scales:
            raise ValueError(
                f"{name} got {', '.join(strange) or 'no scales'}: it needs one flow of images for each scale."
            )
        for i, flow in enumerate(scales):
            if len(flow.shape) != 3 or len(flow.out_shape) != 3:
                raise ValueError(
                    f"{name} got a flow of scale {i} that maps {flow.shape} to {flow.out_shape}: both must be shapes "
                    f"of images."
                )
        for i, (fine, coarse) in enumerate(pairwise(scales)):
            if fine.shape[1:] != coarse.out_shape[1:] or fine.shape[0] <= coarse.out_shape[0]:
                raise ValueError(
                    f"{name} got a flow of scale {i} that takes {fine.shape}, and one of scale {i + 1} that gives "
                    f"{coarse.out_shape}: the finer one must take the same height and width and more channels, the "
                    f"rest of which are its own noise."
                )

    def _check_between(self, scales: list[FlowTransform], splits: list[Split], top: FlowTransform | None) -> None:
        name = type(self).__name__
        needed = [(fine.shape, coarse.out_shape[0]) for fine, coarse in pairwise(scales)]
        if any(not isinstance(split, Split) for split in splits) or needed != [(s.shape, s.keep) for s in splits]:
            raise ValueError(
                f"{name} got splits {splits}: there must be one between each two scales, here of these shapes and "
                f"kept channels: {needed}."
            )
        if top is not None and (not isinstance(top, FlowTransform) or {top.shape, top.out_shape} != {scales[-1].shape}):
            raise ValueError(
                f"{name} got top={top}: it must map images of the shape {scales[-1].shape} to such, the coarsest."
            )

    def _one_context(self, flows: list[FlowTransform]) -> int | None:
        contexts = {flow.context_dim for flow in flows} - {None}
        if len(contexts) > 1 or not all(isinstance(context, int) for context in contexts):
            raise ValueError(
                f"{type(self).__name__} got flows of the contexts {contexts}: all that take one must take the same "
                f"vector, context_dim=H. An image as context would have to change its size with the scale."
            )
        return cast(int, contexts.pop()) if contexts else None
