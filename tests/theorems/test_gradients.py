# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What is proved of the gradients of importance-weighted bounds: how their signal and noise go with K."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.infer import IWAE, PIWAE, Bound

PARTICLES = (4, 16, 64, 256)
BLOCKS, COPIES = 20, 1500
X = torch.tensor(1.0, dtype=torch.float64)


def signal_to_noise(bound: Bound) -> tuple[torch.Tensor, torch.Tensor]:
    """E[gradient] / sd(gradient) of model and guide in each of several blocks; each copy has parameters of its own.

    z ~ N(theta, 1), x | z ~ N(z, 1), q = N(phi, 0.8^2) at theta = 0, phi = 1; the posterior is N(0.5, 0.5).
    """
    ratios = []
    for _ in range(BLOCKS):
        theta = torch.zeros(COPIES, dtype=torch.float64, requires_grad=True)
        phi = torch.full((COPIES,), 1.0, dtype=torch.float64, requires_grad=True)

        def model(theta=theta):
            with pyro.plate("data", COPIES):
                z = pyro.sample("z", dist.Normal(theta, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=X.expand(COPIES))

        def guide(phi=phi):
            with pyro.plate("data", COPIES):
                pyro.sample("z", dist.Normal(phi, 0.8))

        loss = bound.differentiable_loss(model, guide)
        ratios.append([-part.mean() / part.std() for part in torch.autograd.grad(loss, [theta, phi])])
    found = torch.tensor(ratios, dtype=torch.float64)
    return found[:, 0], -found[:, 1]  # phi should fall


def slope(ratios: list[torch.Tensor]) -> tuple[float, float]:
    """Regress log SNR on log K; the error bar is from the spread of the blocks."""
    mean = torch.stack([ratio.mean() for ratio in ratios])
    error = torch.stack([ratio.std() / math.sqrt(BLOCKS) for ratio in ratios]) / mean
    assert (mean > 5 * error * mean).all()  # there is a signal to speak of
    log_k = torch.tensor(PARTICLES, dtype=torch.float64).log()
    weights = (log_k - log_k.mean()) / (log_k - log_k.mean()).square().sum()
    return float((weights * mean.log()).sum()), float((weights.square() * error.square()).sum().sqrt())


@pytest.mark.parametrize("gradient", ["total", "dreg"])
def test_the_signal_of_the_model_grows_and_that_of_the_guide_fades_with_particles(gradient):
    """SNR of the model's gradient is O(sqrt K), of the guide's O(1 / sqrt K); doubly reparameterised, O(sqrt K) too."""
    pairs = [signal_to_noise(IWAE(particles, gradient=gradient, max_plate_nesting=1)) for particles in PARTICLES]
    for which, expected in ((0, 0.5), (1, -0.5 if gradient == "total" else 0.5)):
        found, error = slope([pair[which] for pair in pairs])
        assert abs(found - expected) < 5 * error + 0.05, f"slope {found:.3f} +- {error:.3f}, theory {expected}"


def test_groups_keep_the_guides_signal_while_the_model_has_the_tight_bound():
    """With K / M = 4 particles in each of M groups the signal of PIWAE's guide grows as sqrt M, and the model's too."""
    pairs = [signal_to_noise(PIWAE(particles, groups=particles // 4, max_plate_nesting=1)) for particles in PARTICLES]
    for which in (0, 1):
        found, error = slope([pair[which] for pair in pairs])
        assert abs(found - 0.5) < 5 * error + 0.05, f"slope {found:.3f} +- {error:.3f}"
