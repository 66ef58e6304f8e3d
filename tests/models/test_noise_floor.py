# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The least noise of linear factor models is a share of the data's variance, so that no unit of the data matters."""

import math

import pytest
import torch
from sklearn.decomposition import PCA

from pyro_dgm.infer import em
from pyro_dgm.models import PPCA
from tests.models.test_ppca import EACH, data, make


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e4])
def test_units_of_the_data_do_not_matter(name, unit, dtype, device):
    """Log p(x) falls by D log(unit) and nothing else, as the floor is a share of the variance."""
    x, ends = data(device=device), []
    for scale in (1.0, unit):
        model = make(name, device=device, dtype=dtype)
        history = em(model, (x * scale).to(dtype), sweeps=200, tolerance=1e-7, chunk_size=31)
        assert history.monotone, history.why
        ends.append(history.objectives[-1] + 6 * math.log(scale))
    assert ends[1] == pytest.approx(ends[0], abs=1e-6 if dtype == torch.float64 else 1e-3)


def test_small_units_score_as_scikit_learns_pca():
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(210, 8, generator=generator, dtype=torch.float64)
    x = (draw[:200, :2] @ draw[200:202, 2:] + 0.1 * draw[:200, 2:]) * 1e-4
    model = PPCA(dim=6, latent=2).double()
    model.maximum_likelihood(x)
    with torch.no_grad():  # scikit-learn's variances are with 1 / (n - 1)
        model.log_scale.copy_(0.5 * (200 / 199 * model.noise[0] - model.least).log())
        model.loading.mul_((200 / 199) ** 0.5)
    peer = PCA(2, svd_solver="full").fit(x.numpy()).score(x.numpy())
    assert model.log_prob(x).mean().item() == pytest.approx(peer, abs=1e-6)


def test_constant_coordinates_have_the_floor_of_the_others():
    x = data()
    x[:, 2] = 0.1
    model = make("FactorAnalysis")
    model.start(1e-3 * x)
    others = 1e-6 * x.var(0, unbiased=False) * 1e-6
    expected = others.clone()
    expected[2] = others.sum() / 6
    torch.testing.assert_close(model.least, expected)
