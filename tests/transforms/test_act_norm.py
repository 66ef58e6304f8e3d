# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""ActNorm begins where data tell it to, once, in the direction in which they come."""

import copy
import pickle

import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.transforms.act_norm import ActNorm
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.invert import Invert

MEANS, SCALES = torch.tensor([3.0, -200.0, 0.01]).double(), torch.tensor([5.0, 1e-3, 40.0]).double()


def data(rows=200):
    return MEANS + SCALES * torch.randn(rows, 3, dtype=torch.float64)


def standard(x, atol=1e-8):
    """Whether every element has mean 0 and variance 1 over all leading dimensions."""
    rows = x.detach().reshape(-1, x.shape[-1])
    return bool((rows.mean(0).abs() < atol).all() and ((rows.var(0, correction=0) - 1).abs() < atol).all())


def test_the_first_batch_leaves_whitened_in_the_direction_in_which_it_came():
    x = data()
    assert standard(ActNorm(3).double()(x))
    assert standard(ActNorm(3).double().inv(x))
    assert standard(Invert(ActNorm(3).double())(x))
    assert standard(Invert(ActNorm(3).double()).inv(x))
    assert standard(ActNorm(3).double()(x.reshape(4, 50, 3)))  # particles count as rows
    with torch.no_grad():
        assert standard(ActNorm(3).double()(x))


def test_scoring_a_distribution_initialises_it_and_the_density_is_right():
    flow, x = ActNorm(3).double(), data()
    normal = dist.Normal(torch.zeros(3).double(), 1.0).to_event(1)
    log_prob = dist.TransformedDistribution(normal, [flow]).log_prob(x)
    expected = dist.Normal(x.mean(0), x.std(0, correction=0)).to_event(1).log_prob(x)
    torch.testing.assert_close(log_prob, expected)
    log_prob.sum().backward()  # what the parameters were before the first batch is no part of the graph
    assert flow.log_scale.grad.abs().max() < 1e-6  # the likelihood's maximum


def test_each_of_a_stack_meets_what_reaches_it():
    flow = Compose([ActNorm(3), AffineCoupling(3), ActNorm(3)]).double()
    with torch.no_grad():
        for parameter in flow.flows[1].parameters():
            parameter.normal_()
        x, _ = flow.inverse_and_logdet(data())
        assert standard(x)
        assert standard(flow.flows[2].inverse_and_logdet(data(5000))[0], atol=0.5)


def test_it_happens_once():
    flow = ActNorm(3).double()
    flow(data())
    before = copy.deepcopy(flow.state_dict())
    flow(10 * data())
    flow.inv(10 * data())
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())


@pytest.mark.parametrize("again", ["state_dict", "assign", "deepcopy", "pickle", "with_cache", "buffers"])
def test_a_copy_does_not_begin_anew(again):
    flow, x, other = ActNorm(3).double(), data(), ActNorm(3).double()
    if again == "with_cache":  # it shares the parameters, and is made before
        other = flow.with_cache(0)
    flow(x)
    if again in ("state_dict", "assign"):
        other.load_state_dict(copy.deepcopy(flow.state_dict()), assign=again == "assign")
    elif again == "deepcopy":
        other = copy.deepcopy(flow)
    elif again == "pickle":
        other = pickle.loads(pickle.dumps(flow))
    elif again == "buffers":  # as averages of weights and other processes are copied
        with torch.no_grad():
            for new, old in zip(other.state_dict().values(), flow.state_dict().values(), strict=True):
                new.copy_(old)
    far = 7 * data()
    assert torch.equal(other(far), flow(far))


def test_an_uninitialised_state_dict_is_still_to_meet_its_data():
    flow = ActNorm(3).double()
    flow(data())
    flow.load_state_dict(ActNorm(3).double().state_dict())
    assert standard(flow(data()))


@pytest.mark.parametrize("case", ["evaluation mode", "one row", "no rows", "not finite", "torch.func"])
def test_what_does_not_initialise(case):
    flow, x = ActNorm(3).double().train(case != "evaluation mode"), data()
    if case == "torch.func":
        torch.func.vmap(flow.forward_and_logdet)(x)
        torch.func.jacrev(lambda x: flow.forward_and_logdet(x)[0])(x[:4])
    else:
        x = {"one row": x[0], "no rows": x[:0], "not finite": x * torch.tensor([1.0, torch.nan, 1.0]).double()}.get(
            case, x
        )
        torch.testing.assert_close(flow(x), x, equal_nan=True)
    assert not flow.initialized
    flow.train()
    assert standard(flow(data()))


def test_an_element_that_does_not_vary_is_centred_only():
    for constant in (0.0, 0.1, -1e6):
        for dtype in (torch.float32, torch.float64):
            flow, x = ActNorm(2).to(dtype), torch.randn(1001, 2, dtype=dtype)
            x[:, 1] = constant
            y, logdet = flow.forward_and_logdet(x)
            assert y[:, 1].abs().max() <= 1e-6 * abs(constant)
            torch.testing.assert_close(logdet[0], -x[:, 0].std(correction=0).log())


def test_initialize_by_hand():
    x = data()
    for inverse in (False, True):
        flow = ActNorm(3).double().eval()
        flow.initialize(10 * x)
        flow.initialize(x, inverse=inverse)  # whatever was before
        assert standard(flow.inv(x) if inverse else flow(x))
        flow.train()
        flow(100 * x)
        assert standard(flow.inv(x) if inverse else flow(x))
    for bad in (x[0], x[:1], x * torch.inf):
        with pytest.raises(ValueError, match=r"ActNorm\(3\).initialize got data of shape .* two rows"):
            ActNorm(3).double().initialize(bad)


@pytest.mark.parametrize("direction", ["forward_and_logdet", "inverse_and_logdet"])
def test_a_context_adds_to_what_the_data_said(direction):
    flow, x, h = ActNorm(3, context_dim=4).double(), data(), torch.randn(200, 4, dtype=torch.float64)
    assert standard(getattr(flow.condition(h), direction)(x)[0], atol=0.05)
    h, x = h[:5].requires_grad_(), x[:5].requires_grad_()
    assert torch.autograd.gradcheck(lambda x, h: getattr(flow.condition(h), direction)(x), (x, h))
    y, logdet = flow.condition(h).forward_and_logdet(x)
    back, logdet_back = flow.condition(h).inverse_and_logdet(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(logdet_back, -logdet)


def test_after_initialisation_no_call_asks_the_device(monkeypatch):
    flow, x = ActNorm(3).double(), data()
    flow(x)

    def refuse(self):
        raise AssertionError("asked the device")

    monkeypatch.setattr(torch.Tensor, "__bool__", refuse)
    monkeypatch.setattr(torch.Tensor, "item", refuse)
    flow(data())
    flow.inverse_and_logdet(data())


def test_processes_start_from_the_moments_over_all(monkeypatch):
    x = data(100)
    mine, theirs = x[:30], x[30:]
    sums = [torch.cat([theirs.sum(0), torch.tensor([70.0]).double()]), (theirs - x.mean(0)).square().sum(0)]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(sums.pop(0)))
    flow = ActNorm(3).double()
    flow(mine)
    assert not sums
    assert standard(flow(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("default:The .grad attribute of a Tensor")  # the compiler looks at what is no leaf
def test_compiled_it_begins_likewise():
    flow, x = ActNorm(3).double(), data()
    torch.compiler.reset()
    compiled = torch.compile(flow.forward_and_logdet, backend="eager")
    assert standard(compiled(x)[0])
    assert flow.initialized
    torch.testing.assert_close(compiled(2 * x), flow.forward_and_logdet(2 * x))
