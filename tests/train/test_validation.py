# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Validation is a mean over the data at beta = 1 that leaves the training's random numbers alone."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pyro_dgm.train import Validation


class Objective(nn.Module):
    """The mean of x and noise, weighed by a beta as a bound has it."""

    def __init__(self) -> None:
        super().__init__()
        self.bound = SimpleNamespace(beta=torch.tensor(0.25))
        self.weight, self.noise = nn.Parameter(torch.ones(())), 0.0

    def forward(self, x):
        noise = self.noise * torch.randn(len(x), device=x.device)
        return {"loss": self.weight * self.bound.beta * (x + noise).mean(), "log_p.x": x.float().mean()}


@pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
def test_ragged_batches_are_weighed_by_their_sizes(device, batch_size):
    x = torch.arange(10, device=device)
    found = Validation(Objective().to(device), x, batch_size=batch_size)()
    assert found["loss"].item() == pytest.approx(4.5)
    assert found["log_p.x"].device == x.device
    assert not found["loss"].requires_grad


def test_beta_is_one_meanwhile_and_comes_back():
    objective = Objective()
    Validation(objective, torch.ones(2))()
    assert objective.bound.beta == 0.25


def test_its_random_numbers_are_its_own(device):
    objective = Objective().to(device)
    objective.noise = 1.0
    validation = Validation(objective, torch.zeros(7, device=device), batch_size=3)
    state = torch.get_rng_state()
    first = validation()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert validation() == first
    assert Validation(objective, torch.zeros(7, device=device), batch_size=3, seed=1)() != first


@pytest.mark.parametrize(("size", "batch_size"), [(0, 5), (5, 0)])
def test_nothing_to_validate_is_refused(size, batch_size):
    with pytest.raises(ValueError, match="both must be at least 1"):
        Validation(Objective(), torch.ones(size), batch_size=batch_size)
