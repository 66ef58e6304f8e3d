# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Sticking the landing with flows: their samples' path goes through the inverse, and its mean is the plain gradient."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_dgm.distributions import FlowPosterior
from pyro_dgm.infer import ELBO, AutoFlow
from pyro_dgm.transforms import AffineCoupling, InverseAutoregressive, Planar, Stack
from tests.oracles import LinearGaussian, agree, gradients

FLOWS = {
    "AffineCoupling": AffineCoupling,
    "InverseAutoregressive": partial(InverseAutoregressive, hidden=(6,)),
    "Planar": partial(Planar, depth=2),
    "Stack": partial(Stack, flow=partial(InverseAutoregressive, hidden=(6,)), depth=2),
}


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_posterior_has_a_path(name):
    """An amortised flow as posterior of a linear Gaussian model: the path's mean is the plain derivative's."""
    oracle = LinearGaussian(latent=2)
    x = oracle.data(3)
    head = FlowPosterior(2, flow=FLOWS[name], context=3).double()
    net = nn.Linear(4, 6).double()
    for parameter in head.flow.parameters():
        nn.init.normal_(parameter, std=0.3)

    class Pair:
        model = staticmethod(oracle.model)

        @staticmethod
        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", head(net(x)))

    parameters = [*net.parameters(), *head.parameters()]
    plain = gradients(ELBO(2), Pair, parameters, x=x, copies=100, rounds=40)
    path = gradients(ELBO(2, gradient="stl"), Pair, parameters, x=x, copies=100, rounds=40)
    assert agree(path, plain)


def test_an_automatic_guide_has_a_path():
    x = torch.tensor([0.3, 1.2, -0.5])

    def model(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        every = dist.Normal(mean.unsqueeze(-1), scale.unsqueeze(-1)).expand((*mean.shape, 3))
        pyro.sample("x", every.to_event(1), obs=x)

    guide = AutoFlow(model, flow=AffineCoupling)
    guide(x)
    found = {}
    for gradient in ("total", "stl"):
        bound, rounds = ELBO(50, gradient=gradient), []
        for _ in range(60):
            loss = bound.differentiable_loss(model, guide, x)
            rounds.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(guide.parameters()))]))
        found[gradient] = torch.stack(rounds)
    assert agree(found["stl"], found["total"])
