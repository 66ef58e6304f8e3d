# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Many coin flips at once have a gradient in one pass: the same one, of every order and for every kind of tensor."""

import pytest
import torch
from pyro.ops.provenance import get_provenance, track_provenance

from pyro_dgm.distributions import Bernoulli
from pyro_dgm.distributions import bernoulli as module


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 0)


def coins(*shape, dtype=torch.float64):
    return 5 * torch.randn(*shape, dtype=dtype), torch.randint(0, 2, shape)


def test_gradients_of_both_orders():
    torch.manual_seed(0)
    logits, x = coins(4, 3)

    def function(logits):
        return Bernoulli(logits=logits).log_prob(x)

    torch.autograd.gradcheck(function, logits.requires_grad_())
    torch.autograd.gradgradcheck(function, logits)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 3)])
def test_logits_that_all_data_share_get_the_sum(shape):
    torch.manual_seed(0)
    logits, x = coins(*shape)[0].requires_grad_(), coins(4, 3)[1]
    torch.autograd.gradcheck(lambda logits: Bernoulli(logits=logits).log_prob(x), logits)


def test_small_and_large_agree(monkeypatch, device):
    torch.manual_seed(0)
    logits, x = (part.to(device) for part in coins(100, 50, dtype=torch.float32))
    found = []
    for limit in (0, 10**6):
        monkeypatch.setattr(module, "LARGE", limit)
        leaf = logits.clone().requires_grad_()
        value = Bernoulli(logits=leaf).log_prob(x)
        found.append((value.detach(), torch.autograd.grad(value.square().sum(), leaf)[0]))
    torch.testing.assert_close(*found)


def test_function_transforms_see_it():
    torch.manual_seed(0)
    logits, x = coins(5, 3)
    value = torch.func.vmap(lambda logits, x: Bernoulli(logits=logits, validate_args=False).log_prob(x))(logits, x)
    torch.testing.assert_close(value, Bernoulli(logits=logits).log_prob(x))
    slopes = torch.func.vmap(
        torch.func.grad(lambda row: Bernoulli(logits=row, validate_args=False).log_prob(x[0]).sum())
    )
    torch.testing.assert_close(slopes(logits), x[0] - logits.sigmoid())


def test_marks_of_tracegraph_stay():
    torch.manual_seed(0)
    logits, x = coins(5, 3)
    logits.requires_grad_()
    value = Bernoulli(logits=track_provenance(1.0 * logits, frozenset({"z"})), validate_args=False).log_prob(x)
    assert get_provenance(value) == frozenset({"z"})
    (gradient,) = torch.autograd.grad(value._t.sum(), logits)
    torch.testing.assert_close(gradient, x - logits.detach().sigmoid())
