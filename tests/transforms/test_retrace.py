# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Between a pass that keeps nothing and its gradient anything may happen, and others may look into every operation."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceGraph_ELBO
from torch import nn

from pyro_dgm.transforms import AffineCoupling, Compose, Permute, Reversible
from tests.transforms.random_flows import randomise
from tests.transforms.reversible_flows import SMALL, both, close, data, flows, gradients, loss

# When something happens between a pass and its gradient.


def test_a_step_between_a_pass_and_its_gradient_is_an_error():
    _, flow = both()
    value = loss(flow, data(5))
    with torch.no_grad():
        flow.flows[1].values.bias.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_a_change_of_mode_in_between_changes_nothing():
    flow = Reversible(flows().parts).eval()
    value = loss(flow, data(5))
    flow.train()
    value.backward()
    assert not any(part.initialized for part in flow.parts[2::3])
    assert all(module.training for module in flow.modules())


def test_weights_that_were_lent_for_a_pass_get_the_gradient():
    plain, flow = both()
    lent = {name: value.detach() + 0.1 for name, value in flow.named_parameters()}
    results = []
    for one in (plain, flow):
        copies = {name: (1 * value.requires_grad_()) for name, value in lent.items()}
        x = torch.func.functional_call(_Loss(one), {f"flow.{name}": v for name, v in copies.items()}, data(5) * 0 + 0.5)
        results.append(torch.autograd.grad(x, list(lent.values())))
    close(*results)


class _Loss(nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, y):
        return loss(self.flow, y)


def test_saved_tensors_may_be_moved_and_the_gradient_asked_twice():
    plain, flow = both()
    y = data(5)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        value = loss(flow, y)
    expected = gradients(plain, loss(plain, y))
    close(torch.autograd.grad(value, list(flow.parameters()), retain_graph=True), expected)
    close(gradients(flow, value), expected)


def test_a_gradient_inside_autocast_is_in_full_precision():
    plain, flow = (f.float() for f in both())
    results = []
    for one in (plain, flow):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(one, torch.full((5, 4), 0.5))
            results.append(gradients(one, value) if one is flow else None)
        results[-1] = results[-1] or gradients(one, value)
    torch.testing.assert_close(*results)


def test_a_gradient_of_a_gradient_is_an_error():
    _, flow = both()
    (grad,) = torch.autograd.grad(loss(flow, y := data(5).requires_grad_()), y, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


# Under those who look into every operation it is a plain Compose.


def test_torch_func():
    plain, flow = both()
    y, hessians = data(3), []
    for one in (plain, flow):
        gradient = torch.func.jacrev(lambda y, one=one: one.inverse_and_logdet(y)[1].sum())
        hessians.append((gradient(y), torch.func.jacrev(gradient)(y)))
    close(*hessians)
    close(torch.func.vmap(flow.forward_and_logdet)(y), plain.forward_and_logdet(y))


def test_compile_gives_one_graph():
    steps = [AffineCoupling(4, net=SMALL), Permute.reverse(4), AffineCoupling(4, net=SMALL)]
    plain = randomise(Compose(steps), 0.3).double()
    flow = Reversible(steps)
    compiled = torch.compile(lambda y: loss(flow, y), backend="aot_eager", fullgraph=True)
    close(gradients(flow, compiled(y := data(5))), gradients(plain, loss(plain, y)))


def test_without_gradients_there_is_no_graph():
    plain, flow = both()
    with torch.no_grad():
        value, logdet = flow.forward_and_logdet(data(5))
    assert not value.requires_grad
    assert not logdet.requires_grad


# In Pyro.


def test_in_a_guide_with_marked_tensors():
    """TraceGraph_ELBO marks what depends on a draw that has no reparametrised gradient."""
    plain, flow = both(context_dim=2)

    def model():
        n = pyro.sample("n", dist.Poisson(3.0))
        z = pyro.sample("z", dist.Normal(n, 1).expand([4]).to_event(1).mask(mask=True))
        pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=torch.tensor(1.0).double())

    def guide(flow):
        pyro.module("flow", flow)
        n = pyro.sample("n", dist.Poisson(torch.tensor(3.0).double()))
        h = torch.stack([n, n]).double() / 3
        base = dist.Normal(torch.zeros(4).double(), 1.0).to_event(1)
        pyro.sample("z", dist.ConditionalTransformedDistribution(base, [flow]).condition(h))

    results = []
    for one in (plain, flow):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        one.zero_grad()
        value = TraceGraph_ELBO().loss_and_grads(model, partial(guide, one))
        results.append([torch.tensor(value), *(parameter.grad.clone() for parameter in one.parameters())])
    close(*results)


# Over processes.


PROCESS = """
import sys, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from pyro_dgm.nn import ConvNet
from pyro_dgm.transforms import ActNorm, AffineCoupling, Compose, Invert, InvertibleConv1x1, Reversible, Squeeze

class Score(nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, y):
        x, logdet = self.flow.inverse_and_logdet(y)
        return (x.square().sum((-3, -2, -1)) / 2 - logdet).mean()

def net(*shapes):
    return ConvNet(*shapes, hidden=(6,), kernels=(3, 3), activation=nn.Tanh)

def stack(kind):
    torch.manual_seed(0)
    shape = (4, 2, 2)
    steps = [AffineCoupling(shape, net=net), Invert(InvertibleConv1x1(shape)), ActNorm(shape)]
    steps += [AffineCoupling(shape, net=net, swap=True), ActNorm(shape), Invert(Squeeze((1, 4, 4)))]
    for part in steps[::3]:
        for parameter in part.parameters():
            nn.init.normal_(parameter, std=0.3)
    return Score(kind(steps)).double()

rank, data = int(sys.argv[1]), 3 + 5 * torch.randn(10, 1, 4, 4, dtype=torch.float64, generator=torch.Generator())
distributed.init_process_group("gloo", store=distributed.FileStore(sys.argv[2], 2), rank=rank, world_size=2)
model = DistributedDataParallel(stack(Reversible))
for _ in range(2):
    model(data[rank::2]).backward()
distributed.destroy_process_group()
alone = stack(Compose)
for _ in range(2):
    alone(data).backward()
for found, expected in zip(model.module.parameters(), alone.parameters(), strict=True):
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.grad, expected.grad)
"""


@pytest.mark.slow
def test_processes_have_the_gradient_of_all_data(tmp_path):
    """Every ActNorm of a stack starts from all of the first batch, and gradients are those of one process."""
    command = [sys.executable, "-c", PROCESS]
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen([*command, rank, str(tmp_path / "store")], cwd=root) for rank in "01"]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
