# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Point masses in a guide have no score: where they depend on parameters, what would leave it out refuses them."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from torch import nn

from pyro_dgm.infer import CUBO, ELBO, IWAE, MIWAE, PIWAE, AutoFlow, ReweightedWakeSleep
from pyro_dgm.transforms import AffineCoupling
from tests.oracles import agree, gradients

X = torch.tensor([-0.8, 0.3, 1.9], dtype=torch.float64)
KINDS = ("its density", "its place", "all", "events", "masked", "nothing", "an earlier sample")


class Shifted(nn.Module):
    """A normal posterior made by hand: an auxiliary normal, moved and stretched into a point mass with its density."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.loc = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor(-0.3, dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def point(self, e, x):
        place, density = self.loc * x + self.log_scale.exp() * e, -self.log_scale.expand(e.shape)
        if self.kind == "nothing":
            return dist.Delta(torch.zeros_like(e))
        if self.kind == "an earlier sample":
            return dist.Delta(0.5 * e, log_density=torch.full_like(e, 0.5).log().neg() + 0 * e)
        if self.kind == "masked":
            return dist.Delta(place, log_density=density).mask(mask=True)
        if self.kind == "events":
            return dist.Delta(place.unsqueeze(-1), log_density=density.unsqueeze(-1)).to_event(1)
        place, density = {
            "its density": (e, density),
            "its place": (place, torch.zeros_like(e)),
            "all": (place, density),
        }[self.kind]
        return dist.Delta(place, log_density=density)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc = self.loc if self.kind == "an earlier sample" else 0.0
            e = pyro.sample("e", dist.Normal(loc + 0 * x, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", self.point(e, x))


REFUSING = {
    "ELBO, stl": ELBO(1, gradient="stl"),
    "ELBO, dreg": ELBO(3, gradient="dreg"),
    "IWAE, stl": IWAE(3, gradient="stl"),
    "IWAE, dreg": IWAE(3, gradient="dreg"),
    "CUBO": CUBO(3),
    "CUBO, dreg": CUBO(3, gradient="dreg"),
    "ReweightedWakeSleep": ReweightedWakeSleep(3),
    "ReweightedWakeSleep, dreg": ReweightedWakeSleep(3, gradient="dreg"),
    "PIWAE, dreg": PIWAE(4, gradient="dreg"),
}


@pytest.mark.parametrize("kind", KINDS[:5])
@pytest.mark.parametrize("name", REFUSING)
def test_a_point_mass_that_is_learned_is_refused(name, kind):
    pair = Shifted(kind)
    if kind == "events":
        pair.model = wide
    with pytest.raises(ValueError, match=r"point masses, \['z'\].*gradient=\"total\""):
        REFUSING[name].differentiable_loss(pair.model, pair.guide, X)
    assert REFUSING[name].loss(pair.model, pair.guide, X).isfinite()  # no gradient is wanted


def wide(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x.unsqueeze(-1))


@pytest.mark.parametrize("kind", KINDS[5:])
@pytest.mark.parametrize("name", REFUSING)
def test_a_point_mass_that_is_not_learned_is_let_be(name, kind):
    pair = Shifted(kind)
    assert REFUSING[name].differentiable_loss(pair.model, pair.guide, X).isfinite()


@pytest.mark.parametrize("name", REFUSING)
def test_an_automatic_point_is_refused(name):
    model = Shifted("all").model
    guide = AutoDelta(model)
    guide(X)
    with pytest.raises(ValueError, match=r"point masses, \['z'\]"):
        REFUSING[name].differentiable_loss(model, guide, X)


@pytest.mark.parametrize("bound", [ELBO(1), IWAE(4), MIWAE(4), PIWAE(4), IWAE(4, gradient="vimco")])
def test_the_plain_derivative_takes_every_point_mass(bound):
    """Through the density of a point mass it learns what a normal distribution would."""
    by_hand, found = Shifted("all"), {}

    class Normal:
        model = by_hand.model

        @staticmethod
        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(by_hand.loc * x, by_hand.log_scale.exp()))

    parameters = [by_hand.loc, by_hand.log_scale]
    for name, pair in (("by hand", by_hand), ("normal", Normal)):
        torch.manual_seed(0)
        found[name] = gradients(bound, pair, parameters, X, rounds=1, copies=100)
    assert torch.allclose(found["by hand"], found["normal"], rtol=1e-8)


@pytest.mark.parametrize(("bound", "gradient"), [(partial(ELBO, 2), "stl"), (partial(IWAE, 3), "dreg")])
@pytest.mark.parametrize("automatic", [AutoNormal, AutoDiagonalNormal, partial(AutoFlow, flow=AffineCoupling)])
def test_automatic_guides_have_a_path(automatic, bound, gradient):
    """Their points depend on an auxiliary variable alone, whose score is one."""

    def model(x):
        scale = pyro.sample("scale", dist.LogNormal(x.new_zeros(()), 1.0))
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(mean, scale), obs=x)

    guide = automatic(model)
    guide(X)

    class Pair:
        pass

    Pair.model, Pair.guide = staticmethod(model), staticmethod(guide)
    parameters = list(guide.parameters())
    path, plain = (
        gradients(bound(gradient=way, max_plate_nesting=1), Pair, parameters, X, copies=1, rounds=120)
        for way in (gradient, "total")
    )
    assert agree(path, plain)
