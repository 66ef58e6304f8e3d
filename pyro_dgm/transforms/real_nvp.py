# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""RealNVP: noise becomes images through couplings of chessboards and channels, at several scales."""

from functools import partial

from pyro_dgm.nn.residual_conv_net import ResidualConvNet
from pyro_dgm.transforms.act_norm import ActNorm
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.base import FlowTransform, Size
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.coupling import CouplingNet
from pyro_dgm.transforms.image_scales import image_scales
from pyro_dgm.transforms.invert import Invert
from pyro_dgm.transforms.multi_scale import MultiScale
from pyro_dgm.transforms.reversible import Reversible
from pyro_dgm.transforms.squeeze import Squeeze


class RealNVP(MultiScale):
    r"""Map flat standard normal noise to images; the density of images is exact and one pass.

    From data to noise, which is what scoring runs, each scale but the last takes three affine couplings of alternating
    chessboards, makes four channels of one (`Squeeze`), takes three couplings of alternating channels, and factors out
    half of the channels (`Split`). The last takes four couplings of chessboards. Pixels of the upper and of the lower
    row of each square of two by two say how the others change in a coupling of channels, so that it does not repeat
    what the chessboards did; what is factored out is one colour of the chessboard.

    An `ActNorm` follows each coupling where the paper has batch normalisation, which would make the density of an image
    depend on the others in its batch, and another in training than in evaluation. Let data come first: the first batch
    that is scored in training mode initialises every `ActNorm`.

    Args:
        shape: Shape ``(C, H, W)`` of an image; H and W must be divisible by 2 ** (scales - 1).
        scales: Number of scales; None for as many as H and W allow, 3 at most.
        net: Makes the network of every coupling, as `Coupling` says; None takes a `ResidualConvNet` of one block of 32
            channels, which a CPU can train on small pictures. In the paper, CIFAR-10 has 8 blocks of 64 channels and
            two scales: ``scales=2, net=partial(ResidualConvNet, blocks=8)``, which needs a GPU.
        learned_prior: Whether what is factored out is normal given what stays, with a learned mean and scale, and the
            coarsest latents have a learned mean and scale for each channel; otherwise all is standard normal, as in
            the paper.
        reversible: Whether activations are computed anew on the way back instead of being kept (`Reversible`): memory
            that does not grow with depth, for more time.
        context_dim: Size H of a context, a vector such as a class in one-hot coding, which couplings see, and splits
            and the coarsest latents' mean and scale if they are learned. None for none.

    Attributes:
        latent_shapes: Shape of each scale's noise, the coarsest first.

    Raises:
        ValueError: If the shape is not that of an image, a number is not positive, or height and width cannot be halved
            as often as there are scales.

    Source: Dinh et al. (ICLR 2017), arXiv:1605.08803, sections 3.4-3.7 and 4.1. Log-scales are bounded both ways, as
    `AffineCoupling` says.

    Example:
        >>> import pyro.distributions as dist
        >>> from functools import partial
        >>> from pyro_dgm.nn import ResidualConvNet
        >>> flow = RealNVP((1, 8, 8), net=partial(ResidualConvNet, channels=8))
        >>> images = dist.TransformedDistribution(dist.Normal(0, 1).expand([64]).to_event(1), [flow])
        >>> images.sample((5,)).shape, images.log_prob(torch.rand(5, 1, 8, 8)).shape
        (torch.Size([5, 1, 8, 8]), torch.Size([5]))
    """

    def __init__(
        self,
        shape: Size,
        *,
        scales: int | None = None,
        net: CouplingNet | None = None,
        learned_prior: bool = False,
        reversible: bool = False,
        context_dim: int | None = None,
    ) -> None:
        shapes = image_scales(self, shape, scales, last_is_squeezed=False)
        net = partial(ResidualConvNet, channels=32, blocks=1) if net is None else net
        coupling = partial(AffineCoupling, net=net, context_dim=context_dim)
        row = Reversible if reversible else Compose

        def chessboards(whole: Size, couplings: int) -> list[FlowTransform]:
            return _normalised([coupling(whole, mask="checkerboard", swap=i % 2 == 1) for i in range(couplings)])

        def channels(squeezed: tuple[int, ...], couplings: int) -> list[FlowTransform]:
            upper = [i // (squeezed[0] // 4) in (0, 2) for i in range(squeezed[0])]  # the places (0, 0) and (0, 1)
            return _normalised([coupling(squeezed, mask=upper, swap=i % 2 == 1) for i in range(couplings)])

        flows: list[FlowTransform] = []
        for whole in shapes[:-1]:
            squeeze = Squeeze(whole)
            flows += [row([*channels(squeeze.out_shape, 3), Invert(squeeze), *chessboards(whole, 3)])]
        flows += [row(chessboards(shapes[-1], 4))]
        super().__init__(flows, learned_prior=learned_prior)


def _normalised(couplings: list[AffineCoupling]) -> list[FlowTransform]:
    """Put an ActNorm behind each coupling, from noise to data: the last that data meet comes first."""
    return [flow for coupling in reversed(couplings) for flow in (ActNorm(coupling.shape), coupling)]
