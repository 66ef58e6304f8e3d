# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The inference gap splits as theory says where the best member of a guide's family is known."""

import json
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyro_dgm.evaluate import Estimate, gap_split
from pyro_dgm.evaluate.frozen import frozen
from pyro_dgm.evaluate.local_guide import LocalGuide
from pyro_dgm.infer import ELBO
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP
from pyro_dgm.transforms import ActNorm, LULinear, Planar
from tests.cases import POSTERIORS
from tests.oracles import BernoulliLatent, LinearGaussian

ORACLE = LinearGaussian()
X = ORACLE.data(20)
SHIFT, SCALE = 0.3, 0.4  # what the amortised guide gets wrong


def diagonal(x):
    mean, _ = ORACLE.posterior(x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(mean + SHIFT, SCALE).to_event(1))


def full(x):
    mean, covariance = ORACLE.posterior(x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(mean + SHIFT, 2 * covariance))


def exact(guide):
    """The inference and the approximation gap: of all diagonal normals the best has the posterior's precisions."""
    _, covariance = ORACLE.posterior(X)
    covariance, centre = covariance.detach(), torch.zeros(2, dtype=torch.float64)
    posterior = dist.MultivariateNormal(centre, covariance)
    if guide is full:
        return float(kl_divergence(dist.MultivariateNormal(centre + SHIFT, 2 * covariance), posterior)), 0.0
    eye, best = torch.eye(2, dtype=torch.float64), torch.diag(1 / torch.linalg.inv(covariance).diagonal())
    whole = kl_divergence(dist.MultivariateNormal(centre + SHIFT, SCALE**2 * eye), posterior)
    return float(whole), float(kl_divergence(dist.MultivariateNormal(centre, best), posterior))


@pytest.mark.parametrize("guide", [diagonal, full])
def test_the_split_agrees_with_theory(guide):
    whole, best = exact(guide)
    found = gap_split(ORACLE.model, guide, X, num_steps=100)
    assert found.converged
    assert abs(found.last_change) < 0.02
    noise = 5 * float(found.noise.square().mean().sqrt()) / len(X) ** 0.5
    assert abs(found.inference.mean - whole) < noise + 0.01
    assert abs(found.approximation.mean - best) < noise + 0.02
    assert abs(found.amortization.mean - (whole - best)) < noise + 0.02
    assert found.nll.mean == pytest.approx(-ORACLE.log_prob(X).mean().item(), abs=0.02)
    torch.testing.assert_close(found.inference.values, found.approximation.values + found.amortization.values)


def test_a_linear_flow_brings_what_a_diagonal_normal_lacks():
    _, best = exact(diagonal)
    found = gap_split(ORACLE.model, diagonal, X, flow=LULinear, num_steps=100)
    assert found.flow.mean == pytest.approx(best, abs=0.04)
    assert str(found).splitlines()[3].startswith("won-by-flow >= 0.3")


def test_an_exact_likelihood_may_be_given():
    nll = Estimate("NLL =", -ORACLE.log_prob(X).detach(), method="exact")
    found = gap_split(ORACLE.model, diagonal, X, nll=nll, num_steps=20, rounds=1)
    assert found.nll is nll
    assert str(found.inference).startswith("inference-gap = ")


@pytest.mark.parametrize(("given", "side"), [("=", "="), ("<=", ">="), (">=", "<="), (">~", "~"), ("~", "~")])
def test_the_gap_is_on_the_other_side_than_the_likelihood(given, side):
    """The gap is -NLL - L[q]: reverse annealing, a lower bound on the NLL, makes it an upper one."""
    nll = Estimate(f"NLL {given}", -ORACLE.log_prob(X).detach(), method="given")
    found = gap_split(ORACLE.model, diagonal, X, nll=nll, num_steps=1, rounds=1, num_samples=2)
    assert found.inference.name == f"inference-gap {side}"


def test_fits_that_are_cut_short_say_so():
    found = gap_split(ORACLE.model, diagonal, X, num_steps=5, rounds=1)
    assert not found.converged
    assert "not converged" in str(found)
    report = json.loads(json.dumps(found.as_dict()))
    assert report["inference"]["mean"] == pytest.approx(found.inference.mean)
    assert report["converged"] is False


def test_a_discrete_posterior_is_fitted_by_its_score():
    oracle = BernoulliLatent()
    x = torch.linspace(-2.0, 3.0, 12, dtype=torch.float64)
    found = gap_split(oracle.model, oracle.guide, x, num_steps=150, lr=0.1, particles=16, rounds=3)
    log_w, log_q = (part.detach() for part in oracle.table(x))
    log_p = (log_w + log_q).logsumexp(0)
    whole = (log_p - (log_q.exp() * log_w).sum(0)).mean()
    assert found.inference.mean == pytest.approx(float(whole), abs=0.03)
    assert abs(found.approximation.mean) < 0.03  # a Bernoulli posterior can be exact


def test_a_hierarchy_is_moved_site_by_site():
    def guide(x):
        mean, _ = ORACLE.posterior(x)
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(mean[:, 0], SCALE))
            pyro.sample("b", dist.Normal(mean[:, 1] - 0.1 * (a - mean[:, 0]), SCALE))

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(x.new_zeros(()), 1.0))
            z = torch.stack(torch.broadcast_tensors(a, b), -1)
            pyro.sample("x", dist.Normal(z @ ORACLE.weight.mT, ORACLE.noise).to_event(1), obs=x)

    found = gap_split(model, guide, X, num_steps=50, rounds=2, num_samples=300)
    assert found.amortization.mean > 0
    assert found.nll.mean == pytest.approx(-ORACLE.log_prob(X).mean().item(), abs=0.05)


@pytest.mark.parametrize("name", POSTERIORS)
def test_offsets_of_zero_are_the_guide_itself_and_heads_are_moved(name):
    vae = VAE(
        shape=(4, 4),
        levels=2,
        latent=3,
        posterior=POSTERIORS[name],
        encoder=partial(MLP, hidden=()),
        decoder=partial(MLP, hidden=()),
    )
    x = torch.randint(2, (6, 4, 4))
    with frozen(vae.model, vae.guide, seed=0), torch.enable_grad():
        local = LocalGuide(vae.guide, x)
        assert {leaf.shape[0] for leaf in local.leaves} == {6}
        torch.manual_seed(1)
        before = vae.guide(x)
        torch.manual_seed(1)
        torch.testing.assert_close(local(x), before)
        with torch.no_grad():
            local.leaves[0][2] += 1.0
        torch.manual_seed(1)
        moved = (local(x) != before).any(-1)
        assert moved.tolist() == [False, False, True, False, False, False]
        loss = ELBO(3).differentiable_loss(vae.model, local, x)
        gradients = torch.autograd.grad(loss, local.leaves)
    assert all((gradient != 0).flatten(1).any(1).all() for gradient in gradients)


def test_a_trained_network_is_left_alone_and_a_flow_helps(device):
    torch.manual_seed(0)
    vae = VAE(shape=(4, 4), levels=2, latent=2, encoder=partial(MLP, hidden=()), decoder=partial(MLP, hidden=(8,)))
    vae = vae.to(device)
    x = torch.randint(2, (7, 4, 4), device=device)
    state = {name: value.clone() for name, value in vae.state_dict().items()}
    found = gap_split(vae.model, vae.guide, x, flow=Planar, num_steps=15, rounds=1, num_samples=50, batch_size=4)
    assert found.amortization.mean > 0
    assert found.amortization.values.shape == (7,)
    assert found.flow.mean > -0.3  # Planar flows do not start as the identity, and these fits are short
    assert all(value.equal(state[name]) for name, value in vae.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in vae.parameters())
    again = gap_split(vae.model, vae.guide, x, flow=Planar, num_steps=15, rounds=1, num_samples=50, batch_size=4)
    assert again.flow.values.equal(found.flow.values)


def test_refusals():
    with pytest.raises(ValueError, match="num_steps=0"):
        gap_split(ORACLE.model, diagonal, X, num_steps=0)
    with pytest.raises(ValueError, match="NLL of 1 data and evaluates 20"):
        gap_split(ORACLE.model, diagonal, X, nll=Estimate("NLL =", torch.zeros(1), method="exact"))
    with pytest.raises(ValueError, match="nothing is latent"):
        gap_split(lambda x: ORACLE.model(x), lambda x: diagonal(x) if len(x) < 3 else None, X[:3])
    with pytest.raises(ValueError, match="takes? a context"):
        gap_split(ORACLE.model, diagonal, X, flow=lambda dim: ActNorm(dim), num_steps=1, rounds=1, num_samples=1)
    discrete = BernoulliLatent()
    x = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="bends real vectors"):
        gap_split(discrete.model, discrete.guide, x, flow=Planar, num_steps=1, rounds=1, num_samples=1)

    def delta(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1).mask(False))

    with pytest.raises(ValueError, match="MaskedDistribution, which names no parameters"):
        gap_split(ORACLE.model, delta, X)
