# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Single precision where probability is: tensors are raised, methods run without autocast, networks in them with it."""

import pytest
import torch
from torch import nn

from pyro_dgm.nn.full_precision import OUTSIDE, full_precision
from pyro_dgm.nn.mixed_precision import mixed_precision
from pyro_dgm.nn.raised import raised

HALVES = (torch.float16, torch.bfloat16)


class Formula(nn.Module):
    """A network that gives a matrix, and a product with it."""

    def __init__(self, inner=None):
        super().__init__()
        self.net, self.inner = nn.Linear(3, 9), inner

    @mixed_precision
    def matrix(self, x):
        self.seen = torch.is_autocast_enabled(x.device.type)
        return self.net(x)

    @full_precision
    def forward(self, x=None, *, y=None):
        x = torch.ones(3, dtype=self.net.weight.dtype, device=self.net.weight.device) if x is None else x
        before = x if self.inner is None else self.inner(x)
        product = before @ self.matrix(x).unflatten(-1, (3, 3))
        return product if y is None else product + y

    def alone(self, x, raw=None):
        """The same without decorators, from what the network gave."""
        return x @ (self.net(x) if raw is None else raw).unflatten(-1, (3, 3))

    @full_precision
    def fail(self, x):
        raise RuntimeError(str(x.dtype))


def test_only_half_precision_is_raised():
    x = torch.randn(3)
    assert {raised(x.to(half)).dtype for half in HALVES} == {torch.float32}
    for other in (x, x.double(), x.int(), x > 0):
        assert raised(other) is other


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_without_autocast_nothing_happens(dtype):
    module, x = Formula().to(dtype), torch.randn(5, 3, dtype=dtype)
    found = module(x)
    assert found.dtype == dtype
    assert torch.equal(found, module.alone(x))
    assert not module.seen
    assert OUTSIDE.dtype is None


def test_under_autocast_the_network_is_mixed_and_the_formula_is_not(device):
    torch.manual_seed(0)
    module, x = Formula().to(device), torch.randn(5, 3, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found, halved, named, own = module(x), module(x.bfloat16()), module(x=x, y=x.bfloat16()), module()
        raw = module.net(x)
    assert module.seen
    assert raw.dtype == torch.bfloat16
    assert {part.dtype for part in (found, halved, named, own)} == {torch.float32}
    assert torch.equal(found, module.alone(x, raw.float()))
    assert torch.equal(named, found + x.bfloat16().float())
    assert not torch.equal(found, module.alone(x))
    found.sum().backward()
    assert module.net.weight.grad.dtype == torch.float32


def test_float64_stays_under_autocast():
    module, x = Formula().double(), torch.randn(5, 3, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(x), module.alone(x))


def test_it_is_as_it_was_afterwards():
    inner = Formula()
    module, x = Formula(inner), torch.randn(5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(x)
        with pytest.raises(RuntimeError, match="float32"):
            module.fail(x.bfloat16())
        assert torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False):
            module(x)
            assert not module.seen
    assert OUTSIDE.dtype is None
    assert not torch.is_autocast_enabled("cpu")


def test_the_compiler_sees_through_it():
    module, x = Formula(), torch.randn(5, 3)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            assert torch.equal(compiled(x), module(x))
