# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Couplings change the elements outside their mask by what those inside say, with any mask and any network."""

import copy
import math
import pickle
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_dgm.nn import MLP, GatedMLP
from pyro_dgm.transforms.additive_coupling import AdditiveCoupling
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.rational_quadratic import RationalQuadratic
from pyro_dgm.transforms.spline_coupling import SplineCoupling

COUPLINGS = [AdditiveCoupling, AffineCoupling, SplineCoupling]
MASKS = [
    [True, False],
    [False, True],
    [False, False, True],
    [True, True, True, False],
    [False, True, True, False, False],
    [True, False, False, True, True, False, True],
]
small = partial(MLP, hidden=(16,), activation=nn.Tanh)


@torch.no_grad()
def stirred(flow, scale=0.5):
    """The flow with parameters of order 1, in double precision."""
    for parameter in flow.parameters():
        parameter.copy_(scale * torch.randn(parameter.shape))
    return flow.double()


def data(*shape):
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_any_mask_keeps_what_it_says_and_the_log_det_is_that_of_the_jacobian(coupling, mask):
    flow = stirred(coupling(len(mask), mask=mask, net=small))
    x = data(6, len(mask))
    y, logdet = flow.forward_and_logdet(x)
    back, logdet_back = flow.inverse_and_logdet(y)
    jacobian = torch.vmap(torch.func.jacrev(lambda x: flow.forward_and_logdet(x)[0]))(x)
    kept = torch.tensor(mask)
    assert y[:, kept].equal(x[:, kept])
    assert (y != x)[:, ~kept].all()
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(logdet_back, -logdet, rtol=0, atol=1e-9)
    torch.testing.assert_close(logdet, jacobian.slogdet().logabsdet, rtol=0, atol=1e-9)
    among_moved = jacobian[:, ~kept][:, :, ~kept]
    assert (among_moved * (1 - torch.eye(len(among_moved[0]), dtype=torch.float64)) == 0).all()
    assert jacobian[:, ~kept][:, :, kept].ne(0).any()


def test_without_a_mask_the_first_half_is_kept():
    x, flow = data(4, 5), stirred(AdditiveCoupling(5, net=small))
    assert (flow(x) == x).tolist() == [[True, True, False, False, False]] * 4


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_affine_coupling_is_real_nvp_element_by_element(mask):
    flow = stirred(AffineCoupling(len(mask), mask=mask, net=small, bound=2))
    x = data(5, len(mask))
    y, logdet = flow.forward_and_logdet(x)
    for n in range(5):
        seen = torch.stack([x[n, i] for i, kept in enumerate(mask) if kept])
        raw, total = iter(flow.net(seen).tolist()), 0.0
        for i, kept in enumerate(mask):
            expected = x[n, i].item()
            if not kept:
                r, shift = next(raw)
                log_scale = 2 * math.tanh(r / 2)
                expected = expected * math.exp(log_scale) + shift
                total += log_scale
            assert y[n, i].item() == pytest.approx(expected, rel=1e-12)
        assert logdet[n].item() == pytest.approx(total, rel=1e-12)


def test_additive_coupling_adds_and_preserves_volume():
    flow, x = stirred(AdditiveCoupling(4, mask=[True, True, False, False], net=small)), data(3, 4)
    y, logdet = flow.forward_and_logdet(x)
    torch.testing.assert_close(y[:, 2:], x[:, 2:] + flow.net(x[:, :2]).squeeze(-1))
    assert logdet.equal(torch.zeros(3, dtype=torch.float64))


def test_spline_coupling_bends_by_splines():
    flow, x = stirred(SplineCoupling(4, mask=[True, True, False, False], net=small, bins=5, bound=2)), data(3, 4)
    y, logdet = flow.forward_and_logdet(x)
    bent, log_slopes = RationalQuadratic(5, 2).forward_and_logdet(x[:, 2:], flow.net(x[:, :2]))
    assert y.equal(torch.cat([x[:, :2], bent], 1))
    torch.testing.assert_close(logdet, log_slopes.sum(1))


@pytest.mark.parametrize("context_dim", [None, 3])
@pytest.mark.parametrize("net", [MLP, GatedMLP, partial(MLP, hidden=())])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_new_coupling_is_the_identity(coupling, net, context_dim):
    flow = coupling(4, context_dim=context_dim, net=net)
    flow = flow if context_dim is None else flow.condition(torch.randn(7, 3))
    x = torch.randn(7, 4)
    y, logdet = flow.forward_and_logdet(x)
    assert y.equal(x)
    assert logdet.equal(torch.zeros(7))


@pytest.mark.parametrize("mask", [None, [False] * 4, [True, False, False, False]])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_every_datum_is_mapped_with_its_own_context(coupling, mask):
    flow = stirred(coupling(4, context_dim=2, mask=mask, net=small))
    x, context = data(3, 5, 4), data(5, 2)
    y, logdet = flow.condition(context).forward_and_logdet(x)
    assert logdet.shape == (3, 5)
    for k in range(3):
        for b in range(5):
            one, log_one = flow.condition(context[b]).forward_and_logdet(x[k, b])
            torch.testing.assert_close(one, y[k, b])
            torch.testing.assert_close(log_one, logdet[k, b])
    torch.testing.assert_close(flow.condition(context).inverse_and_logdet(y)[0], x, rtol=0, atol=1e-10)
    other = flow.condition(context.roll(1, 0)).forward_and_logdet(x)[0]
    assert (other != y).any(0).any(0).tolist() == [value is False for value in mask or [True, True, False, False]]


def test_with_a_context_a_mask_may_keep_nothing():
    flow = stirred(AffineCoupling(3, context_dim=2, mask=[False] * 3, net=small))
    x, context = data(6, 3), data(6, 2)
    jacobian = torch.vmap(torch.func.jacrev(lambda x, h: flow.condition(h).forward_and_logdet(x)[0]))(x, context)
    assert jacobian.equal(torch.diag_embed(jacobian.diagonal(dim1=1, dim2=2)))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_gradients_reach_every_parameter_and_the_context(coupling):
    flow = stirred(coupling(3, context_dim=2, net=small))
    x, context = data(4, 3).requires_grad_(), data(4, 2).requires_grad_()
    for direction in ("forward_and_logdet", "inverse_and_logdet"):
        y, logdet = getattr(flow.condition(context), direction)(x)
        of = (y.square().sum() + logdet.sum()).clone()
        gradients = torch.autograd.grad(of, [x, context, *flow.parameters()])
        assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert torch.autograd.gradcheck(lambda x, h: flow.condition(h).inverse_and_logdet(x), (x, context))


@pytest.mark.parametrize("dim", [2, 5])
def test_the_factory_is_asked_for_the_right_shapes(dim):
    asked = []

    def net(in_shape, out_shape):
        asked.append((in_shape, out_shape))
        return MLP(in_shape, out_shape)

    kept = dim // 2
    AdditiveCoupling(dim, net=net)
    AffineCoupling(dim, net=net, context_dim=7)
    SplineCoupling(dim, net=net, bins=4)
    assert asked == [((kept,), (dim - kept, 1)), ((kept + 7,), (dim - kept, 2)), ((kept,), (dim - kept, 11))]


class Wave(nn.Module):
    """A network that ends in no linear layer."""

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.out_shape = out_shape
        self.inside = nn.Linear(in_shape[0], 1)

    def forward(self, x):
        return torch.sin(self.inside(x)).unsqueeze(-1).expand(*x.shape[:-1], *self.out_shape)


def test_a_network_that_ends_otherwise_is_left_as_it_is():
    flow = AffineCoupling(4, net=Wave)
    assert flow.net.inside.weight.any()
    x = torch.randn(5, 4)
    torch.testing.assert_close(flow.inv(flow(x)), x)


def test_the_mask_is_saved_with_the_parameters():
    mask = [False, True, False, False, True]
    flow = stirred(AffineCoupling(5, mask=mask, net=small))
    other = AffineCoupling(5, net=small).double()
    other.load_state_dict(flow.state_dict())
    x = data(3, 5)
    expected = flow.forward_and_logdet(x)
    for again in (other, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        torch.testing.assert_close(again.forward_and_logdet(x), expected)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_it_stands_in_a_transformed_distribution(coupling):
    flow = stirred(coupling(3, net=small)).float()
    base = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    law = dist.TransformedDistribution(base, [flow])
    y = law.rsample((6,))
    x, logdet = flow.inverse_and_logdet(y)
    torch.testing.assert_close(law.log_prob(y), base.log_prob(x) + logdet, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_it_traces_without_a_device_and_in_one_graph(coupling):
    flow = stirred(coupling(4, net=small))
    x = data(2, 3, 4)
    nowhere = copy.deepcopy(flow).to("meta").forward_and_logdet(x.to("meta"))
    assert [value.shape for value in nowhere] == [(2, 3, 4), (2, 3)]
    for direction in ("forward_and_logdet", "inverse_and_logdet"):
        function = getattr(flow, direction)
        torch.compiler.reset()  # each test before counts as one more recompilation of the same lines
        torch.testing.assert_close(torch.compile(function, fullgraph=True, backend="eager")(x), function(x))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_far_and_wild_values_stay_finite_in_single_precision(coupling):
    flow = stirred(coupling(4, net=small), scale=10.0).float()
    x = torch.cat([torch.randn(50, 4), 1e3 * torch.randn(50, 4)]).requires_grad_()
    for direction in ("forward_and_logdet", "inverse_and_logdet"):
        y, logdet = getattr(flow, direction)(x)
        gradients = torch.autograd.grad(y.sum() + logdet.sum(), [x, *flow.parameters()], allow_unused=True)
        assert all(value.isfinite().all() for value in (y, logdet, *(g for g in gradients if g is not None)))


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize(
    ("dim", "mask", "message"),
    [
        (3, [True, False], r"of 2 values: it needs 3, .* as in mask=\[i % 2 == 0 for i in range\(3\)\]"),
        (3, [], r"of 0 values: it needs 3"),
        (2, [True, True], r"that leaves nothing to transform: .* as in mask=\[i % 2 == 0 for i in range\(2\)\]"),
        (1, None, r"that leaves nothing to condition on: .* as in mask=\[False\] together with a context_dim"),
        (2, [False, False], r"that leaves nothing to condition on: .*, as in mask=\[i % 2 == 0 for i in range\(2\)\]"),
        (1, [False], r"that leaves nothing to condition on: .* together with a context_dim"),
    ],
)
def test_masks_that_cannot_be_are_named(coupling, dim, mask, message):
    with pytest.raises(ValueError, match=rf"{coupling.__name__}\(dim={dim}\) got a mask {message}"):
        coupling(dim, mask=mask)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_other_bad_input_is_named(coupling):
    name = coupling.__name__
    with pytest.raises(ValueError, match=rf"{name} got dim=\(0,\)"):
        coupling(0)
    with pytest.raises(ValueError, match=rf"{name}\(dim=4\) got a value of shape \(2, 3\)"):
        coupling(4)(torch.randn(2, 3))
    with pytest.raises(ValueError, match=r"takes no context"):
        coupling(4).condition(torch.randn(2, 3))
    with pytest.raises(ValueError, match=r"its last size 5"):
        coupling(4, context_dim=5).condition(torch.randn(2, 3))
    with pytest.raises(ValueError, match=r"condition\(context\)"):
        coupling(4, context_dim=5)(torch.randn(2, 4))


def test_options_of_the_maps_are_checked():
    with pytest.raises(ValueError, match="bound=-1.0"):
        AffineCoupling(2, bound=-1)
    with pytest.raises(ValueError, match="bins=1"):
        SplineCoupling(2, bins=1)
