# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Householder flow: against reflections one by one, against the stock one, and with a context."""

import pytest
import torch
from pyro.distributions.transforms import Householder as Stock

from pyro_dgm.transforms.householder import Householder

close = torch.testing.assert_close


def one_by_one(x, vectors):
    for v in vectors.unbind(-2):
        x = x - 2 * (v * x).sum(-1, keepdim=True) * v / v.square().sum(-1, keepdim=True)
    return x


@pytest.mark.parametrize(("dim", "count"), [(1, 1), (2, 8), (5, 3), (64, 8)])
def test_it_reflects_by_the_first_vector_first(dim, count):
    flow = Householder(dim, reflections=count).double()
    x = torch.randn(4, 7, dim, dtype=torch.float64)
    y, logdet = flow.forward_and_logdet(x)
    close(y, one_by_one(x, flow.values.vectors))
    back, inverse_logdet = flow.inverse_and_logdet(y)
    close(back, x)
    assert logdet.shape == inverse_logdet.shape == (4, 7)
    assert not logdet.any()
    assert not inverse_logdet.any()


def test_it_is_the_stock_flow():
    flow, stock = Householder(6, reflections=3), Stock(6, count_transforms=3)
    stock.u_unnormed.data = flow.values.vectors.data
    x = torch.randn(5, 6)
    close(flow(x), stock(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.float64, 4e-15)])
def test_lengths_and_round_trips_are_exact(dtype, error):
    flow = Householder(64, reflections=16).to(dtype)
    x = torch.randn(200, 64, dtype=dtype)
    y = flow(x)
    assert (y.norm(dim=-1) / x.norm(dim=-1) - 1).abs().max() < error
    assert (flow.inverse_and_logdet(y.clone())[0] - x).abs().max() < error * 2


@pytest.mark.parametrize("more", [(), (3,), (2, 3)])
@pytest.mark.parametrize("batch", [(), (4,), (2, 4), (2, 1)])
def test_amortised_is_one_flow_for_each_context(more, batch):
    flow = Householder(5, reflections=3, context_dim=2)
    torch.nn.init.normal_(flow.values.net.weight)
    context, x = torch.randn(*batch, 2), torch.randn(*more, *batch, 5)
    if batch == (2, 1):
        x = torch.randn(*more, 2, 4, 5)
    y = flow.condition(context)(x)
    (vectors,) = flow.values(context)
    close(y, one_by_one(x, vectors), rtol=1e-5, atol=1e-5)
    close(flow.condition(context).inv(y.clone()), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_gradients_also_where_a_vector_is_zero(direction):
    flow = Householder(4, reflections=3).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def run(x, vectors):
        return torch.func.functional_call(_Direction(flow, direction), {"flow.values.vectors": vectors}, (x,))

    vectors = flow.values.vectors.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, vectors))
    with torch.no_grad():
        vectors[1] = 0
    grads = torch.autograd.grad(run(x, vectors).square().sum(), (x, vectors))
    assert all(grad.isfinite().all() for grad in grads)


class _Direction(torch.nn.Module):
    def __init__(self, flow, direction):
        super().__init__()
        self.flow, self.direction = flow, direction

    def forward(self, x):
        return getattr(self.flow, self.direction)(x)[0]


def test_sizes_are_checked():
    with pytest.raises(ValueError, match=r"Householder got reflections=\(0,\)"):
        Householder(3, reflections=0)
    with pytest.raises(ValueError, match="its last size must be 3"):
        Householder(3)(torch.randn(2, 4))
