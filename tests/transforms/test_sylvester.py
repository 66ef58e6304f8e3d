# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The three Sylvester flows: against the formulas of the paper, autograd's Jacobian, and one another."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call

from pyro_dgm.transforms.householder_sylvester import HouseholderSylvester
from pyro_dgm.transforms.orthogonal_sylvester import OrthogonalSylvester
from pyro_dgm.transforms.triangular_sylvester import TriangularSylvester

exact = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)

FORMS = {
    "O": partial(OrthogonalSylvester, bottleneck=2),
    "O (one direction)": partial(OrthogonalSylvester, bottleneck=1),
    "O (all directions)": partial(OrthogonalSylvester, bottleneck=4),
    "H": partial(HouseholderSylvester, reflections=3),
    "H (one reflection)": partial(HouseholderSylvester, reflections=1),
    "T": TriangularSylvester,
}
every_form = pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
every_depth = pytest.mark.parametrize("depth", [1, 2, 3])


@torch.no_grad()
def randomise(flow, scale=1.0):
    """N(0, scale^2) parameters, those that come from a context too."""
    for name, parameter in flow.named_parameters():
        parameter.normal_().mul_(scale / (parameter.shape[1] ** 0.5 if name.endswith("net.weight") else 1))
    return flow


def frame_of(flow, values, k):
    """Q of one map, as the paper has it."""
    if isinstance(flow, TriangularSylvester):
        eye = torch.eye(flow.dim, dtype=torch.float64)
        return eye.flip(0) if k % 2 else eye
    if isinstance(flow, HouseholderSylvester):
        q = torch.eye(flow.dim, dtype=torch.float64)
        for v in values[3][k]:
            q = q @ (torch.eye(flow.dim, dtype=torch.float64) - 2 * torch.outer(v, v) / v.dot(v))
        return q
    q = values[3][k] / values[3][k].norm()
    for _ in range(200):
        q = q @ (1.5 * torch.eye(q.shape[1], dtype=q.dtype) - 0.5 * q.T @ q)
    return q


def published(flow, x, values):
    """The maps one after the other, for one x and the values of one set of parameters; with log|det J|."""
    total = 0.0
    for k, (matrix, second, shift) in enumerate(zip(*values[:3], strict=True)):
        if isinstance(flow, TriangularSylvester) and k % 2:
            matrix, second, shift = matrix.flip(0, 1), second.flip(0), shift.flip(0)
        q = frame_of(flow, values, k)
        r1 = matrix.triu(1) + matrix.diagonal().tanh().diag()
        r2 = matrix.T.triu(1) + second.tanh().diag()
        t = torch.tanh(r2 @ q.T @ x + shift)
        total = total + torch.log(1 + (1 - t**2) * r1.diagonal() * r2.diagonal()).sum()
        x = x + q @ r1 @ t
    return x, total


@every_depth
@every_form
def test_learned_it_is_the_published_form(make, depth):
    flow = randomise(make(4, depth=depth)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    y, logdet = flow.forward_and_logdet(x)
    expected = [published(flow, row, flow.values(None)) for row in x]
    exact(y, torch.stack([y for y, _ in expected]))
    exact(logdet, torch.stack([logdet for _, logdet in expected]))


@pytest.mark.parametrize("more", [(), (3,)])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
@every_form
def test_amortised_it_is_one_learned_flow_for_each_context(make, batch, more):
    flow, learned = randomise(make(4, depth=3, context_dim=2)).double(), make(4, depth=3).double()
    context = torch.randn(*batch, 2, dtype=torch.float64)
    x = torch.randn(*more, *batch, 4, dtype=torch.float64)
    conditioned = flow.condition(context)
    y, logdet = conditioned.forward_and_logdet(x)
    back, inverse_logdet = conditioned.inverse_and_logdet(y)
    exact(back, x)
    exact(inverse_logdet, -logdet)
    rows = x.reshape(-1, max(len(context.flatten()) // 2, 1), 4)  # (more, batch, D)
    values = [value.reshape(-1, *shape) for value, shape in zip(flow.values(context), flow.values.shapes, strict=True)]
    for i in range(rows.shape[1]):
        own = {f"values.{name}": value[i] for name, value in zip(flow.values.names, values, strict=True)}
        one, its_logdet = functional_call(
            Run(learned), {f"flow.{name}": value for name, value in own.items()}, rows[:, i]
        )
        exact(y.reshape(rows.shape)[:, i], one)
        exact(logdet.reshape(rows.shape[:2])[:, i], its_logdet)


class Run(nn.Module):
    """A flow's direction as the call of a module, for `functional_call`."""

    def __init__(self, flow, direction="forward_and_logdet"):
        super().__init__()
        self.flow, self.direction = flow, direction

    def forward(self, x):
        return getattr(self.flow, self.direction)(x)


@pytest.mark.parametrize("dim", [1, 2, 7])
@every_depth
@pytest.mark.parametrize("make", [OrthogonalSylvester, HouseholderSylvester, TriangularSylvester])
def test_both_logdets_are_those_of_autograds_jacobian(make, dim, depth):
    flow = randomise(make(dim, depth=depth)).double()
    for direction in (flow.forward_and_logdet, flow.inverse_and_logdet):
        x = 2 * torch.randn(6, dim, dtype=torch.float64)
        jacobian = torch.func.vmap(torch.func.jacrev(lambda x, d=direction: d(x)[0]))(x)
        sign, expected = torch.linalg.slogdet(jacobian)
        assert (sign == 1).all()
        exact(direction(x)[1], expected)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize("scale", [0.1, 0.3])
@pytest.mark.parametrize(
    "make",
    [OrthogonalSylvester, partial(OrthogonalSylvester, bottleneck=32), HouseholderSylvester, TriangularSylvester],
)
def test_round_trips_in_64_dimensions(make, scale, dtype, error):
    flow = randomise(make(64, depth=4), scale).to(dtype)
    x = 2 * torch.randn(100, 64, dtype=dtype)
    with torch.no_grad():
        y, logdet = flow.forward_and_logdet(x)
        back, inverse_logdet = flow.inverse_and_logdet(y)
        there, _ = flow.forward_and_logdet(flow.inverse_and_logdet(x)[0])
    growth = 20 if scale == 0.3 and make is not OrthogonalSylvester else 1  # Jacobians of some thousands
    assert (back - x).abs().max() < growth * error
    assert (there - x).abs().max() < growth * error
    assert (logdet + inverse_logdet).abs().max() < growth * error


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
@pytest.mark.parametrize("depth", [1, 2])
@every_form
def test_gradients(make, depth, direction):
    flow = randomise(make(4, depth=depth)).double()
    names = [f"flow.{name}" for name, _ in flow.named_parameters()]
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def run(x, *values):
        return functional_call(Run(flow, direction), dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *(p.detach().clone().requires_grad_() for p in flow.parameters())))


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
@every_form
def test_gradients_of_a_context_and_its_network(make, direction):
    flow = randomise(make(4, context_dim=2, depth=2)).double()
    x, context = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    run = lambda x, context: getattr(flow.condition(context), direction)(x)  # noqa: E731
    assert torch.autograd.gradcheck(run, (x.requires_grad_(), context.requires_grad_()))
    y, logdet = run(x, context)
    (y.square().sum() + logdet.sum()).backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in flow.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_tanh_rounds_to_one_the_logdet_is_exact_and_the_inverse_finite(dtype):
    flow = TriangularSylvester(3).to(dtype)
    raw = torch.tensor([4.0, 6.0, 50.0], dtype=dtype)
    with torch.no_grad():
        flow.values.triangles.copy_(raw.diag())
        flow.values.diagonal.copy_(-raw)
        flow.values.shift.zero_()
    _, logdet = flow.forward_and_logdet(torch.zeros(3, dtype=dtype))
    floor = 8 * torch.finfo(dtype).eps  # 1 + r r~ = 1 / cosh(raw)^2 above it
    expected = (raw.double().cosh() ** -2 + floor).log().sum()
    torch.testing.assert_close(logdet.double(), expected, rtol=1e-6, atol=0)
    x = torch.tensor([[0.0, 0.0, 0.0], [1e-3, -1e-3, 1e-3], [1e3, -1.0, 1e-8]], dtype=dtype)
    y, logdet = flow.forward_and_logdet(x)
    back, inverse_logdet = flow.inverse_and_logdet(y)
    assert back.isfinite().all()
    assert inverse_logdet.isfinite().all()
    exact(flow.forward_and_logdet(back)[0], y, rtol=1e-6)


@pytest.mark.parametrize("context_dim", [None, 2])
def test_without_directions_the_orthogonal_one_still_has_the_right_logdet(context_dim):
    flow = randomise(OrthogonalSylvester(4, bottleneck=2, context_dim=context_dim)).double()
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if name.endswith("directions"):
                parameter.zero_()
            elif context_dim is not None:
                parameter[-8:] = 0
    x, context = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    transform = flow if context_dim is None else flow.condition(context)
    y, logdet = transform.forward_and_logdet(x)
    jacobian = torch.autograd.functional.jacobian(lambda x: transform.forward_and_logdet(x)[0].sum(0), x).movedim(1, 0)
    exact(logdet, torch.linalg.slogdet(jacobian)[1])
    assert (y != x).any()


@every_form
def test_before_training_it_is_near_the_identity_for_every_context(make):
    x, context = torch.randn(20, 4), 10 * torch.randn(20, 2)
    for transform in (make(4), make(4, context_dim=2).condition(context)):
        y, logdet = transform.forward_and_logdet(x)
        assert 1e-3 < (y - x).norm(dim=-1).mean() < 1
        assert logdet.abs().max() < 1


@every_form
def test_forward_runs_on_no_device(make):
    flow = make(4, depth=2, context_dim=2).to("meta")
    y, logdet = flow.condition(torch.empty(3, 2, device="meta")).forward_and_logdet(torch.empty(5, 3, 4, device="meta"))
    assert (y.shape, logdet.shape, y.device.type) == ((5, 3, 4), (5, 3), "meta")


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="got bottleneck=5: there are no more than 4"):
        OrthogonalSylvester(4, bottleneck=5)
    assert OrthogonalSylvester(4).values.directions.shape == (1, 4, 4)
    assert OrthogonalSylvester(64).values.directions.shape == (1, 64, 8)
    for make in (OrthogonalSylvester, HouseholderSylvester, TriangularSylvester):
        with pytest.raises(ValueError, match=r"got depth=\(0,\)"):
            make(4, depth=0)
        with pytest.raises(ValueError, match=r"got dim=\(0,\)"):
            make(0)
    with pytest.raises(ValueError, match=r"HouseholderSylvester got reflections=\(0,\)"):
        HouseholderSylvester(4, reflections=0)
