# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Objectives and gradient steps: what training repeats."""

import copy

import pyro
import pytest
import torch
from torch import nn

from pyro_dgm.infer import ELBO, IWAE, GradientStep, Objective
from tests.oracles import LinearGaussian


def make(bound=None, **options):
    oracle = LinearGaussian(widen=1.5)
    objective = Objective(oracle.model, oracle.guide, bound or ELBO())
    return oracle, GradientStep(objective, torch.optim.Adam(objective.parameters(), lr=0.05), **options)


def test_an_objective_is_the_bound_per_datum_with_its_terms():
    oracle, bound = LinearGaussian(widen=1.5), IWAE(3)
    x = oracle.data(6)
    torch.manual_seed(0)
    terms = Objective(oracle.model, oracle.guide, bound)(x)
    torch.manual_seed(0)
    assert torch.allclose(-terms["loss"], bound.per_datum(oracle.model, oracle.guide, x).mean())
    assert set(terms) == {"loss", "log_p.z", "log_p.x", "log_q.z"}
    assert all(term.dim() == 0 for term in terms.values())
    assert terms["loss"].requires_grad
    assert not terms["log_p.x"].requires_grad


def test_an_objective_does_not_depend_on_the_scale_of_the_plate():
    oracle, x = LinearGaussian(), LinearGaussian().data(6)
    scaled = pyro.poutine.scale(oracle.model, scale=4.0), pyro.poutine.scale(oracle.guide, scale=4.0)
    loss = Objective(*scaled, ELBO())(x)["loss"]
    assert torch.allclose(-loss, oracle.log_prob(x).mean(), atol=1e-8)


def test_an_objective_keeps_what_belongs_to_no_datum():
    oracle, x = LinearGaussian(outside=True), LinearGaussian().data(6)
    terms = Objective(oracle.model, oracle.guide, ELBO())(x)
    expected = oracle.log_prob(x).mean() + oracle.outside_log_prob() / 6
    assert torch.allclose(-terms["loss"], expected, atol=1e-8)
    assert terms["log_p.outside"].item() == pytest.approx(oracle.outside_log_prob() / 6)


def test_an_objective_of_a_subsample_is_per_datum_of_the_whole():
    oracle = LinearGaussian(outside=True, subsample=2)
    x = oracle.data(6)
    losses = torch.stack([Objective(oracle.model, oracle.guide, IWAE(2))(x)["loss"] for _ in range(100)]).detach()
    expected = oracle.log_prob(x).mean() + oracle.outside_log_prob() / 6
    assert (losses.mean() + expected).abs() < 5 * losses.std() / 10


def test_a_model_without_a_data_plate_is_refused():
    def program(x):
        pyro.sample("z", pyro.distributions.Normal(torch.zeros(len(x)), 1.0).to_event(1))

    with pytest.raises(ValueError, match="No plate encloses"):
        Objective(program, program, ELBO())(torch.zeros(3))


def test_steps_lower_the_loss_and_leave_the_parameter_store_alone():
    oracle, step = make()
    with torch.no_grad():
        oracle.weight.mul_(0.1)
    x = LinearGaussian().data(200)
    losses = torch.stack([step(x)["loss"] for _ in range(100)])
    assert losses[-10:].mean() < losses[:10].mean() - 0.1
    assert len(pyro.get_param_store()) == 0
    assert not losses.requires_grad


def test_clipping_bounds_the_gradient():
    oracle, step = make(clip_norm=1e-3)
    terms = step(oracle.data(20))
    assert terms["grad_norm"] > 1e-3
    assert oracle.weight.grad.norm() <= 1e-3 * (1 + 1e-6)


def test_beta_reaches_the_bound():
    _, step = make()
    step.beta.fill_(0.25)
    assert step.module.bound.beta.item() == 0.25


def test_a_schedule_moves_at_the_end_of_an_epoch():
    oracle = LinearGaussian()
    objective = Objective(oracle.model, oracle.guide, ELBO())
    optimizer = torch.optim.SGD(objective.parameters(), lr=1.0)
    step = GradientStep(objective, optimizer, scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
    step(oracle.data(4))
    step.epoch_end()
    assert step.lr == 0.5


def test_state_continues_where_it_was():
    x = LinearGaussian().data(20)
    oracle, step = make()
    step(x)
    weights, state = oracle.weight.detach().clone(), copy.deepcopy(step.state_dict())
    torch.manual_seed(1)
    first = step(x)["loss"]
    other, again = make()
    with torch.no_grad():
        other.weight.copy_(weights)
    again.load_state_dict(state)
    torch.manual_seed(1)
    assert torch.equal(again(x)["loss"], first)
    assert torch.equal(other.weight, oracle.weight)


def test_nothing_to_train_is_refused():
    linear = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="no parameter to train"):
        GradientStep(Objective(lambda x: None, lambda x: None, ELBO()), torch.optim.SGD(linear.parameters(), lr=0.1))


def test_a_clip_norm_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="clip_norm=0"):
        make(clip_norm=0)


def test_an_objective_without_a_bound_has_no_beta():
    linear = nn.Linear(1, 1)
    step = GradientStep(linear, torch.optim.SGD(linear.parameters(), lr=0.1))
    with pytest.raises(AttributeError, match="no bound with a beta"):
        step.beta  # noqa: B018
