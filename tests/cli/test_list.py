# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The lists name all that can be chosen, under the right heading."""

import pytest

from pyro_dgm.cli.list import KINDS


@pytest.mark.parametrize(
    ("kind", "some"),
    [
        ("models", {"VAE"}),
        ("data", {"Digits", "MNIST", "StaticMNIST", "FreyFaces"}),
        ("nets", {"MLP", "GatedMLP", "GatedConvEncoder", "GatedConvDecoder"}),
        ("priors", {"StandardNormal", "NormalMixture", "FlowPrior"}),
        ("posteriors", {"DiagonalNormal", "FlowPosterior"}),
        ("likelihoods", {"BernoulliLikelihood", "CategoricalLikelihood", "DiscretizedLogisticLikelihood"}),
        ("bounds", {"ELBO", "IWAE"}),
        ("controls", {"Capacity", "FreeBits", "KLBalance", "SiteWeights"}),
        ("flows", {"Planar", "HouseholderSylvester", "Stack"}),
        ("recipes", {"digits", "sylvester-mnist"}),
    ],
)
def test_a_list_names_what_there_is(kind, some):
    found = KINDS[kind]()
    assert some <= found.keys()
    assert all(found.values()), "each has a line that says what it is"


def test_the_models_are_those_that_fit_takes():
    mixtures, linear = {"BernoulliMixture", "GaussianMixture", "KMeans"}, {"FactorAnalysis", "PPCA"}
    assert KINDS["models"]().keys() == {"VAE", "HierarchicalVAE", "FlowModel", "ImageFlow", *mixtures, *linear}


def test_nothing_is_in_two_lists():
    names = [name for kind in KINDS.values() for name in kind()]
    assert len(names) == len(set(names))


def test_all_lists_are_printed(say):
    code, out, _ = say("list")
    assert code == 0
    assert [line[:-1] for line in out.splitlines() if not line.startswith(" ")] == list(KINDS)


def test_one_list_is_printed_line_by_line(say):
    _, out, _ = say("list bounds")
    heading, *lines = out.splitlines()
    assert heading == "bounds:"
    assert [line.split()[0] for line in lines] == sorted(KINDS["bounds"]())
