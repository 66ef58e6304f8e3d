# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The chain of latent vectors: one link of it is a VAE, and with several all bounds and numbers take it."""

import copy
import pickle

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO
from sklearn.datasets import load_digits

from pyro_dgm.evaluate import active_units, dream, elbo_terms, log_likelihood, reconstruct
from pyro_dgm.infer import ELBO, IWAE, log_weights
from pyro_dgm.models import VAE, HierarchicalVAE
from pyro_dgm.nn import GatedMLP

SIZES = {"shape": (8, 8), "levels": 2}


def digits(count=20):
    return (torch.from_numpy(load_digits().images[:count]) > 7).long()


def ladder(**options):
    return HierarchicalVAE(**{**SIZES, "latents": (5, 3), "hidden": ((16,), (8,)), **options})


@pytest.mark.parametrize("elbo", [Trace_ELBO(), TraceGraph_ELBO(), ELBO(), IWAE(3)], ids=type)
def test_it_trains_under_every_elbo(elbo):
    torch.manual_seed(0)
    model, x = ladder(), digits()
    before = copy.deepcopy(model.state_dict())
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = [float(svi.step(x)) for _ in range(40)]
    assert sum(losses[-5:]) < sum(losses[:5])
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name, _ in model.named_parameters()}


def test_one_layer_is_a_vae():
    torch.manual_seed(0)
    vae, single, x = VAE(**SIZES, latent=4), HierarchicalVAE(**SIZES, latents=[4], hidden=[(200, 200)]), digits()
    single.up[0][0].load_state_dict(vae.posterior[1].state_dict())
    single.down[0][0].load_state_dict(vae.likelihood[0].state_dict())
    weights = []
    for model in (vae, single):
        torch.manual_seed(1)
        weights.append(log_weights(model.model, model.guide, x, particles=3).log_w)
    torch.testing.assert_close(*weights)


def test_its_weights_are_those_of_the_two_chains(device):
    """Written out by hand for two layers: no site is left out, and each conditional sees its own parent."""
    torch.manual_seed(0)
    model, x = ladder().to(device), digits().to(device)
    torch.manual_seed(1)
    weights = log_weights(model.model, model.guide, x)
    torch.manual_seed(1)
    z1, z2 = model.guide(x)
    p = model.prior().log_prob(z2) + model.down[1](z2).log_prob(z1) + model.down[0](z1).log_prob(x)
    q = model.up[0](x.float()).log_prob(z1) + model.up[1](z1).log_prob(z2)
    torch.testing.assert_close(weights.log_w[0], p - q)
    assert (z1.shape, z2.shape) == ((20, 5), (20, 3))


def test_it_dreams_and_is_measured():
    torch.manual_seed(0)
    model, x = ladder(net=GatedMLP), digits()
    pair = (model.model, model.guide)
    assert model.model(size=7).shape == (7, 8, 8)
    assert model.model(x) is x
    assert Predictive(model.model, num_samples=3)(size=4)["z1"].shape == (3, 4, 5)
    assert set(elbo_terms(*pair, x).kl) == {"z1", "z2"}
    assert {site: len(unit) for site, unit in active_units(*pair, x).variances.items()} == {"z1": 5, "z2": 3}
    assert log_likelihood(*pair, x, num_samples=10).values.shape == (20,)
    assert reconstruct(*pair, x).shape == (20, 8, 8)
    assert dream(model.model, size=4).shape == (4, 8, 8)


def test_it_deep_copies_and_pickles():
    torch.manual_seed(0)
    model, x = ladder(), digits()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        values = []
        for one in (model, twin):
            torch.manual_seed(1)
            values.append(IWAE(2).per_datum(one.model, one.guide, x))
        torch.testing.assert_close(*values)


@pytest.mark.parametrize(
    "sizes", [{"latents": ()}, {"latents": (5, 0)}, {"hidden": ((16,),)}, {"levels": 1}, {"shape": ()}]
)
def test_sizes_that_make_no_sense_are_refused(sizes):
    with pytest.raises(ValueError, match="HierarchicalVAE got"):
        ladder(**sizes)


@pytest.mark.parametrize("x", [torch.rand(2, 8, 8), torch.zeros(2, 8, 9).long(), torch.zeros(8, 8).long()])
def test_wrong_data_are_refused(x):
    with pytest.raises(ValueError, match="HierarchicalVAE"):
        ladder().guide(x)
