# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A prior of any flow is a density, is learned with its model, and dreams what it scores."""

import copy
import pickle
from functools import partial

import pyro
import pytest
import torch
from pyro.distributions import transforms as stock
from pyro.infer import SVI, Trace_ELBO

from pyro_dgm.distributions import FlowPosterior, FlowPrior, StandardNormal
from pyro_dgm.evaluate import dream, elbo_terms, log_likelihood
from pyro_dgm.infer import ELBO, IWAE
from pyro_dgm.models import VAE
from pyro_dgm.transforms import (
    AffineCoupling,
    HouseholderSylvester,
    LULinear,
    MaskedAutoregressive,
    Planar,
    SplineAutoregressive,
    SplineCoupling,
    Stack,
)

FLOWS = {
    "planar": partial(Planar, depth=2),
    "H-SNF": partial(HouseholderSylvester, depth=2, reflections=2),
    "MAF": partial(MaskedAutoregressive, hidden=(8,)),
    "RealNVP": partial(Stack, flow=AffineCoupling, depth=2, between="lu"),
    "spline coupling": SplineCoupling,
    "spline autoregressive": SplineAutoregressive,
    "linear": LULinear,
    "stock": lambda dim: stock.affine_coupling(dim, hidden_dims=[5]),
}


@pytest.fixture(params=FLOWS)
def flow(request):
    torch.manual_seed(0)
    return FLOWS[request.param]


def shaken(prior):
    """Random parameters: initial ones are often those of the identity."""
    for parameter in prior.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return prior


def test_it_integrates_to_one(flow):
    prior = shaken(FlowPrior(2, flow=flow)).double()
    grid = torch.linspace(-8, 8, 301, dtype=torch.float64)
    with torch.no_grad():
        density = prior().log_prob(torch.cartesian_prod(grid, grid)).exp()
    assert density.sum().item() * (16 / 300) ** 2 == pytest.approx(1, abs=5e-3)


def test_it_scores_what_it_draws(flow):
    prior = shaken(FlowPrior(3, flow=flow)).double()
    p = prior()
    assert (p.batch_shape, p.event_shape) == ((), (3,))
    z = p.sample((50,))
    by_inverse = prior().log_prob(z.clone())
    torch.testing.assert_close(p.log_prob(z), by_inverse)
    assert by_inverse.dtype == torch.float64


def test_it_is_learned_with_its_model(flow):
    vae = VAE(shape=(4,), levels=2, latent=4, prior=partial(FlowPrior, flow=flow))
    x = (torch.arange(40).reshape(10, 4) % 3 == 0).long()
    for elbo in (Trace_ELBO(), ELBO(), IWAE(3)):
        before = copy.deepcopy(vae.prior.state_dict())
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
        losses = [svi.step(x) for _ in range(10)]
        assert torch.tensor(losses).isfinite().all()
        after = vae.prior.state_dict()
        assert not [name for name, _ in vae.prior.named_parameters() if torch.equal(after[name], before[name])]
    assert dream(vae.model, 5).shape == (5, 4)
    assert log_likelihood(vae.model, vae.guide, x, num_samples=5).values.isfinite().all()
    assert elbo_terms(vae.model, vae.guide, x).kl["z"].values.isfinite().all()


def test_a_prior_and_a_posterior_may_both_be_flows():
    vae = VAE(
        shape=(4,),
        levels=2,
        latent=3,
        prior=partial(FlowPrior, flow=MaskedAutoregressive),
        posterior=partial(FlowPosterior, flow=Planar, context=5),
    )
    x = (torch.arange(40).reshape(10, 4) % 3 == 0).long()
    ELBO().per_datum(vae.model, vae.guide, x).sum().backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


def test_a_linear_prior_learns_the_covariance_of_what_it_is_shown():
    torch.manual_seed(0)
    root = torch.tensor([[1.0, 0.0], [1.5, 0.5]], dtype=torch.float64)
    z = torch.randn(5000, 2, dtype=torch.float64) @ root.mT
    prior = FlowPrior(2, flow=LULinear).double()
    optimizer = torch.optim.LBFGS(prior.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = -prior().log_prob(z).mean()
        value.backward()
        return value

    optimizer.step(loss)
    fitted = torch.distributions.MultivariateNormal(z.new_zeros(2), z.mT @ z / len(z))
    assert -loss().item() == pytest.approx(fitted.log_prob(z).mean().item(), abs=5e-3)


def test_without_a_flow_that_does_anything_it_is_the_standard_normal():
    z = torch.randn(5, 3)
    prior = FlowPrior(3, flow=lambda dim: AffineCoupling(dim))
    for parameter in prior.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(prior().log_prob(z), StandardNormal(3)().log_prob(z))


def test_it_deep_copies_and_pickles():
    prior = shaken(FlowPrior(3, flow=FLOWS["RealNVP"]))
    z = prior().sample((5,))
    score = prior().log_prob(z)
    for twin in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        torch.testing.assert_close(twin().log_prob(z), score)


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (lambda dim: Planar(dim + 1), r"FlowPrior got a flow= that makes .* its dimension must be 3"),
        (partial(Planar, context_dim=4), "its context_dim must be left out: there is no context"),
        (lambda dim: torch.nn.Linear(dim, dim), "that makes Linear: it must make a flow"),
        (Planar(3), "needs what makes one from the dimension"),
    ],
)
def test_what_is_no_flow_of_this_size_is_refused(flow, message):
    with pytest.raises(ValueError, match=message):
        FlowPrior(3, flow=flow)


def test_a_prior_needs_a_dimension():
    with pytest.raises(ValueError, match=r"got latent=\(0,\)"):
        FlowPrior(0)
