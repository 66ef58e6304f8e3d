# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""One report holds all sections, says what it could not measure, and agrees with the sections by themselves."""

import json

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.evaluate import elbo_surgery, judge, log_likelihood
from pyro_dgm.evaluate.report import SECTIONS
from tests.cases import MODELS
from tests.evaluate.stories import Story, digits
from tests.oracles import LinearGaussian

ORACLE = LinearGaussian(widen=1.5)
X = ORACLE.data(30)


def report(**options):
    options = {"num_samples": 50, "particles": (1, 5), "gap_data": 4, **options}
    return judge(ORACLE.model, ORACLE.guide, X, **options)


def test_a_full_report_has_every_section():
    found = report()
    assert not found.refused
    assert set(found.as_dict()) == set(SECTIONS)
    assert json.loads(json.dumps(found.as_dict()))["gaps"]["inference"]["num_data"] == 4
    titles = [line for line in str(found).splitlines() if not line.startswith(" ")]
    assert titles == [
        "likelihood",
        "evidence lower bound",
        "bound by number of particles",
        "what the guide loses",
        "what the codes know",
        "active units",
        "posterior collapse",
    ]
    assert "effective samples: median" in str(found)
    alone = log_likelihood(ORACLE.model, ORACLE.guide, X, num_samples=50)
    assert found.nll.values.equal(alone.values)
    alone = elbo_surgery(ORACLE.model, ORACLE.guide, X)
    assert found.surgery.kl.values.equal(alone.kl.values)


def test_only_what_is_asked_for():
    found = report(sections=("surgery", "nll"), num_data=10, surgery_data=5)
    assert set(found.as_dict()) == {"surgery", "nll"}
    assert len(found.nll.values) == 10
    assert found.surgery.num_data == 5


def test_annealing_may_be_added_and_gives_the_gaps_their_likelihood():
    found = report(sections=("ais", "gaps"), gap_data=3, annealing_steps=20)
    assert found.gaps.nll is found.ais.nll
    assert "likelihood by annealing" in str(found)


def test_a_section_that_cannot_be_measured_says_why():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(x.new_ones(3)))
            pyro.sample("x", dist.Normal(z.to(x), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(x.new_ones(len(x), 3)))

    sections = ("nll", "units", "collapse", "surgery", "ais")
    found = judge(model, guide, torch.randn(6), num_samples=5, sections=sections, annealing_steps=2)
    assert "'z'" in found.refused["ais"]
    assert f"not measured: {found.refused['ais']}" in str(found)
    assert found.units.labels == ("z",)
    assert found.collapse.fraction == 1
    assert found.surgery.mutual_information.mean == pytest.approx(0.0, abs=1e-6)
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_model_without_latent_variables_has_a_likelihood():
    def density(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    found = judge(density, lambda x: None, torch.randn(6))
    assert set(found.as_dict()) == {"terms", "nll"}
    assert str(found.nll).startswith("NLL = ")


def test_a_device_and_images(device):
    story = Story().to(device)
    x = digits(12)[0].to(device)
    sections = [name for name in SECTIONS if name != "gaps"]
    found = judge(story.model, story.guide, x, sections=sections, num_samples=5, particles=(1,))
    assert "12 images" in str(found)


def test_refusals():
    with pytest.raises(ValueError, match=r"sections \['elbo'\]"):
        report(sections=["elbo"])
    with pytest.raises(ValueError, match="num_data=31"):
        report(num_data=31)


@pytest.mark.parametrize("name", ["gap_data", "surgery_data", "annealing_steps", "elbo_samples", "num_samples"])
@pytest.mark.parametrize("section", ["gaps", "surgery", "ais", "units"])
def test_mistakes_of_the_caller_are_no_limits_of_a_section(name, section):
    with pytest.raises(ValueError, match=f"judge got {name}=0"):
        report(sections=[section], **{name: 0})


def test_numbers_of_particles_and_data_are_checked_whatever_is_measured():
    with pytest.raises(ValueError, match=r"particles\[1\]=0"):
        report(sections=["surgery"], particles=(1, 0))
    for wrong in (0, 31):
        with pytest.raises(ValueError, match=f"num_data={wrong}"):
            report(sections=["surgery"], num_data=wrong)
    with pytest.raises(ValueError, match="x is empty"):
        judge(ORACLE.model, ORACLE.guide, X[:0], sections=["surgery"])


def test_annealing_on_the_models_own_data():
    vae = MODELS["VAE"]()
    x = torch.randint(2, (4, 8, 8))
    found = judge(vae.model, vae.guide, x, sections=("bdmc",), gap_data=3, annealing_steps=5)
    assert found.bdmc.exact
    assert "annealing on data of the model's own" in str(found)
    json.dumps(found.as_dict(), allow_nan=False)
