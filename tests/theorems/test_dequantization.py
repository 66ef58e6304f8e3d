# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Theorems of dequantisation: a density of real numbers, made a guide's noise, bounds probabilities of integers."""

import math
from functools import cache, partial
from itertools import pairwise

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_dgm.distributions import UniformDequantizer, VariationalDequantizer
from pyro_dgm.evaluate import dream
from pyro_dgm.infer import ELBO, IWAE
from pyro_dgm.models import ImageFlow
from pyro_dgm.nn import ConvNet
from pyro_dgm.transforms import AffineCoupling, Compose, FlowTransform, Logit

LEVELS = 3
IMAGES = torch.cartesian_prod(*[torch.arange(LEVELS)] * 2).reshape(-1, 1, 2)  # all images of two pixels
NET = partial(ConvNet, hidden=(8,), kernels=(3, 3), activation=nn.Tanh)


def bent(shape: tuple[int, ...]) -> FlowTransform:
    """A density that is far from even inside the cells."""
    couplings = [AffineCoupling(shape, mask="checkerboard", swap=swap, net=NET) for swap in (False, True)]
    flow = Compose(couplings)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in flow.parameters():
            weight.copy_(0.4 * torch.randn(weight.shape, generator=generator))
    return flow


def two_pixels(dequantizer: type[nn.Module] | partial = UniformDequantizer, *, alpha: float | None = 0.05) -> ImageFlow:
    return ImageFlow(shape=(1, 2), levels=LEVELS, flow=bent, dequantizer=dequantizer, alpha=alpha).double().eval()


@cache
def log_probabilities(*, alpha: float | None, clipped: bool) -> Tensor:
    """Log P of each image by quadrature of the flow's density over its cell, and over what is clipped into it."""
    model, edges = two_pixels(alpha=alpha), torch.arange(LEVELS + 1, dtype=torch.float64)
    logit = None if alpha is None else Logit(1, levels=LEVELS, alpha=alpha)  # over logits, densities are smooth
    edges = edges if logit is None else logit(edges.unsqueeze(-1)).flatten()
    if clipped:
        edges[0], edges[-1] = edges[0] - 25, edges[-1] + 25
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(150))
    points, masses = [], []
    for low, high in pairwise(edges.tolist()):
        v, mass = (nodes + 1) * (high - low) / 2 + low, weights * (high - low) / 2
        if logit is not None:
            v, logdet = logit.inverse_and_logdet(v.unsqueeze(-1))
            v, mass = v.flatten(), mass * logdet.exp()
        points.append(v)
        masses.append(mass)
    found = []
    for first, second in IMAGES.flatten(1).tolist():
        v = torch.cartesian_prod(points[first], points[second]).unsqueeze(-2)
        mass = torch.outer(masses[first], masses[second]).flatten()
        found.append((model.distribution().log_prob(v).exp() * mass).sum().log())
    return torch.stack(found).detach()


def values(model: ImageFlow, bound: ELBO | IWAE, x: Tensor, repeats: int) -> Tensor:
    """Independent values of a bound, shape (repeats, B)."""
    with torch.no_grad():
        return bound.per_datum(model.model, model.guide, x.repeat(repeats, 1, 1)).unflatten(0, (repeats, len(x)))


def mean_and_error(samples: Tensor) -> tuple[Tensor, Tensor]:
    return samples.mean(0), samples.std(0) / len(samples) ** 0.5


@pytest.mark.parametrize("alpha", [0.05, None])
def test_probabilities_of_all_images_add_up_to_one(alpha):
    """Rounding and clipping make a density p(v) a distribution over images: sum of P(x) over all x is 1."""
    total = log_probabilities(alpha=alpha, clipped=True).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.05, None])
def test_dreams_have_these_probabilities(alpha):
    """The integers that the model dreams have P(x), the integral of p(v) over what is rounded to x."""
    x, number = dream(two_pixels(alpha=alpha).model, 20_000, mean=False, batch_size=20_000), 20_000
    shares = torch.stack([(x == image).all(-1).all(-1).double().mean() for image in IMAGES])
    p = log_probabilities(alpha=alpha, clipped=True).exp()
    assert ((shares - p).abs() <= 5 * (p * (1 - p) / number).sqrt()).all()


@pytest.mark.parametrize("dequantizer", [UniformDequantizer, VariationalDequantizer])
@pytest.mark.parametrize("alpha", [0.05, None])
def test_dequantisation_bounds_the_probability_from_below(dequantizer, alpha):
    """E_q[log p(v) - log q(v | x)] <= log P(x) for uniform (Theis et al. 2016) and other noise (Ho et al. 2019)."""
    mean, error = mean_and_error(values(two_pixels(dequantizer, alpha=alpha), ELBO(), IMAGES, 2000))
    exact = log_probabilities(alpha=alpha, clipped=True)
    assert (mean <= exact + 5 * error).all()
    assert (mean < exact - 5 * error).any(), "the bound is loose where p is uneven in a cell"


def test_the_uniform_bound_is_the_mean_of_the_log_density_in_the_cell():
    """With uniform q the ELBO is the mean over the cell of log p(x + u), which quadrature gives too."""
    model = two_pixels()
    line = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    u = torch.cartesian_prod(line, line).unsqueeze(-2)
    with torch.no_grad():
        exact = torch.stack([model.distribution().log_prob(x + u).mean() for x in IMAGES])
    mean, error = mean_and_error(values(model, ELBO(), IMAGES, 2000))
    assert ((mean - exact).abs() <= 5 * error).all()


def test_more_samples_tighten_the_bound_up_to_the_mass_in_the_cell():
    """IWAE bounds over dequantisation noise rise with K to log of the integral over [x, x + 1), and stay below."""
    model, mass = two_pixels(), log_probabilities(alpha=0.05, clipped=False)
    before, error_before = mean_and_error(values(model, ELBO(), IMAGES, 2000))
    for particles in (4, 16, 64):
        mean, error = mean_and_error(values(model, IWAE(particles), IMAGES, 300))
        assert (mean <= mass + 5 * error).all()
        assert (mean >= before - 5 * (error**2 + error_before**2).sqrt()).all()
        before, error_before = mean, error
    torch.testing.assert_close(before, mass, atol=0.1, rtol=0)


class Restricted(nn.Module):
    """p itself, restricted to the cell: for independent pixels whose logits are standard normal."""

    def __init__(self, shape: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> "Cut":
        return Cut(x.double(), self.levels)


class Cut(dist.TorchDistribution):
    """Normal logits, conditioned to lie in the cell of a level."""

    arg_constraints = {}  # noqa: RUF012
    support = dist.constraints.independent(dist.constraints.real, 2)

    def __init__(self, x: Tensor, levels: int) -> None:
        self.x, self.levels = x, levels
        self.low, self.high = (torch.special.ndtr(self.logit(x + end)) for end in (0, 1))
        super().__init__(x.shape[:-2], x.shape[-2:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Cut(self.x.expand(*batch_shape, 1, 2), self.levels)

    def logit(self, v: Tensor) -> Tensor:
        return torch.logit(0.05 + 0.9 * v / self.levels)

    def sample(self, sample_shape=()):
        y = torch.special.ndtri(self.low + torch.rand(self.x.shape, dtype=torch.float64) * (self.high - self.low))
        return self.levels * (torch.sigmoid(y) - 0.05) / 0.9

    def log_prob(self, v):
        a = 0.05 + 0.9 * v / self.levels
        log_p = dist.Normal(0.0, 1.0).log_prob(self.logit(v)) + math.log(0.9 / self.levels) - (a * (1 - a)).log()
        return (log_p - (self.high - self.low).log()).sum((-2, -1))


def test_the_best_noise_is_the_density_in_the_cell():
    """With q(v | x) = p(v) / P(x) in the cell every log-weight, and so every bound, is log P(x)."""

    def identity(shape):
        return Compose([AffineCoupling(shape, mask="checkerboard", net=NET)])  # couplings start as the identity

    model = ImageFlow(shape=(1, 2), levels=LEVELS, flow=identity, dequantizer=Restricted, alpha=0.05).double()
    cells = Cut(IMAGES.double(), LEVELS)
    exact = (cells.high - cells.low).log().sum((-2, -1))
    for bound in (ELBO(), IWAE(5)):
        torch.testing.assert_close(bound.per_datum(model.model, model.guide, IMAGES).detach(), exact)


def test_learned_noise_is_tighter_than_uniform_noise():
    """For one p, a variational q that maximises the ELBO leaves less of the gap to log P(x) than uniform noise."""
    uniform, model = two_pixels(), two_pixels(partial(VariationalDequantizer, depth=2, context=4))
    model.flow.requires_grad_(requires_grad=False)
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(200):
        svi.step(IMAGES.repeat(20, 1, 1))
    exact = log_probabilities(alpha=0.05, clipped=True)
    loose, loose_error = mean_and_error(values(uniform, ELBO(), IMAGES, 2000))
    tight, tight_error = mean_and_error(values(model, ELBO(), IMAGES, 2000))
    assert (tight <= exact + 5 * tight_error).all()
    gaps = (exact - tight).mean(), (exact - loose).mean()
    assert gaps[0] < 0.3 * gaps[1], gaps
    assert 5 * (loose_error.square().sum().sqrt() + tight_error.square().sum().sqrt()) / len(exact) < gaps[1] - gaps[0]
