# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Collapsed units are found where it is known which they are."""

import json

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyro_dgm.evaluate import collapse
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
    with pytest.raises(ValueError, match="nothing can collapse"):
        collapse(lambda x: pyro.sample("x", dist.Normal(0.0, 1.0).expand([len(x), 1]), obs=x), lambda x: None, X)
