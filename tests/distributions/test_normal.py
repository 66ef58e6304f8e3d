# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The summed log-density of normals is Pyro's, however a plate has repeated their parameters."""

import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.distributions import Normal
from pyro_dgm.distributions.independent import Independent

SCALES = {
    "their own": lambda **to: torch.rand(6, 4, 3, **to) + 0.1,
    "of all data": lambda **to: torch.rand(3, **to) + 0.1,
    "one": lambda **to: torch.rand((), **to) + 0.1,
    "repeated": lambda **to: (torch.rand(4, 1, **to) + 0.1).expand(6, 4, 3),
}


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("dims", [0, 1, 2])
def test_it_is_pyros_sum(scale, dims, device):
    torch.manual_seed(0)
    to = {"dtype": torch.float64, "device": device}
    loc, x, scale = torch.randn(4, 3, **to), torch.randn(6, 4, 3, **to), scale(**to).requires_grad_()
    ours = Independent(Normal(loc, scale), dims).expand((6, 4, 3)[: 3 - dims]).log_prob(x)
    theirs = dist.Normal(loc, scale).expand((6, 4, 3)).to_event(dims).log_prob(x)
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(
            Independent(Normal(loc, scale), dims).expand((6, 4, 3)[: 3 - dims]).log_prob(x), ours
        )
    slopes = [torch.autograd.grad(value.square().sum(), scale, retain_graph=True)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*slopes)


def test_validation_refuses_what_is_no_number():
    with pytest.raises(ValueError, match="support"):
        Independent(Normal(torch.zeros(2), torch.ones(2), validate_args=True), 1).log_prob(
            torch.tensor([0.0, torch.nan])
        )
