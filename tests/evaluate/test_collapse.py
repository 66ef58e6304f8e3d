# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Collapsed units are found where it is known which they are."""

import json
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyro_dgm.distributions import DiagonalNormal
from pyro_dgm.evaluate import collapse, elbo_terms
from pyro_dgm.models import HierarchicalVAE
from tests.evaluate.stories import Story, digits
from tests.oracles import within

X = torch.randn(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def model(x):
    """A decoder that looks at the first unit only."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., :1], 1.0).to_event(1), obs=x[:, :1])


def posterior(x):
    """Unit 0 follows x; unit 1 is the prior but for the first of the data; unit 2 is the prior."""
    odd = (torch.arange(len(x)) == 0).to(x) * 2
    loc = torch.stack([x[:, 0], odd, 0 * odd], -1)
    scale = torch.tensor([0.5, 1.0, 1.0]).to(x)
    return dist.Normal(loc, scale)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", posterior(x).to_event(1))


def full(x):
    q = posterior(x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(q.loc, torch.diag_embed(q.scale**2)))


def test_units_that_the_decoder_ignores_have_collapsed():
    found = collapse(model, guide, X, batch_size=200)
    torch.testing.assert_close(found.kl["z"], kl_divergence(posterior(X), dist.Normal(0.0, 1.0)))
    assert found.collapsed["z"].tolist() == [False, True, True]
    assert found.informative == {"z": 1}  # unit 1 costs 2 nats on one of 200 data: 0.01 on average
    assert found.fraction == pytest.approx(2 / 3)
    lines = str(found).splitlines()
    assert lines[0] == (
        "collapse of z: 2 of 3 units (KL < 0.01 on all but 1% of 200 data), 1 informative (mean KL > 0.01)"
    )
    assert lines[1].endswith("nats (closed form)")
    report = json.loads(json.dumps(found.as_dict()))
    assert report["sites"]["z"]["mean_kl"] == pytest.approx(found.mean_kl["z"].tolist(), abs=1e-6)


def test_delta_decides_what_one_datum_may_do():
    assert collapse(model, guide, X, delta=0, batch_size=200).collapsed["z"].tolist() == [False, False, True]
    assert collapse(model, guide, X, epsilon=100, batch_size=200).fraction == 1


def test_a_posterior_without_dimensions_is_one_unit():
    found = collapse(model, full, X[:50], batch_size=200)
    assert found.kl["z"].shape == (50, 1)
    assert found.whole == {"z"}
    assert "0 of the whole site as one unit" in str(found)
    each = collapse(model, guide, X[:50], batch_size=200, num_samples=2000).kl["z"].sum(-1)
    assert within(found.kl["z"][:, 0] - each, 0.0)


def student(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.StudentT(5.0, x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., :1], 1.0).to_event(1), obs=x)


def test_without_a_closed_form_samples_tell():
    def laplace(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Laplace(x.new_zeros(len(x), 3), 0.5).to_event(1))

    found = collapse(student, laplace, X[:30], num_samples=300)
    assert found.method == "MC, 300 samples"
    assert found.kl["z"].shape == (30, 3)
    assert (found.mean_kl["z"] > 0).all()


def test_a_hierarchy_has_units_of_both_sites():
    def deep(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(a, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(a[..., :1] + b[..., :1], 1.0).to_event(1), obs=x)

    def inference(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.expand(-1, 2) / 2, 1.0).to_event(1))
            pyro.sample("b", dist.Normal(a, 1.0).to_event(1))

    found = collapse(deep, inference, X[:20], num_samples=3)
    assert found.collapsed["b"].tolist() == [True, True]
    assert found.collapsed["a"].tolist() == [False, False]
    assert found.fraction == 0.5


def pair_of_layers(alive, order=("z1", "z2")):
    """p(z2) p(z1 | z2) with correlation 0.9; the guide is that joint prior from below, moved by x if it is alive."""

    def prior(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(0.9 * z2, 0.19**0.5).to_event(1))
            pyro.sample("x", dist.Normal(alive * z1, 1.0).to_event(1), obs=x)

    def climbing(x):
        loc = alive * torch.tanh(x)
        with pyro.plate("data", len(x)):
            first = pyro.sample(order[0], dist.Normal(loc, 1.0).to_event(1))
            pyro.sample(order[1], dist.Normal(0.9 * first, 0.19**0.5).to_event(1))

    return prior, climbing


def test_a_collapsed_hierarchy_is_seen_through_a_guide_that_climbs():
    """Its posterior is the prior, though KL(q(z1) || p(z1 | z2)) is not 0."""
    found = collapse(*pair_of_layers(0), X, num_samples=20)
    assert list(found.kl) == ["z2, z1"]
    torch.testing.assert_close(found.kl["z2, z1"], torch.zeros(200, 1, dtype=torch.float64))
    assert found.fraction == 1
    assert found.whole == {"z2, z1"}
    assert all(variance.abs() < 0.01 for variance in found.mean_variance.values())
    assert str(found).startswith("collapse of z2, z1: 1 of the sites together as one unit (KL < 0.01")
    assert "units of z2 whose posterior mean varies: 0 of 1 (Var > 0.01)" in str(found)
    assert json.loads(json.dumps(found.as_dict()))["posterior_means"]["z1"] == {"units": 1, "varying": 0}


def test_a_living_hierarchy_is_alive():
    found = collapse(*pair_of_layers(1), X, num_samples=200)
    exact = torch.tanh(X) ** 2 / 2  # KL(N(tanh(x), 1) || N(0, 1)), for z2 given z1 is what the model says
    assert within(found.kl["z2, z1"] - exact, 0.0)
    assert found.fraction == 0
    variance = torch.tanh(X).var()
    torch.testing.assert_close(found.mean_variance["z1"], variance[None])
    torch.testing.assert_close(found.mean_variance["z2"], 0.81 * variance[None], rtol=0.1, atol=0.0)
    assert "units of z2 whose posterior mean varies: 1 of 1" in str(found)


def test_layers_in_the_models_order_keep_units_of_their_own():
    found = collapse(*pair_of_layers(0, order=("z2", "z1")), X, num_samples=3)
    assert list(found.kl) == ["z2", "z1"]
    assert found.fraction == 1
    assert found.mean_variance == {}
    assert found.method == "closed form, 3 samples"


def test_only_the_sites_that_are_crossed_go_together():
    def chain(x, names, obs=None):
        with pyro.plate("data", len(x)):
            for name in names:
                pyro.sample(name, dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            if obs is not None:
                pyro.sample("x", dist.Normal(x.new_zeros(1), 1.0).to_event(1), obs=obs)

    found = collapse(lambda x: chain(x, "abcde", x), lambda x: chain(x, "acbde"), X[:5], num_samples=2)
    assert {name: kl.shape[1] for name, kl in found.kl.items()} == {"a": 2, "b, c": 1, "d": 2, "e": 2}
    assert found.fraction == 1


def test_a_variable_that_only_the_guide_has_counts_with_the_site():
    def inference(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(x.new_zeros(3), 1.0).to_event(1), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u, event_dim=1))

    found = collapse(model, inference, X[:20], num_samples=3)
    assert found.kl["z"].shape == (20, 1)
    assert found.fraction == 1


def test_the_packages_own_hierarchy_without_a_word_from_the_data():
    normal = partial(DiagonalNormal, scale="exp")
    vae = HierarchicalVAE(shape=(4,), levels=2, latents=(2, 2), hidden=((), ()), conditional=normal)
    for weight in vae.parameters():
        torch.nn.init.zeros_(weight)  # every conditional is N(0, I)
    x = torch.randint(2, (30, 4))
    assert collapse(vae.model, vae.guide, x, num_samples=2).fraction == 1
    torch.nn.init.eye_(next(vae.up[0].parameters()))  # the mean of z1 is two pixels, its log scale the two others
    found = collapse(vae.model, vae.guide, x, num_samples=20)
    assert found.fraction == 0
    assert {site: len(variance) for site, variance in found.mean_variance.items()} == {"z2": 2, "z1": 2}


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_masked_out_costs_nothing(whole):
    """As in `elbo_terms`, whether by a closed form or, without one, by samples."""

    def seen(x):
        return pyro.poutine.mask(mask=x[:, 0] > 0)

    def masked_model(x):
        with seen(x):
            model(x)

    def masked_guide(x):
        with seen(x):
            (full if whole else guide)(x)

    found = collapse(masked_model, masked_guide, X, num_samples=300, batch_size=200)
    terms = elbo_terms(masked_model, masked_guide, X, num_samples=300).kl["z"].values
    assert (found.kl["z"][X[:, 0] <= 0] == 0).all()
    exact = (kl_divergence(posterior(X), dist.Normal(0.0, 1.0)) * (X > 0)).sum(-1)
    assert within(found.kl["z"].sum(-1) - exact, 0.0)
    assert within(terms - exact, 0.0)


def test_digits(device):
    story = Story().to(device)
    found = collapse(story.model, story.guide, digits(40)[0].to(device), num_data=20)
    assert found.collapsed["z"].tolist() == [False, False, True]
    assert found.kl["z"].device.type == "cpu"
    assert "20 images" in str(found)


def test_refusals():
    with pytest.raises(ValueError, match="num_samples=0"):
        collapse(model, guide, X, num_samples=0)
    with pytest.raises(ValueError, match="delta=1"):
        collapse(model, guide, X, delta=1)
    with pytest.raises(ValueError, match="one for each datum is needed"):
        collapse(*2 * [lambda x: pyro.sample("z", dist.Normal(0.0, 1.0))], X)
    with pytest.raises(ValueError, match="nothing can collapse"):
        collapse(lambda x: pyro.sample("x", dist.Normal(0.0, 1.0).expand([len(x), 1]), obs=x), lambda x: None, X)
