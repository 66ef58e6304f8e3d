# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Linear flows multiply by the matrix that their factors make, for all data or one for each datum."""

import copy

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from pyro_dgm.nn import MLP
from pyro_dgm.transforms.lu_linear import LULinear
from pyro_dgm.transforms.qr_linear import QRLinear

KINDS = {
    "LU": LULinear,
    "LU permutation": lambda dim, **options: LULinear(dim, start="permutation", **options),
    "LU rotation": lambda dim, **options: LULinear(dim, start="rotation", **options),
    "LU rotation, no bias": lambda dim, **options: LULinear(dim, start="rotation", bias=False, **options),
    "QR": QRLinear,
    "QR, 3 reflections": lambda dim, **options: QRLinear(dim, reflections=3, **options),
    "QR, 11 reflections": lambda dim, **options: QRLinear(dim, reflections=11, **options),
    "QR rotation": lambda dim, **options: QRLinear(dim, start="rotation", **options),
    "QR, no bias": lambda dim, **options: QRLinear(dim, bias=False, **options),
}


def away_from_the_start(flow, scale=0.5):
    """The same flow in double precision, with parameters of order 1."""
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return flow.double()


def matrix_and_bias(flow, context=None):
    """What the flow does, read off the unit vectors."""
    transform = flow if context is None else flow.condition(context)
    bias = transform(torch.zeros(flow.dim, dtype=torch.float64))
    columns = [transform(unit) - bias for unit in torch.eye(flow.dim, dtype=torch.float64)]
    return torch.stack(columns, -1), bias


@pytest.mark.parametrize("kind", KINDS)
def test_one_matrix_for_all(kind):
    flow = away_from_the_start(KINDS[kind](5))
    w, b = matrix_and_bias(flow)
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    y, logdet = flow.forward_and_logdet(x)
    torch.testing.assert_close(y, x @ w.mT + b)
    torch.testing.assert_close(logdet, torch.linalg.slogdet(w).logabsdet.expand(4, 3))
    back, logdet_back = flow.inverse_and_logdet(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(logdet_back, -logdet)


@pytest.mark.parametrize("kind", KINDS)
def test_one_matrix_for_each_datum(kind):
    flow = away_from_the_start(KINDS[kind](4, context_dim=3), 0.3)
    h = torch.randn(2, 5, 3, dtype=torch.float64)
    x = torch.randn(7, 2, 5, 4, dtype=torch.float64)  # seven points for each of 2 x 5 contexts
    y, logdet = flow.condition(h).forward_and_logdet(x)
    back, logdet_back = flow.condition(h).inverse_and_logdet(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(logdet_back, -logdet)
    for i in range(2):
        for j in range(5):
            w, b = matrix_and_bias(flow, h[i, j])
            torch.testing.assert_close(y[:, i, j], x[:, i, j] @ w.mT + b)
            torch.testing.assert_close(logdet[:, i, j], torch.linalg.slogdet(w).logabsdet.expand(7))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", [(), (1,), (5, 1)])
def test_contexts_broadcast(kind, context):
    flow = away_from_the_start(KINDS[kind](3, context_dim=2), 0.3)
    h, x = torch.randn(*context, 2, dtype=torch.float64), torch.randn(5, 6, 3, dtype=torch.float64)
    y, _ = flow.condition(h).forward_and_logdet(x)
    every, _ = flow.condition(h.expand(5, 6, 2)).forward_and_logdet(x)
    torch.testing.assert_close(y, every)
    torch.testing.assert_close(flow.condition(h).inverse_and_logdet(y)[0], x)


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_and_no_values(kind):
    flow = KINDS[kind](3)
    assert flow.inverse_and_logdet(torch.empty(0, 2, 3))[0].shape == (0, 2, 3)
    on_meta = KINDS[kind](3, context_dim=2).to("meta")
    transform = on_meta.condition(torch.empty(4, 2, device="meta"))
    assert transform(torch.empty(6, 4, 3, device="meta")).shape == (6, 4, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_gradients(kind, direction):
    flow = away_from_the_start(KINDS[kind](3, context_dim=2), 0.3)
    x, h = (torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in (3, 2))
    assert torch.autograd.gradcheck(lambda x, h: getattr(flow.condition(h), direction)(x), (x, h))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("amortised", [False, True])
def test_every_parameter_learns(kind, amortised):
    flow = away_from_the_start(KINDS[kind](4, context_dim=3 if amortised else None), 0.3)
    transform = flow.condition(torch.randn(6, 3, dtype=torch.float64)) if amortised else flow
    y, logdet = transform.forward_and_logdet(torch.randn(6, 4, dtype=torch.float64))
    (y.pow(4).sum() + logdet.sum()).backward()  # squares would not see a rotation
    assert all((parameter.grad != 0).all() for parameter in flow.parameters())


def test_starts():
    torch.testing.assert_close(matrix_and_bias(LULinear(6).double())[0], torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(matrix_and_bias(QRLinear(6).double())[0], torch.eye(6, dtype=torch.float64))
    permutation = matrix_and_bias(LULinear(6, start="permutation").double())[0]
    assert sorted(permutation.argmax(-1).tolist()) == list(range(6))
    torch.testing.assert_close(permutation @ permutation.mT, torch.eye(6, dtype=torch.float64))
    eye = torch.eye(6, dtype=torch.float64)
    for kind in (LULinear, QRLinear):
        rotation = matrix_and_bias(kind(6, start="rotation").double())[0]
        torch.testing.assert_close(rotation @ rotation.mT, eye, atol=1e-5, rtol=0)
        assert (rotation.abs() > 1e-3).sum() > 20
    reflection = matrix_and_bias(QRLinear(6, reflections=1).double())[0]
    torch.testing.assert_close(torch.linalg.det(reflection), torch.tensor(-1.0, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_an_amortised_matrix_starts_near_the_learned_one(kind):
    flow = KINDS[kind](32, context_dim=16)
    w = matrix_and_bias(flow.double(), torch.randn(16, dtype=torch.float64))[0]
    assert torch.linalg.cond(w) < 2
    deep = KINDS[kind](4, context_dim=3, context_net=lambda n, m: MLP((n,), (m,), hidden=(8,)))
    assert any(isinstance(module, nn.ReLU) for module in deep.modules())


@pytest.mark.parametrize("start", ["permutation", "rotation"])
def test_what_is_fixed_is_in_the_state_dict(start):
    flow, other, x = LULinear(5, start=start), LULinear(5), torch.randn(3, 5)
    other.load_state_dict(flow.state_dict())
    assert torch.equal(flow(x), other(x))
    assert torch.equal(copy.deepcopy(flow)(x), flow(x))


def test_a_matrix_whose_determinant_is_negative_keeps_its_sign():
    signs = {int(LULinear(3, start="rotation").signs.prod()) for _ in range(20)}
    assert signs == {-1, 1}  # P and the signs make up for each other
    for _ in range(5):
        flow = LULinear(3, start="rotation")
        before = torch.linalg.det(matrix_and_bias(flow.double())[0]).sign()
        assert torch.linalg.det(matrix_and_bias(away_from_the_start(flow, 3.0))[0]).sign() == before


def test_reflections_reach_every_rotation():
    assert [QRLinear(dim).reflections for dim in (1, 2, 3, 4, 5)] == [2, 2, 2, 4, 4]
    target = LULinear(3, start="rotation")
    while torch.linalg.det(matrix_and_bias(target.double())[0]) < 0:
        target = LULinear(3, start="rotation")
    w, flow = matrix_and_bias(target)[0].detach(), QRLinear(3).double()
    optimiser = torch.optim.LBFGS(flow.parameters(), max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def loss():
        optimiser.zero_grad()
        error = (matrix_and_bias(flow)[0] - w).square().sum()
        error.backward()
        return error

    optimiser.step(loss)
    assert loss() < 1e-8


@pytest.mark.parametrize("dim", [1, 64])
def test_other_dimensions(dim):
    for make in KINDS.values():
        flow = away_from_the_start(make(dim), 0.05).float()
        x = torch.randn(10, dim)
        torch.testing.assert_close(flow.inverse_and_logdet(flow(x))[0], x, atol=1e-4, rtol=1e-4)


def test_bad_options():
    with pytest.raises((ValueError, TypeCheckError), match="glow"):  # the second while annotations are checked
        LULinear(3, start="glow")  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeCheckError), match="permutation"):
        QRLinear(3, start="permutation")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"QRLinear got reflections=\(0,\)"):
        QRLinear(3, reflections=0)
    with pytest.raises(ValueError, match=r"LULinear\(dim=3\) got a value of shape \(2, 4\)"):
        LULinear(3)(torch.randn(2, 4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("assign", [False, True])
def test_it_is_loaded_into_memory_that_was_not_set(kind, assign):
    flow, x = away_from_the_start(KINDS[kind](4)), torch.randn(5, 4, dtype=torch.float64)
    other = KINDS[kind](4).double().to("meta")
    other = other if assign else other.to_empty(device="cpu")
    for tensor in other.buffers():
        if not assign:
            tensor.fill_(0 if tensor.dtype == torch.int64 else torch.nan)
    other.load_state_dict(flow.state_dict(), assign=assign)
    assert torch.equal(other(x), flow(x))
    assert torch.equal(other.inverse_and_logdet(x)[0], flow.inverse_and_logdet(x)[0])
