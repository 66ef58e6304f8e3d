# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Glow in Pyro's distributions and programs: scored, sampled colder, given a class, and trained on digits."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_dgm.nn import ConvNet
from pyro_dgm.transforms.glow import Glow
from tests.transforms.image_flows import digits, images, stirred

close = torch.testing.assert_close
small = partial(ConvNet, hidden=(8, 8), activation=nn.Tanh)
SmallGlow = partial(Glow, scales=2, depth=2, net=small)


def test_it_is_a_site_that_is_scored_and_sampled():
    flow, x = SmallGlow((1, 8, 8), scales=1), digits(100)

    def model(x=None, size=1):
        pyro.module("glow", flow)
        with pyro.plate("data", size if x is None else len(x)):
            return pyro.sample("x", images(flow), obs=x)

    svi = SVI(model, lambda x: None, pyro.optim.Adam({"lr": 3e-3}), Trace_ELBO())
    losses = [svi.step(x) / len(x) for _ in range(30)]
    assert losses[-1] < losses[0] - 5
    flow.eval()
    assert svi.evaluate_loss(x) == pytest.approx(-images(flow).log_prob(x).sum().item(), rel=1e-4)
    assert model(size=7).shape == (7, 1, 8, 8)


def test_a_sample_is_scored_without_running_a_network_again():
    flow, calls = stirred(SmallGlow((1, 8, 8)), digits).eval(), []
    nets = [module for module in flow.modules() if isinstance(module, ConvNet)]
    for net in nets:
        net.register_forward_hook(lambda *_: calls.append(1))
    x = images(flow).rsample((2, 5))
    log_prob = images(flow).log_prob(x)
    assert len(calls) == len(nets) == 5
    assert (x.shape, log_prob.shape) == ((2, 5, 1, 8, 8), (2, 5))
    close(log_prob, images(flow).log_prob(x.clone()))


def test_temperature_scales_the_noise_of_samples():
    flow = stirred(SmallGlow((1, 8, 8)), digits)
    torch.manual_seed(1)
    cold = images(flow, 0.5).sample((4,))
    torch.manual_seed(1)
    close(cold, flow(0.5 * dist.Normal(torch.zeros(flow.dim).double(), 1.0).sample((4,))))
    assert images(flow, 0.01).sample((50,)).std(0).mean() < 0.1 * images(flow).sample((50,)).std(0).mean()


def test_classes_have_images_of_their_own():
    flow, x = SmallGlow((1, 8, 8), context_dim=10), torch.randn(5, 1, 8, 8)
    law = dist.ConditionalTransformedDistribution(dist.Normal(torch.zeros(64), 1.0).to_event(1), [flow])
    classes = torch.eye(10)
    with torch.no_grad():
        law.condition(classes[:5]).log_prob(digits(5))
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    flow.eval()
    log_prob = law.condition(classes[:5]).log_prob(x)
    for i in range(5):
        close(law.condition(classes[i]).log_prob(x[i]), log_prob[i], rtol=1e-4, atol=1e-3)
    assert (law.condition(classes[5:]).log_prob(x) - log_prob).abs().min() > 0.01
    assert law.condition(classes).rsample((3,)).shape == (3, 10, 1, 8, 8)
    assert [part.context_dim for part in (*flow.splits, flow.top)] == [10, 10]


def test_trained_on_digits_it_inverts_its_own_samples_in_single_precision():
    flow = Glow((1, 8, 8), scales=2, depth=4, net=partial(ConvNet, hidden=(32, 32)))
    with torch.no_grad():
        first = -images(flow).log_prob(digits(500)).mean()
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-3)
    for _ in range(200):
        loss = -images(flow).log_prob(digits(16)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert -images(flow).log_prob(digits(500)).mean() < first - 10
        noise = torch.randn(500, 64)
        x, logdet = flow.forward_and_logdet(noise)
        back, inverse_logdet = flow.inverse_and_logdet(x)
    close(back, noise, rtol=0, atol=1e-4)
    close(flow(back), x, rtol=0, atol=1e-4)
    close(inverse_logdet, -logdet, rtol=0, atol=1e-3)
