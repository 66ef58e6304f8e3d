# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The same Glow here, in normflows, and in plain PyTorch by hand; and the same 1x1 convolution in four ways.

All have the same scales, steps, hidden channels and kernels, matrices in LU form, and standard normal latents.
normflows maps the log-scale by a sigmoid; the one by hand by a tanh, as ours does.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import normflows
import torch
from pyro.distributions import Normal, TransformedDistribution
from pyro.distributions.transforms import GeneralizedChannelPermute
from torch import Tensor, nn
from torch.nn import functional

from pyro_dgm.nn import ConvNet
from pyro_dgm.transforms import Glow, InvertibleConv1x1

Shape = tuple[int, int, int]
Glows = dict[str, "Peer"]


class Size(NamedTuple):
    """How large a Glow is."""

    shape: Shape
    scales: int
    depth: int
    hidden: int


class Peer(NamedTuple):
    """A Glow of one library: its module, log p(x) of a batch, and a batch of samples."""

    module: nn.Module
    score: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]


def ours(size: Size, *, reversible: bool = False) -> Peer:
    """The one of this package, in a distribution of Pyro."""
    flow = Glow(
        size.shape,
        scales=size.scales,
        depth=size.depth,
        net=partial(ConvNet, hidden=(size.hidden, size.hidden)),
        learned_prior=False,
        reversible=reversible,
    )

    def distribution() -> TransformedDistribution:
        like = next(flow.parameters())
        noise = Normal(like.new_zeros(()), like.new_ones(())).expand([math.prod(size.shape)]).to_event(1)
        return TransformedDistribution(noise, [flow])

    return Peer(flow, lambda x: distribution().log_prob(x), lambda n: distribution().sample((n,)))


def of_normflows(size: Size) -> Peer:
    """A `MultiscaleFlow` of `GlowBlock`, with standard normal latents."""
    bases, flows, merges = [], [], []
    channels, height, width = size.shape
    for scale in range(size.scales):  # normflows lists the coarsest scale first
        down = 2 ** (size.scales - scale)
        whole = channels * 2 ** (size.scales + 1 - scale)
        blocks = [normflows.flows.GlowBlock(whole, size.hidden) for _ in range(size.depth)]
        flows.append([*blocks, normflows.flows.Squeeze()])
        latent = (whole if scale == 0 else whole // 2, height // down, width // down)
        bases.append(normflows.distributions.DiagGaussian(latent, trainable=False))
        if scale:
            merges.append(normflows.flows.Merge())
    model = normflows.MultiscaleFlow(bases, flows, merges, class_cond=False)
    return Peer(model, lambda x: model.log_prob(x, None), lambda n: model.sample(n)[0])


class Conv1x1ByHand(nn.Module):
    """A matrix P L (U + diag(s)), as most code for Glow has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        p, lower, upper = torch.linalg.lu(torch.linalg.qr(torch.randn(channels, channels))[0])
        self.register_buffer("p", p)
        self.register_buffer("sign", upper.diagonal().sign())
        self.register_buffer("one", torch.eye(channels))
        self.lower, self.upper = nn.Parameter(lower), nn.Parameter(upper)
        self.log_s = nn.Parameter(upper.diagonal().abs().log())

    def factors(self) -> tuple[Tensor, Tensor]:
        """Give L and U with their diagonals."""
        upper = self.upper.triu(1) + (self.sign * self.log_s.exp()).diag()
        return self.lower.tril(-1) + self.one, upper

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the channels; with the log-determinant."""
        lower, upper = self.factors()
        y = functional.conv2d(x, (self.p @ lower @ upper)[:, :, None, None])
        return y, self.log_s.sum() * (x.shape[2] * x.shape[3])

    def inverse(self, y: Tensor) -> Tensor:
        """Undo it."""
        lower, upper = self.factors()
        half = torch.linalg.solve_triangular(lower, self.p.T, upper=False, unitriangular=True)
        return functional.conv2d(y, torch.linalg.solve_triangular(upper, half, upper=True)[:, :, None, None])


class StepByHand(nn.Module):
    """ActNorm, 1x1 convolution and affine coupling."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("begun", torch.tensor(data=False))
        self.asked = False
        self.mix = Conv1x1ByHand(channels)
        relu, last = partial(nn.ReLU, inplace=True), nn.Conv2d(hidden, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        first = nn.Conv2d(channels // 2, hidden, 3, padding=1)
        self.net = nn.Sequential(first, relu(), nn.Conv2d(hidden, hidden, 1), relu(), last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data towards noise; with the log-determinant."""
        if not self.asked:
            self.begin(x)
        x, logdet = self.mix((x - self.shift) * torch.exp(-self.log_scale))
        passing, rest = x.chunk(2, 1)
        raw, shift = self.net(passing).chunk(2, 1)
        log_scale = -3 * torch.tanh(raw / 3)
        logdet = logdet + log_scale.sum((1, 2, 3)) - self.log_scale.sum() * (x.shape[2] * x.shape[3])
        return torch.cat([passing, (rest - shift) * log_scale.exp()], 1), logdet

    def inverse(self, z: Tensor) -> Tensor:
        """Map noise towards data."""
        passing, rest = z.chunk(2, 1)
        raw, shift = self.net(passing).chunk(2, 1)
        x = self.mix.inverse(torch.cat([passing, rest * torch.exp(3 * torch.tanh(raw / 3)) + shift], 1))
        return x * self.log_scale.exp() + self.shift

    @torch.no_grad()
    def begin(self, x: Tensor) -> None:
        """Let the first batch leave with mean 0 and variance 1."""
        if not self.begun:
            self.shift.copy_(x.mean((0, 2, 3), keepdim=True))
            self.log_scale.copy_(x.std((0, 2, 3), keepdim=True).log())
            self.begun.fill_(1)
        self.asked = True


class GlowByHand(nn.Module):
    """A Glow in plain PyTorch: no distributions, no checks, no other shapes than (N, C, H, W)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        channels, height, width = size.shape
        self.latents: list[Shape] = []
        self.scales = nn.ModuleList()
        for scale in range(size.scales):
            channels, height, width = 4 * channels, height // 2, width // 2
            self.scales.append(nn.ModuleList(StepByHand(channels, size.hidden) for _ in range(size.depth)))
            channels = channels if scale == size.scales - 1 else channels // 2
            self.latents.append((channels, height, width))

    def score(self, x: Tensor) -> Tensor:
        """Give log p(x), shape (N,)."""
        total, elements = x.new_zeros(()), x[0].numel()
        for scale, steps in enumerate(self.scales):
            x = functional.pixel_unshuffle(x, 2)
            for step in steps:
                x, logdet = step(x)
                total = total + logdet
            if scale < len(self.scales) - 1:
                x, out = x.chunk(2, 1)
                total = total - out.square().sum((1, 2, 3)) / 2
        return total - x.square().sum((1, 2, 3)) / 2 - elements * math.log(2 * math.pi) / 2

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draw n images."""
        weight = next(self.parameters())
        x = None
        for shape, steps in zip(reversed(self.latents), reversed(self.scales), strict=True):
            noise = torch.randn(n, *shape, dtype=weight.dtype, device=weight.device)
            x = noise if x is None else torch.cat([x, noise], 1)
            for step in reversed(steps):
                x = step.inverse(x)
            x = functional.pixel_shuffle(x, 2)
        return x


def by_hand(size: Size) -> Peer:
    """The one in plain PyTorch."""
    model = GlowByHand(size)
    return Peer(model, model.score, model.sample)


def convolutions(shape: Shape) -> dict[str, tuple[nn.Module, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]:
    """One 1x1 convolution with its log-determinant, and its inverse, of each library, without and with a matrix."""
    channels = shape[0]
    mine, other = InvertibleConv1x1(shape), normflows.flows.Invertible1x1Conv(channels, use_lu=True)
    pyro, plain = GeneralizedChannelPermute(channels), nn.Conv2d(channels, channels, 1, bias=False)

    def scored(x: Tensor) -> Tensor:
        y = pyro(x.clone())  # Pyro fails when the same tensor comes again
        return y.sum() + pyro.log_abs_det_jacobian(x, y).sum()

    return {
        "pyro_dgm": (
            mine,
            lambda x: sum(part.sum() for part in mine.forward_and_logdet(x)),
            lambda y: mine.inverse_and_logdet(y)[0],
        ),
        "conv2d": (plain, lambda x: plain(x).sum(), plain),
        "normflows": (other, lambda x: sum(part.sum() for part in other.inverse(x)), lambda y: other(y)[0]),
        "pyro": (pyro, scored, lambda y: pyro._inverse(y)),
    }
