# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Mixtures in half precision: parameters have few digits, sums over data have not."""

import copy

import pytest
import torch

from pyro_dgm.data import Digits
from pyro_dgm.infer import em
from pyro_dgm.models import BernoulliMixture, GaussianMixture, GaussianMixturePrior, KMeans
from tests.cases import COVARIANCES

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


@pytest.mark.parametrize("covariance", COVARIANCES)
@HALVES
@pytest.mark.parametrize("prior", [None, GaussianMixturePrior()])
def test_mixtures_of_normals_are_summed_in_float32(covariance, dtype, prior):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(200, 2, generator=generator) + 6 * (torch.arange(200) % 2)[:, None]).to(dtype)
    model = GaussianMixture(dim=2, components=2, covariance=covariance, prior=prior).to(dtype)
    history = em(model, x, sweeps=10)
    assert history.monotone, history.why
    assert torch.allclose(model.loc.sort(0).values.float(), torch.tensor([[0.0, 0.0], [6.0, 6.0]]), atol=0.5)
    with torch.no_grad():
        fast = model.log_prob(x)
        exact = copy.deepcopy(model).double()
        found = model.statistics(x)["log_likelihood"].item()
        assert found == pytest.approx(exact.statistics(x.double())["log_likelihood"].item(), rel=1e-4)
    assert fast.dtype == dtype
    assert torch.allclose(fast, model.log_prob(x), rtol=0.05, atol=0.1)


@HALVES
@pytest.mark.parametrize("variance", [0, 1.0])
def test_k_means_is_summed_in_float32(dtype, variance):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(200, 2, generator=generator) + 6 * (torch.arange(200) % 2)[:, None]).to(dtype)
    model = KMeans(dim=2, components=2, variance=variance).to(dtype)
    history = em(model, x)
    assert history.monotone, history.why
    found = copy.deepcopy(model).double().statistics(x.double())["log_likelihood"].item()
    assert model.statistics(x)["log_likelihood"].item() == pytest.approx(found, rel=1e-4)


@HALVES
def test_mixtures_of_coins_are_summed_in_float32(dtype):
    x = (Digits().train.x > 7).long()
    model = BernoulliMixture(shape=(8, 8), components=10).to(dtype)
    history = em(model, x, sweeps=10)
    assert history.monotone, history.why
    exact = model.statistics(x)["log_likelihood"].item()
    assert exact == pytest.approx(model.double().statistics(x)["log_likelihood"].item(), rel=1e-4)
