# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A posterior of any flow: its bounds stay below log p(x), and it finds the true posterior where it can."""

import copy
import pickle
from functools import partial

import pyro
import pytest
import torch
from pyro.distributions import transforms as stock
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import nn

from pyro_dgm.distributions import DiagonalNormal, FlowPosterior
from pyro_dgm.evaluate import active_units, elbo_terms, embed, log_likelihood, reconstruct
from pyro_dgm.infer import ELBO, IWAE
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP
from pyro_dgm.transforms import (
    AffineCoupling,
    Compose,
    HouseholderSylvester,
    InverseAutoregressive,
    LULinear,
    OrthogonalSylvester,
    Permute,
    Planar,
    Radial,
    Stack,
    TriangularSylvester,
)
from tests.oracles import LinearGaussian, not_above

FLOWS = {
    "planar": partial(Planar, depth=3),
    "radial": partial(Radial, depth=2),
    "O-SNF": partial(OrthogonalSylvester, depth=2, bottleneck=2),
    "H-SNF": partial(HouseholderSylvester, depth=2, reflections=2),
    "T-SNF": partial(TriangularSylvester, depth=2),
    "IAF": partial(Stack, flow=partial(InverseAutoregressive, hidden=(8,)), depth=2),
    "coupling": partial(Stack, flow=AffineCoupling, depth=2),
    "composed": lambda dim, context_dim: Compose([Planar(dim, context_dim=context_dim), Permute(range(dim)[::-1])]),
    "shared by all data": lambda dim: Radial(dim),
    "shared by all data, composed": lambda dim: Compose([Planar(dim), LULinear(dim)]),
    "stock, shared": lambda dim: stock.AffineAutoregressive(pyro.nn.AutoRegressiveNN(dim, [5])),
    "stock, amortised": lambda dim, context_dim: stock.ConditionalPlanar(
        pyro.nn.DenseNN(context_dim, [5], (1, dim, dim))
    ),
}
OWN = {name: flow for name, flow in FLOWS.items() if not name.startswith("stock")}


@pytest.fixture(params=FLOWS)
def flow(request):
    torch.manual_seed(0)
    return FLOWS[request.param]


def guided(head, story):
    """The story with a guide that is a head of its data."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", head(x))

    return story.model, guide


def test_a_draw_is_scored_by_the_change_of_variables(flow):
    head = FlowPosterior(4, flow=flow, context=6)
    h = torch.randn(3, 12)
    q = head(h)
    assert (q.batch_shape, q.event_shape) == ((3,), (4,))
    torch.manual_seed(1)
    z = q.rsample()
    log_q = q.log_prob(z)
    torch.manual_seed(1)
    start = q.base_dist.rsample().detach()

    def bent(n):
        return lambda row: q.transforms[0](torch.cat([start[:n], row.unsqueeze(0), start[n + 1 :]]))[n]

    volume = torch.stack([torch.autograd.functional.jacobian(bent(n), start[n]).slogdet()[1] for n in range(3)])
    torch.testing.assert_close(log_q, q.base_dist.log_prob(start) - volume, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", OWN)
def test_any_point_is_scored(name):
    torch.manual_seed(0)
    head = FlowPosterior(4, flow=OWN[name], context=6).double()
    h = torch.randn(3, 12, dtype=torch.float64)
    z = head(h).rsample((5,)).detach()
    torch.testing.assert_close(head(h).log_prob(z.clone()), head(h).log_prob(z + 0.0))
    assert head(h).log_prob(3 * torch.randn(3, 4, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize("elbo", [Trace_ELBO(), TraceGraph_ELBO(), TraceMeanField_ELBO(), ELBO(), IWAE(3)], ids=type)
def test_it_is_a_guide_for_every_elbo(flow, elbo):
    vae = VAE(shape=(4,), levels=2, latent=4, posterior=partial(FlowPosterior, flow=flow, context=6))
    x = (torch.arange(40).reshape(10, 4) % 3 == 0).long()
    before = copy.deepcopy(vae.state_dict())
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = [svi.step(x) for _ in range(15)]
    assert torch.tensor(losses).isfinite().all()
    moved = {name for name, value in vae.state_dict().items() if not torch.equal(value, before[name])}
    assert moved >= {name for name, _ in vae.named_parameters() if name.startswith("posterior")}


@pytest.mark.parametrize("name", OWN)
def test_a_bound_never_exceeds_log_p(name):
    torch.manual_seed(0)
    story = LinearGaussian()
    head = FlowPosterior(2, flow=OWN[name], context=2).double()
    x = story.data(5)
    for bound in (ELBO(), IWAE(10)):
        with torch.no_grad():
            values = bound.per_datum(*guided(head, story), x.repeat(300, 1)).reshape(300, 5)
        assert not_above(values, story.log_prob(x))


def test_a_linear_flow_finds_the_posterior_of_a_linear_model():
    """Its posterior has one full covariance for all data: no diagonal one will do."""
    torch.manual_seed(0)
    story = LinearGaussian()
    x = story.data(100)
    exact = story.log_prob(x).detach()
    gaps = {}
    for name, posterior in {
        "diagonal": lambda: nn.Sequential(nn.Linear(4, 4), DiagonalNormal(2)),
        "learned": lambda: nn.Sequential(nn.Linear(4, 8), FlowPosterior(2, flow=lambda dim: LULinear(dim), context=4)),
        "amortised": lambda: nn.Sequential(nn.Linear(4, 8), FlowPosterior(2, flow=LULinear, context=4)),
    }.items():
        head = posterior().double()
        model, guide = guided(head, story)
        optimizer = torch.optim.Adam(head.parameters(), lr=5e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
        for _ in range(800):
            optimizer.zero_grad()
            (-ELBO().per_datum(model, guide, x).mean()).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            gaps[name] = (exact - ELBO(num_particles=100).per_datum(model, guide, x)).mean().item()
    assert gaps["diagonal"] > 0.2
    assert gaps["learned"] == pytest.approx(0, abs=2e-3)
    assert gaps["amortised"] == pytest.approx(0, abs=1e-2)


def test_every_estimate_takes_it(flow):
    vae = VAE(shape=(8, 8), levels=2, latent=4, posterior=partial(FlowPosterior, flow=flow, context=6))
    pair, x = (vae.model, vae.guide), torch.randint(0, 2, (7, 8, 8))
    terms, nll = elbo_terms(*pair, x, num_samples=20), log_likelihood(*pair, x, num_samples=20)
    assert terms.negative_elbo.values.shape == nll.values.shape == (7,)
    assert active_units(*pair, x, num_samples=5).variances["z"].shape == (4,)
    assert embed(vae.guide, x, num_samples=3).shape == (7, 4)
    assert reconstruct(*pair, x).shape == (7, 8, 8)


def test_the_parameters_come_from_the_datum_or_are_shared():
    amortised = FlowPosterior(4, flow=Planar, context=6)
    assert amortised.flow.context_dim == 6
    shared = FlowPosterior(4, flow=lambda dim: Planar(dim), context=6)
    assert shared.flow.context_dim is None
    assert shared(torch.randn(3, 12)).transforms == [shared.flow]


def test_the_context_is_what_the_encoder_puts_out():
    vae = VAE(
        shape=(8, 8),
        levels=2,
        latent=4,
        encoder=partial(MLP, hidden=(5,)),
        posterior=partial(FlowPosterior, flow=Planar, context=7, base=partial(DiagonalNormal, scale="exp")),
    )
    assert vae.posterior[1].out_shape == (14,)
    assert vae.posterior[2].base.scale == "exp"


def test_particles_share_the_parameters_of_their_datum():
    head = FlowPosterior(4, flow=partial(HouseholderSylvester, depth=2), context=6)
    calls = []
    bind = head.flow.bind
    head.flow.bind = lambda context: calls.append(tuple(context.shape)) or bind(context)
    with pyro.plate("particles", 5, dim=-2), pyro.plate("data", 3):
        q = head(torch.randn(3, 12))
        z = pyro.sample("z", q)
    assert z.shape == (5, 3, 4)
    assert calls == [(3, 6)]


def test_it_deep_copies_and_pickles():
    head = FlowPosterior(4, flow=FLOWS["H-SNF"], context=6)
    h = torch.randn(3, 12)
    z = head(h).rsample()
    score = head(h).log_prob(z)
    for twin in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        torch.testing.assert_close(twin(h).log_prob(z), score)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flow": lambda dim: Planar(dim + 1)}, r"FlowPosterior got a flow= that makes .* its dimension must be 4"),
        ({"flow": lambda dim: nn.Linear(dim, dim)}, "got a flow= that makes Linear: it must make a flow"),
        ({"flow": lambda dim: Planar(dim, context_dim=3)}, "its context_dim must be 6, which it gets by itself"),
        ({"context": 0}, r"FlowPosterior got context=\(0,\)"),
    ],
)
def test_what_is_no_flow_of_this_size_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FlowPosterior(4, **{"flow": Planar, "context": 6, **options})


def test_a_flow_is_not_what_makes_one():
    with pytest.raises(ValueError, match="it needs what makes one from the dimension, e.g. flow=Planar"):
        FlowPosterior(4, flow=Planar(4), context=6)


def test_a_context_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"FlowPosterior got raw parameters of shape \(3, 5\).*must be \(12,\)"):
        FlowPosterior(4, flow=Planar, context=6)(torch.zeros(3, 5))
