# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""On images, ActNorm has a scale and a shift for each channel, and every pixel counts as a row of data."""

import copy
import pickle

import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.transforms.act_norm import ActNorm
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.invert import Invert

SHAPE = (3, 4, 5)
MEANS = torch.tensor([3.0, -200.0, 0.01]).double()[:, None, None]
SCALES = torch.tensor([5.0, 1e-3, 40.0]).double()[:, None, None]
close = torch.testing.assert_close


def data(*batch):
    return MEANS + SCALES * torch.randn(*batch, *SHAPE, dtype=torch.float64)


def new():
    return ActNorm(SHAPE).double()


def standard(x):
    """Whether every channel has mean 0 and variance 1 over all leading dimensions and pixels."""
    rows = x.detach().movedim(-3, -1).reshape(-1, x.shape[-3])
    return bool((rows.mean(0).abs() < 1e-8).all() and ((rows.var(0, correction=0) - 1).abs() < 1e-8).all())


def test_a_channel_has_one_scale_and_one_shift():
    flow, x = new(), data(7)
    assert (flow.log_scale.shape, flow.shift.shape) == ((3, 1, 1), (3, 1, 1))
    with torch.no_grad():
        flow.log_scale.copy_(torch.tensor([0.5, -1, 2])[:, None, None])
        flow.shift.copy_(torch.tensor([1.0, 2, 3])[:, None, None])
    y, logdet = flow.eval().forward_and_logdet(x)
    close(y[:, 1], x[:, 1] / torch.e + 2)
    close(logdet, torch.full((7,), 20 * 1.5).double())
    close(flow.inverse_and_logdet(y), (x, -logdet))


@pytest.mark.parametrize("batch", [(6,), (2, 3), (1,), ()], ids=str)
def test_the_first_batch_leaves_whitened_in_the_direction_in_which_it_came(batch):
    """A single image too: it has many pixels."""
    x = data(*batch)
    assert standard(new()(x))
    assert standard(new().inv(x))
    assert standard(Invert(new())(x))
    with torch.no_grad():
        assert standard(new().inv(x))
    strided = x.movedim(-3, -1).contiguous().movedim(-1, -3)
    close(new()(strided), new()(x))


def test_scoring_a_distribution_initialises_it_and_the_density_is_right():
    flow, x = new(), data(20)
    normal = dist.Normal(torch.zeros(SHAPE).double(), 1.0).to_event(3)
    log_prob = dist.TransformedDistribution(normal, [flow]).log_prob(x)
    mean, scale = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), correction=0, keepdim=True)
    close(log_prob, dist.Normal(mean, scale).log_prob(x).sum((-3, -2, -1)))
    log_prob.sum().backward()
    assert flow.log_scale.grad.abs().max() < 1e-6  # the likelihood's maximum


def test_it_happens_once_and_each_of_a_stack_meets_what_reaches_it():
    flow = Compose([ActNorm(SHAPE), AffineCoupling(SHAPE), ActNorm(SHAPE)]).double()
    with torch.no_grad():
        for parameter in flow.flows[1].parameters():
            parameter.normal_(std=0.1)
    x, far = data(50), 7 * data(50)
    assert standard(flow.inverse_and_logdet(x)[0])
    before = copy.deepcopy(flow.state_dict())
    flow.inverse_and_logdet(far)
    flow.forward_and_logdet(far)
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())


def test_a_copy_does_not_begin_anew():
    flow, loaded = new(), new()
    shared = flow.with_cache(0)  # it shares the parameters, and is made before
    flow(data(5))
    loaded.load_state_dict(flow.state_dict())
    far = 7 * data(5)
    for again in (shared, loaded, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(again(far), flow(far))


@pytest.mark.parametrize("case", ["evaluation mode", "one pixel", "no images", "not finite", "torch.func"])
def test_what_does_not_initialise(case):
    shape = (3, 1, 1) if case == "one pixel" else SHAPE
    flow = ActNorm(shape).double().train(case != "evaluation mode")
    x = {"one pixel": data(1)[..., :1, :1], "no images": data(0)}.get(case, data(4))
    if case == "torch.func":
        torch.func.vmap(flow.forward_and_logdet)(x)
    else:
        x = x / 0 if case == "not finite" else x
        close(flow(x), x, equal_nan=True)
    assert not flow.initialized
    flow.train()
    assert standard(flow(data(4)[..., : shape[1], : shape[2]]))


def test_a_channel_that_does_not_vary_is_centred_only():
    for constant in (0.0, 0.1, -1e6):
        flow, x = ActNorm(SHAPE), torch.randn(1001, *SHAPE)
        x[:, 1] = constant
        y, logdet = flow.forward_and_logdet(x)
        assert y[:, 1].abs().max() <= 1e-6 * abs(constant)
        close(logdet[0], -20 * x[:, [0, 2]].std((0, 2, 3), correction=0).log().sum(), rtol=1e-4, atol=1e-4)


def test_initialize_by_hand():
    x = data(6)
    for inverse in (False, True):
        flow = new().eval()
        flow.initialize(x, inverse=inverse)
        assert standard(flow.inv(x) if inverse else flow(x))
    flow.initialize(x[0])
    assert standard(flow(x[0]))
    for bad, shape in ((x[..., :1, :1][:1], (3, 1, 1)), (x * torch.inf, SHAPE)):
        with pytest.raises(ValueError, match=r"ActNorm\(\(3, ., .\)\).initialize got data .* \(of images: pixels"):
            ActNorm(shape).double().initialize(bad)


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_a_context_adds_to_what_the_data_said(direction):
    flow, x, h = ActNorm(SHAPE, context_dim=4).double(), data(50), torch.randn(50, 4, dtype=torch.float64)
    y = getattr(flow.condition(h), direction)(x)[0]
    assert (y.mean((0, 2, 3)).abs() < 0.1).all()
    x = torch.randn(2, 3, *SHAPE, dtype=torch.float64, requires_grad=True)
    h = h[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, h: getattr(flow.condition(h), direction)(x), (x, h))


def test_after_initialisation_no_call_asks_the_device(monkeypatch):
    flow, x = new(), data(5)
    flow(x)

    def refuse(self):
        raise AssertionError("asked the device")

    monkeypatch.setattr(torch.Tensor, "__bool__", refuse)
    monkeypatch.setattr(torch.Tensor, "item", refuse)
    flow(data(5))
    flow.inverse_and_logdet(data(5))


def test_processes_start_from_the_moments_over_all(monkeypatch):
    """They may have batches of different sizes, or of a single image."""
    x = data(10)
    mine, theirs = x[:1], x[1:]
    sums = [
        torch.cat([theirs.sum((0, 2, 3)), torch.tensor([9 * 20.0]).double()]),
        (theirs - x.mean((0, 2, 3), keepdim=True)).square().sum((0, 2, 3)),
    ]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(sums.pop(0)))
    flow = new()
    flow(mine)
    assert not sums
    assert standard(flow(x))


@pytest.mark.parametrize("shape", [(4, 4), (1, 2, 3, 4)], ids=str)
def test_other_shapes_are_named(shape):
    with pytest.raises(ValueError, match=r"ActNorm got shape=\(.*: it needs a number of dimensions, or \(C, H, W\)"):
        ActNorm(shape)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_moments_are_single(dtype):
    """70000 pixels are more than a number of 16 bits counts, and their squares add up to more than it holds."""
    flow, x = ActNorm((1, 100, 100)).to(dtype), (3 + 40 * torch.randn(7, 1, 100, 100)).to(dtype)
    y, _ = flow.inverse_and_logdet(x)
    assert flow.initialized
    assert flow.log_scale.dtype == flow.shift.dtype == y.dtype == dtype
    assert abs(y.float().mean()) < 0.02
    assert abs(y.float().std() - 1) < 0.02
    near = ActNorm(2).to(dtype)  # a mean far from 0 is no lack of variation
    near(torch.tensor([[99.0, 5.0], [101.0, 5.0]], dtype=dtype))
    assert near.log_scale.tolist() == [0.0, 0.0]
    assert near.shift.tolist() == [-100.0, -5.0]
