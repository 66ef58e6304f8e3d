# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Where formulas divide by zero, saturate or overflow, every public flow gives a finite answer or says why not."""

import pytest
import torch

from pyro_dgm.transforms import ConvergenceError
from tests.cases import TRANSFORMS_OF_FREE_SCALE
from tests.transforms.random_flows import CONTEXT, build, conditioned, every_flow, noise, random_flow, randomise

every_precision = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def answers(flow, x):
    """What comes out of both directions, or the error where the flow says that it cannot."""
    for function in (flow.forward, flow.inverse):
        try:
            yield function(x)
        except (ValueError, ConvergenceError) as error:
            yield error


def assert_finite(flow, x):
    for answer in answers(flow, x):
        if isinstance(answer, Exception):
            assert len(str(answer)) > 60, "it says no more than that it failed"
        else:
            assert answer[0].isfinite().all()
            assert answer[1].isfinite().all()


def assert_finite_gradients(flow, x):
    x = x.requires_grad_()
    (there, logdet), (back, inverse_logdet) = flow.forward(x), flow.inverse(x)
    (there.sum() + back.sum() + logdet.sum() + inverse_logdet.sum()).backward()
    for name, tensor in [*flow.flow.named_parameters(), ("x", x)]:
        assert tensor.grad is None or tensor.grad.isfinite().all(), name


@every_flow
@every_precision
def test_zero_parameters(case, dtype):
    flow = randomise(build(case), 0.0).to(dtype).eval()
    flow = conditioned(flow, noise(5, CONTEXT, dtype=dtype) if case[1] else None)
    x = noise(5, 4, dtype=dtype)
    assert_finite(flow, x)
    torch.testing.assert_close(flow.inverse(flow.forward(x)[0])[0], x, rtol=1e-4, atol=1e-4)
    assert_finite_gradients(flow, x)


@every_flow
@every_precision
def test_zeros(case, dtype):
    """Also of context, where an amortised flow knows its biases only."""
    flow = random_flow(case, (4,), dtype=dtype)
    flow = conditioned(flow.flow, None if flow.context is None else torch.zeros_like(flow.context))
    x = torch.zeros(4, 4, dtype=dtype)
    assert_finite(flow, x)
    assert_finite_gradients(flow, x)


@every_flow
@every_precision
def test_large_values(case, dtype):
    flow = random_flow(case, (4,), dtype=dtype)
    x = noise(4, 4, dtype=dtype)
    x = x / x.norm(dim=-1, keepdim=True) * torch.tensor([[0.0], [1e-30], [1e2], [1e3]], dtype=dtype)
    assert_finite(flow, x)
    y = flow.forward(x)[0]
    scale = 1e-2 if dtype == torch.float32 else 1e-9
    for answer in answers(flow, y.detach()):
        if not isinstance(answer, Exception):
            assert answer[0].isfinite().all()
    torch.testing.assert_close(flow.forward(flow.inverse(y)[0])[0], y, rtol=scale, atol=scale * y.abs().max().item())


@every_flow
@every_precision
def test_huge_parameters(case, dtype):
    free = any(type(module).__name__ in TRANSFORMS_OF_FREE_SCALE for module in build(case).modules())
    for seed in range(3):
        torch.manual_seed(seed)
        flow = random_flow(case, (4,), dtype=dtype, scale=5.0 if free else 100.0)
        assert_finite(flow, noise(4, 4, dtype=dtype))
