# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Active units are counted where the answer is known."""

import json

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.evaluate import active_units, embed
from tests.evaluate.stories import Story, digits


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        pyro.sample("w", dist.Normal(z[..., 0], 1.0))
        pyro.sample("x", dist.Normal(z[..., :2], 1.0).to_event(1), obs=x)


def guide(x, *, flow=False):
    """Unit 0 follows x, unit 1 by a twentieth (variance 0.0025), unit 2 ignores it; w is one number."""
    loc = torch.stack([x[:, 0], x[:, 1] / 20, 0 * x[:, 0]], -1)
    q = dist.Normal(loc, 0.1)
    if flow:
        q = dist.TransformedDistribution(q, [dist.transforms.AffineTransform(1.0, 2.0)])
    with pyro.plate("data", len(x)):
        pyro.sample("u", dist.Normal(x[:, 0], 1.0), infer={"is_auxiliary": True})
        pyro.sample("z", q.to_event(1))
        pyro.sample("w", dist.Normal(x[:, 1], 1.0))


def data(size=400):
    return torch.randn(size, 2, generator=torch.Generator().manual_seed(0))


def test_known_units():
    x = data()
    found = active_units(model, guide, x, batch_size=150)
    assert found.counts == {"z": 1, "w": 1}
    expected = torch.stack([x[:, 0].var(), x[:, 1].var() / 400, torch.tensor(0.0)]).double()
    torch.testing.assert_close(found.variances["z"], expected)
    assert str(found).splitlines() == [
        "active units of z: 1 of 3 (Var > 0.01, 400 data)",
        "active units of w: 1 of 1 (Var > 0.01, 400 data)",
    ]
    assert json.loads(json.dumps(found.as_dict()))["counts"] == {"z": 1, "w": 1}


def test_the_threshold_decides():
    assert active_units(model, guide, data(), threshold=0.001).counts["z"] == 2


def test_a_flow_is_averaged_over_samples():
    found = active_units(model, lambda x: guide(x, flow=True), data(), num_samples=100)
    assert found.counts["z"] == 2  # the scale 2 of the flow lifts unit 1 to 4 * 0.0025, which noise lifts over 0.01
    torch.testing.assert_close(found.variances["z"][0], 4 * data()[:, 0].var().double(), rtol=0.05, atol=0.0)
    assert found.variances["z"][2] < 2 * 0.04 / 100


def test_digits(device):
    story = Story().to(device)
    x = digits(200)[0].to(device)
    found = active_units(story.model, story.guide, x, num_data=100)
    assert found.counts == {"z": 2}
    assert str(found) == "active units of z: 2 of 3 (Var > 0.01, 100 images)"
    assert found.variances["z"].device.type == "cpu"


def test_refusals():
    with pytest.raises(ValueError, match="at least two"):
        active_units(model, guide, data(1))
    with pytest.raises(ValueError, match="x is empty"):
        active_units(model, guide, data()[:0])
    with pytest.raises(ValueError, match="num_samples=0"):
        active_units(model, guide, data(), num_samples=0)
    with pytest.raises(ValueError, match="none is in both"):
        active_units(Story().model, lambda x: pyro.sample("a", dist.Normal(torch.zeros(len(x)), 1.0)), digits(3)[0])


def test_the_number_of_a_category_has_no_units_and_no_place_in_a_latent_space():
    def categorical(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(torch.ones(len(x), 3)))

    found = active_units(model, categorical, data())
    assert (found.counts, found.labels) == ({}, ("z",))
    assert str(found) == "active units of z: none to count, for it is the number of a category"
    assert found.as_dict()["labels"] == ["z"]
    with pytest.raises(ValueError, match="OneHotCategorical"):
        embed(categorical, data())


def test_other_sites_are_counted_beside_a_category():
    def story(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(torch.ones(3)))
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    def both(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(torch.ones(3)).mask(True))
            loc = torch.stack([torch.arange(float(len(x))), torch.zeros(len(x))], -1)
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    found = active_units(story, both, data())
    assert (found.counts, found.labels) == ({"z": 1}, ("y",))


def test_a_mean_that_is_not_a_number_is_refused():
    def broken(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((len(x),), torch.nan), 1.0, validate_args=False))

    with pyro.validation_enabled(False), pytest.raises(ValueError, match="posterior mean that is NaN"):
        active_units(model, broken, data())
