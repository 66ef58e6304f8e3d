# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""With every discrete variable summed the loss is exact, its gradient has no noise, and a step of training takes it."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.infer import GradientStep
from pyro_dgm.infer.enumerated_objective import EnumeratedObjective
from pyro_dgm.models import GaussianMixture
from pyro_dgm.train import Validation


def mixture(device="cpu"):
    torch.manual_seed(0)
    return GaussianMixture(dim=2, components=3).double().to(device)


def data(device="cpu"):
    return torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)


def test_without_a_guide_it_is_the_likelihood_and_its_gradient(device):
    model, x = mixture(device), data(device)
    loss = EnumeratedObjective(model.model)(x)["loss"]
    exact = -model.log_prob(x).mean()
    assert loss.item() == pytest.approx(exact.item())
    parameters = [p for p in model.parameters() if p.requires_grad]
    for found, wanted in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(exact, parameters), strict=True
    ):
        assert found.allclose(wanted)


def test_with_the_exact_posterior_the_bound_is_tight():
    model, x = mixture(), data()
    assert EnumeratedObjective(model.model, model.guide)(x)["loss"].item() == pytest.approx(
        -model.log_prob(x).mean().item()
    )


def test_two_variables_of_one_datum_are_both_summed():
    def model(x):
        with pyro.plate("data", len(x)):
            a, b = pyro.sample("a", dist.Bernoulli(0.3)), pyro.sample("b", dist.Bernoulli(0.6))
            pyro.sample("x", dist.Normal(a + 2 * b, 0.5), obs=x)

    x = data()[:, 0].float()
    pairs = [(a, b, (0.3 if a else 0.7) * (0.6 if b else 0.4)) for a in (0, 1) for b in (0, 1)]
    exact = sum(p * dist.Normal(a + 2.0 * b, 0.5).log_prob(x).exp() for a, b, p in pairs).log()
    assert EnumeratedObjective(model)(x)["loss"].item() == pytest.approx(-exact.mean().item())


def test_a_gradient_step_raises_the_likelihood_and_leaves_the_store_alone():
    model, x = mixture(), data()
    objective = EnumeratedObjective(model.model)
    step = GradientStep(objective, torch.optim.Adam(objective.parameters(), lr=0.02))
    losses = [step(x)["loss"].item() for _ in range(50)]
    assert losses[-1] < losses[0] - 0.2
    assert not list(pyro.get_param_store())


def test_it_can_be_validated_without_gradients():
    model, x = mixture(), data()
    objective = EnumeratedObjective(model.model)
    found = Validation(objective, x, batch_size=7)()["loss"]
    assert found.item() == pytest.approx(objective(x)["loss"].item())


def test_refusals():
    with pytest.raises(ValueError, match="max_plate_nesting=-1"):
        EnumeratedObjective(mixture().model, max_plate_nesting=-1)
