# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Many coin flips at once score as one by one, with the same gradients of every order, for every kind of tensor."""

import pyro.distributions as dist
import pytest
import torch
from pyro.ops.provenance import get_provenance, track_provenance

from pyro_dgm.distributions import Bernoulli
from pyro_dgm.distributions import summed_bernoulli as module
from pyro_dgm.distributions.independent import Independent


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(module, "BLOCK", 40)


def coins(*shape, dtype=torch.float64):
    return 5 * torch.randn(*shape, dtype=dtype), torch.randint(0, 2, shape)


def score(logits, x, dims=1):
    return Independent(Bernoulli(logits=logits, validate_args=False), dims).log_prob(x)


@pytest.mark.parametrize("event", [(3,), (8,), (20,), (4, 5), (7, 7)])
@pytest.mark.parametrize("lead", [(1,), (9,), (6, 5)])
def test_it_is_pyros_sum(event, lead, device):
    torch.manual_seed(0)
    logits, x = (part.to(device) for part in coins(*lead, *event))
    for value in (x, x[0]):  # the particles share the data
        theirs = dist.Bernoulli(logits=logits).to_event(len(event)).log_prob(value.double().expand_as(logits))
        torch.testing.assert_close(score(logits, value, len(event)), theirs, rtol=1e-12, atol=1e-12)


def test_corners():
    logits = torch.tensor([-1e4, -200.0, -30.0, 0.0, 30.0, 200.0, 1e4, 1.0]).repeat(4, 3)
    for side in (0, 1):
        x = torch.full((4, 24), side)
        exact = dist.Bernoulli(logits=logits.double()).log_prob(x.double()).sum(-1)
        torch.testing.assert_close(score(logits, x).double(), exact, rtol=1e-6, atol=1e-6)


def test_gradients_of_both_orders():
    torch.manual_seed(0)
    logits, x = coins(4, 9)
    torch.autograd.gradcheck(lambda logits: score(logits, x), logits.requires_grad_())
    torch.autograd.gradgradcheck(lambda logits: score(logits, x), logits)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3)])
def test_logits_that_all_data_share_get_the_sum(shape):
    torch.manual_seed(0)
    logits, x = coins(*shape)[0].requires_grad_(), coins(4, 3)[1]
    torch.autograd.gradcheck(lambda logits: score(logits, x), logits)


def test_small_and_large_agree(monkeypatch, device):
    torch.manual_seed(0)
    logits, x = (part.to(device) for part in coins(100, 50, dtype=torch.float32))
    found = []
    for limit in (0, 10**6):
        monkeypatch.setattr(module, "LARGE", limit)
        leaf = logits.clone().requires_grad_()
        value = score(leaf, x)
        found.append((value.detach(), torch.autograd.grad(value.sum(), leaf)[0]))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_function_transforms_see_it():
    torch.manual_seed(0)
    logits, x = coins(5, 9)
    torch.testing.assert_close(torch.func.vmap(lambda a, x: score(a[None], x)[0])(logits, x), score(logits, x))
    slopes = torch.func.vmap(torch.func.grad(lambda row: score(row[None], x[0]).sum()))
    torch.testing.assert_close(slopes(logits), x[0] - logits.sigmoid())


def test_marks_of_tracegraph_stay():
    torch.manual_seed(0)
    logits, x = coins(5, 9)
    logits.requires_grad_()
    value = score(track_provenance(1.0 * logits, frozenset({"z"})), x)
    assert get_provenance(value) == frozenset({"z"})
    (gradient,) = torch.autograd.grad(value._t.sum(), logits)
    torch.testing.assert_close(gradient, x - logits.detach().sigmoid())


def test_a_value_that_is_no_side_of_a_coin_is_refused():
    with pytest.raises(ValueError, match="support"):
        Independent(Bernoulli(logits=torch.zeros(2, 3), validate_args=True), 1).log_prob(torch.tensor([0, 1, 2]))
