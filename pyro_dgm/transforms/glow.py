# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Glow: noise becomes images through couplings with learned 1x1 convolutions between them, at several scales."""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

from pyro_dgm.nn.conv_net import ConvNet
from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.act_norm import ActNorm
from pyro_dgm.transforms.additive_coupling import AdditiveCoupling
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.base import FlowTransform, Size
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.coupling import CouplingNet
from pyro_dgm.transforms.image_scales import image_scales
from pyro_dgm.transforms.invert import Invert
from pyro_dgm.transforms.invertible_conv1x1 import InvertibleConv1x1
from pyro_dgm.transforms.multi_scale import MultiScale
from pyro_dgm.transforms.reversible import Reversible
from pyro_dgm.transforms.spline_coupling import SplineCoupling
from pyro_dgm.transforms.squeeze import Squeeze

Kind = Literal["affine", "additive", "spline"]
COUPLINGS: dict[str, Callable[..., FlowTransform]] = {
    "affine": AffineCoupling,
    "additive": AdditiveCoupling,
    "spline": SplineCoupling,
}


class Glow(MultiScale):
    r"""Map flat standard normal noise to images; the density of images is exact and one pass.

    From data to noise, which is what scoring runs, each scale makes four channels of one (`Squeeze`), takes ``depth``
    steps, and factors out half of the channels (`Split`), except the last. A step is an `ActNorm`, a learned mixing of
    the channels (`InvertibleConv1x1`), and a coupling in which the first half of the channels changes the second.

    - Let data come first: the first batch that is scored in training mode initialises every `ActNorm`.
    - The defaults are of a size that a CPU can train on small pictures. In the paper, pictures of 32 x 32 pixels have
      ``scales=3, depth=32, net=partial(ConvNet, hidden=(512, 512))``, which needs a GPU.
    - Samples of temperature T come from the base ``Normal(0, T)``, as `MultiScale` says.

    Args:
        shape: Shape ``(C, H, W)`` of an image; H and W must be divisible by 2 ** scales.
        scales: Number of scales; None for as many as H and W allow, 3 at most.
        depth: Number of steps at each scale.
        coupling: ``"affine"``, ``"additive"``, which keeps volumes and is the cheapest, ``"spline"``, or what makes a
            coupling, called with a shape, ``net=`` and ``context_dim=``: e.g. ``partial(AffineCoupling, bound=2)``.
        net: Makes the network of every coupling, as `Coupling` says; None takes a `ConvNet`.
        conv: How the matrix of a 1x1 convolution is kept, as `InvertibleConv1x1` says: ``"lu"`` or ``"qr"``.
        learned_prior: Whether what is factored out is normal given what stays, with a learned mean and scale, and the
            coarsest latents have a learned mean and scale for each channel; otherwise all is standard normal.
        reversible: Whether activations are computed anew on the way back instead of being kept (`Reversible`): memory
            that does not grow with depth, for more time.
        context_dim: Size H of a context, a vector such as a class in one-hot coding: couplings, splits and the coarsest
            latents' mean and scale see it. None for none.

    Attributes:
        latent_shapes: Shape of each scale's noise, the coarsest first.

    Raises:
        ValueError: If the shape is not that of an image, a number is not positive, an option is unknown, or height and
            width cannot be halved as often as there are scales.

    Source: Kingma & Dhariwal (NeurIPS 2018), arXiv:1807.03039, sections 3-4, figure 2. There log-scales are
    log sigmoid(r + 2); here they are bounded both ways and start at 0, as `AffineCoupling` says.

    Example:
        >>> import pyro.distributions as dist
        >>> from functools import partial
        >>> from pyro_dgm.nn import ConvNet
        >>> flow = Glow((1, 8, 8), scales=2, depth=2, net=partial(ConvNet, hidden=(16, 16)))
        >>> images = dist.TransformedDistribution(dist.Normal(0, 1).expand([64]).to_event(1), [flow])
        >>> images.sample((5,)).shape, images.log_prob(torch.rand(5, 1, 8, 8)).shape
        (torch.Size([5, 1, 8, 8]), torch.Size([5]))
    """

    def __init__(
        self,
        shape: Size,
        *,
        scales: int | None = None,
        depth: int = 8,
        coupling: Kind | Callable[..., FlowTransform] = "affine",
        net: CouplingNet | None = None,
        conv: Literal["lu", "qr"] = "lu",
        learned_prior: bool = True,
        reversible: bool = False,
        context_dim: int | None = None,
    ) -> None:
        if isinstance(coupling, str) and coupling not in COUPLINGS:
            raise ValueError(
                f"Glow got coupling={coupling!r}: it must be one of {', '.join(get_args(Kind))}, or make a coupling."
            )
        (depth,) = positive_shape(self, "depth", (depth,))
        shapes = image_scales(self, shape, scales, last_is_squeezed=True)
        make = COUPLINGS[coupling] if isinstance(coupling, str) else coupling
        make = partial(make, net=ConvNet if net is None else net, context_dim=context_dim)
        row = Reversible if reversible else Compose

        def flow_of(whole: Size) -> FlowTransform:
            squeeze = Squeeze(whole)
            steps = [_step(squeeze.out_shape, make, conv) for _ in range(depth)]
            return row([*(flow for step in steps for flow in step), Invert(squeeze)])

        super().__init__([flow_of(whole) for whole in shapes], learned_prior=learned_prior)


def _step(shape: Size, make: partial[FlowTransform], conv: Literal["lu", "qr"]) -> list[FlowTransform]:
    """From noise to data, the reverse of the order in the paper: coupling, inverse of the convolution, ActNorm."""
    first = make(shape)
    if not isinstance(first, FlowTransform) or {first.shape, first.out_shape} != {shape}:
        raise ValueError(
            f"Glow got a coupling= that makes {first}: called with {shape} it must make a flow of images of that "
            f"shape, as coupling=partial(AffineCoupling, bound=2) does."
        )
    if first.context_dim != make.keywords["context_dim"]:
        raise ValueError(
            f"Glow got a coupling= that makes {first}: called with context_dim={make.keywords['context_dim']} it must "
            f"make a coupling that sees such a context."
        )
    return [first, Invert(InvertibleConv1x1(shape, decomposition=conv)), ActNorm(shape)]
