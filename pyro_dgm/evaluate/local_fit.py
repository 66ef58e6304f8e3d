# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Fit the posterior of every datum by itself, all at once, until that brings no more."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_dgm.evaluate.local_guide import LocalGuide
from pyro_dgm.infer.log_weights import log_weights
from pyro_dgm.infer.objectives import ELBO

CHECKS = 100  # samples that say whether a round brought anything: the same ones before and after
SHARED = 0.1  # of the rate, for the weights that all data share: every datum moves them


def fit_locally(
    model: Callable[..., Any],
    local: LocalGuide,
    x: Tensor,
    *,
    num_steps: int,
    rounds: int,
    tolerance: float | int,
    lr: float | int,
    particles: int,
) -> Tensor:
    """Raise the ELBO of every datum by Adam on its own offsets; run it inside `frozen`.

    The sum over the data is what is differentiated: Adam treats every number by itself, so that no datum's path depends
    on another's, but for the weights of a flow.

    Args:
        model: A Pyro program with a data plate.
        local: Its guide, whose leaves are changed in place.
        x: The data that it was made for, shape ``(B, *event)``.
        num_steps: Steps in a round.
        rounds: Most rounds.
        tolerance: Smallest improvement of a round, in nats per datum, for which there is another one.
        lr: Adam's rate at the start of each round; it falls to 0 by a cosine.
        particles: Samples in a step.

    Returns:
        What the last round brought every datum, in nats, shape ``(B,)``. A round that brought less than nothing on
        average is undone.
    """
    bound = ELBO(particles)
    before = _checked(model, local, x, particles)
    for _ in range(rounds):
        start = [leaf.detach().clone() for leaf in local.leaves]
        groups: list[dict[str, Any]] = [{"params": local.own, "lr": lr}, {"params": local.shared, "lr": SHARED * lr}]
        optimizer = torch.optim.Adam([group for group in groups if group["params"]])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
        for _ in range(num_steps):
            with torch.enable_grad():
                loss = bound.differentiable_loss(model, local, x)
                gradients = torch.autograd.grad(loss, local.leaves, allow_unused=True)
            for leaf, gradient in zip(local.leaves, gradients, strict=True):
                leaf.grad = gradient
            optimizer.step()
            schedule.step()
        after = _checked(model, local, x, particles)
        change = after - before
        if change.mean() < 0:  # noise is all that moves it
            for leaf, value in zip(local.leaves, start, strict=True):
                leaf.copy_(value)
        if change.mean() < tolerance:
            break
        before = after
    return change


def _checked(model: Callable[..., Any], local: LocalGuide, x: Tensor, particles: int) -> Tensor:
    """Estimate the ELBO of every datum with the same random numbers each time."""
    devices = [x.device] if x.device.type != "cpu" else []
    with torch.random.fork_rng(devices=devices, device_type=x.device.type if devices else "cuda"):
        torch.manual_seed(0)
        runs = range(-(-CHECKS // particles))
        each = [log_weights(model, local, x, particles=particles).log_w.mean(0).double() for _ in runs]
    return torch.stack(each).mean(0)
