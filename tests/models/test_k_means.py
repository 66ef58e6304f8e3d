# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""K-means beside scikit-learn's, with clusters that are empty, and with ties."""

import pytest
import torch
from sklearn.cluster import KMeans as Peer

from pyro_dgm.data import Digits
from pyro_dgm.infer import EM, em
from pyro_dgm.models import KMeans


def digits(device="cpu", dtype=torch.float64):
    return Digits().train.x.flatten(1).to(device, dtype)


def test_it_ends_where_scikit_learn_ends():
    x = digits()
    model = KMeans(dim=64, components=10, variance=0).double()
    model.start(x)
    peer = Peer(10, init=model.loc.detach().numpy().copy(), n_init=1, tol=0, algorithm="lloyd").fit(x.numpy())
    history = em(model, x, seed=None, tolerance=0)
    assert history.converged
    assert history.monotone
    assert model.inertia(x).item() == pytest.approx(peer.inertia_, rel=1e-10)
    assert -2 * len(x) * history.objectives[-1] == pytest.approx(peer.inertia_, rel=1e-10)
    assert torch.allclose(model.loc, torch.from_numpy(peer.cluster_centers_))
    assert torch.equal(model.nearest(x), torch.from_numpy(peer.labels_).long())
    assert torch.equal(model.responsibilities(x).argmax(1), model.nearest(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_restarts_keep_the_best(dtype, device):
    x = digits(device, dtype)
    model = KMeans(dim=64, components=10, variance=0).to(device, dtype)
    history = em(model, x, restarts=4, sweeps=30)
    assert history.objectives[-1] == max(history.restarts)
    assert len(set(history.restarts)) > 1
    assert model.inertia(x).item() == pytest.approx(-2 * len(x) * history.objectives[-1], rel=1e-5)


def test_a_centre_without_data_stays():
    x = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
    model = KMeans(dim=1, components=3, variance=0)
    with torch.no_grad():
        model.loc.copy_(torch.tensor([[0.0], [500.0], [8.0]]))
    history = em(model, x, seed=None)
    assert torch.equal(model.loc, torch.tensor([[0.5], [500.0], [10.0]]))
    assert history.monotone
    assert model.inertia(x) == 2.5


def test_more_centres_than_data_and_equal_data():
    for x in (torch.randn(2, 3), torch.ones(5, 3)):
        model = KMeans(dim=3, components=4, variance=0)
        assert em(model, x).objectives[-1] == pytest.approx(0, abs=1e-10)
        assert model.loc.isfinite().all()


def test_of_equally_near_centres_the_first():
    model = KMeans(dim=1, components=2, variance=0)
    with torch.no_grad():
        model.loc.copy_(torch.tensor([[-1.0], [1.0]]))
    assert model.nearest(torch.zeros(1, 1)) == 0


def test_only_centres_are_learned():
    model = KMeans(dim=2, components=3)
    assert [name for name, _ in model.named_parameters()] == ["loc"]
    assert torch.allclose(model.weights, torch.full((3,), 1 / 3))
    assert EM(model)(torch.randn(5, 2))["loss"].isfinite()


def test_without_a_density_it_does_not_score():
    model, x = KMeans(dim=2, components=3, variance=0), torch.randn(4, 2)
    for call in (model.log_prob, model.model, model.guide):
        with pytest.raises(ValueError, match="variance > 0"):
            call(x)
    with pytest.raises(ValueError, match="variance > 0"):
        model.model(size=2)
    with pytest.raises(ValueError, match="variance=-1"):
        KMeans(dim=2, components=3, variance=-1)
    with pytest.raises(ValueError, match=r"needs \(B, 2\)"):
        model.nearest(torch.zeros(3, 4))
