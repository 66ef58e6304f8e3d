# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Adam moves all weights in one kernel, to where it would have moved them one by one; other optimisers stay as is."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch.optim import SGD, Adam, Adamax, AdamW

from pyro_dgm.infer import ELBO
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP
from pyro_dgm.train import gradient_step, launch_fabric
from pyro_dgm.train.fuse import fuse

X = (torch.rand(20, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)


class OwnAdam(Adam):
    """A step of the user's own."""


def weight(shape: tuple[int, ...] = (3, 4)) -> torch.Tensor:
    return torch.randn(shape, requires_grad=True)


def step_of(optimizer, *, steps: int = 5, state: dict | None = None):
    """Train a small VAE, and give the step and its weights."""
    torch.manual_seed(0)
    net = partial(MLP, hidden=(8,))
    vae = VAE(shape=(4, 4), levels=2, latent=3, encoder=net, decoder=net)
    fabric = launch_fabric(accelerator="cpu")
    step = gradient_step(vae.model, vae.guide, ELBO(), fabric=fabric, optimizer=optimizer, clip_norm=1.0)
    if state is not None:
        step.module.load_state_dict(state["weights"])
        step.load_state_dict(state["step"])
    torch.manual_seed(1)
    for _ in range(steps):
        step(X)
    return step, {name: value.clone() for name, value in step.module.state_dict().items()}


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("options", [{}, {"amsgrad": True, "weight_decay": 0.1}])
def test_weights_go_where_they_would_have_gone(kind, options):
    fused, here = step_of(partial(kind, lr=0.01, **options))
    plain, there = step_of(partial(kind, lr=0.01, fused=False, **options))
    assert fused.optimizer.param_groups[0]["fused"]
    assert plain.optimizer.param_groups[0]["fused"] is False
    assert all(torch.allclose(value, there[name], atol=1e-6) for name, value in here.items())


def test_what_was_saved_unfused_goes_on_unfused_to_the_bit():
    plain = partial(Adam, lr=0.01, fused=False)
    before, weights = step_of(plain)
    saved = {"weights": weights, "step": deepcopy(before.state_dict())}
    saved["step"]["optimizer"]["param_groups"][0]["fused"] = None  # as it was before any was fused
    _, there = step_of(plain, state=deepcopy(saved))
    again, here = step_of(partial(Adam, lr=0.01), state=deepcopy(saved))
    assert again.optimizer.param_groups[0]["fused"] is None
    assert all(torch.equal(value, there[name]) for name, value in here.items())


@pytest.mark.parametrize("make", [SGD, Adamax, OwnAdam, partial(Adam, fused=False), partial(Adam, foreach=True)])
def test_whatever_else_was_given_stays_as_it_is(make):
    optimizer = make([weight()])
    before = optimizer.param_groups[0].get("fused")
    fuse(optimizer)
    assert optimizer.param_groups[0].get("fused") is before


def test_only_weights_without_gaps_are_given_to_the_kernel():
    gaps = torch.randn(3, 8)[:, :4].requires_grad_()  # its gradient and moments would have none
    turned = torch.randn(4, 3).T.requires_grad_()
    adam = Adam(
        [{"params": [weight(), turned]}, {"params": [weight(), gaps]}, {"params": [weight().cfloat().detach()]}]
    )
    fuse(adam)
    assert [group["fused"] for group in adam.param_groups] == [True, None, None]


def test_a_gradient_that_lies_otherwise_in_memory_is_laid_out_as_its_weight():
    kept, weights = torch.randn(3, 4), []
    for fused in (True, False):
        w = kept.clone().requires_grad_()
        adam = Adam([w], lr=0.1, fused=fused)
        (w.T.exp() * torch.arange(12.0).reshape(4, 3)).sum().backward()
        adam.step()
        weights.append(w)
    assert torch.allclose(*weights, atol=1e-6)
