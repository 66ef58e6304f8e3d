# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A VAE whose decoder has a prior on its weights, on digits."""

import copy
import math
import pickle
from functools import partial

import pyro
import pytest
import torch
from jaxtyping import TypeCheckError
from pyro.infer import SVI, Predictive, Trace_ELBO

from pyro_dgm.data import Digits
from pyro_dgm.infer import ELBO, IWAE, GradientStep
from pyro_dgm.infer.data_set_objective import DataSetObjective
from pyro_dgm.models import VAE, BayesianVAE, HierarchicalVAE
from pyro_dgm.nn import MLP
from pyro_dgm.train import Trainer
from tests.cases import MODELS, SMALL

EACH = pytest.mark.parametrize("weights", ["normal", "map"])


def make(weights="normal", *, size=1297, **options):
    torch.manual_seed(0)
    return BayesianVAE(VAE(levels=2, **SMALL), size=size, weights=weights, **options)


@pytest.fixture(scope="module")
def digits():
    return Digits(binarization="static")


def test_map_is_the_bound_of_the_plain_vae_plus_the_log_prior(digits):
    x, bayes = digits.train.x[:50], make("map")
    vae = bayes.draw(mean=True)
    torch.manual_seed(1)
    plain = -ELBO().loss(vae.model, vae.guide, x)
    torch.manual_seed(1)
    bound = -ELBO().loss(bayes.model, bayes.guide, x)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(bayes.decoder.loc).sum()
    assert torch.allclose(bound, plain * 1297 / 50 + prior, rtol=1e-5)


@EACH
def test_ours_and_stock_agree_under_one_seed(digits, weights):
    x, bayes = digits.train.x[:50], make(weights)
    losses = []
    for elbo in (ELBO(), Trace_ELBO()):
        torch.manual_seed(1)
        losses.append(float(elbo.loss(bayes.model, bayes.guide, x)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_every_vae_can_have_random_weights(name):
    torch.manual_seed(0)
    vae = MODELS[name]()
    before = copy.deepcopy(vae.state_dict())
    bayes = BayesianVAE(vae, size=100, weights="normal")
    x = torch.randint(0, vae.levels, (20, 8, 8))
    step = GradientStep(
        DataSetObjective(bayes.model, bayes.guide, ELBO(2), size=100), torch.optim.Adam(bayes.parameters(), lr=1e-2)
    )
    old = copy.deepcopy(bayes.state_dict())
    losses = [step(x)["loss"] for _ in range(20)]
    assert losses[-1] < losses[0]
    assert all(not torch.equal(old[key], value) for key, value in bayes.state_dict().items() if "prior_s" not in key)
    assert all(torch.equal(before[key], value) for key, value in vae.state_dict().items())
    assert len(pyro.get_param_store()) == 0


@EACH
def test_digits_raise_the_bound_and_inform_the_weights(digits, weights):
    bayes = make(weights)
    objective = DataSetObjective(bayes.model, bayes.guide, ELBO(), size=1297)
    step = GradientStep(objective, torch.optim.Adam(bayes.parameters(), lr=5e-3))
    with torch.no_grad():
        start = objective(digits.train.x)["loss"]
    start_of_weights = bayes.decoder.loc.detach().clone()
    for _ in range(20):
        for batch in digits.batches(batch_size=100):
            step(batch)
    with torch.no_grad():
        end = objective(digits.train.x)["loss"]
    assert end < start - 8
    assert (bayes.decoder.loc - start_of_weights).abs().mean() > 0.02
    if weights == "normal":
        log_scale = bayes.decoder.log_scale
        into, out_of = log_scale[: 32 * 6], log_scale[32 * 6 :]  # the layers of the decoder: 5 to 32 to 64
        assert (log_scale - torch.tensor(0.01).log()).mean() > 0.3  # too narrow at the start, the data say
        assert log_scale.std() > 0.1  # some weights are known better than others
        assert into.isfinite().all()
        assert out_of.isfinite().all()


def test_a_trainer_trains_it(digits, tmp_path):
    bayes = make()
    step = GradientStep(
        DataSetObjective(bayes.model, bayes.guide, ELBO(), size=1297), torch.optim.Adam(bayes.parameters(), lr=5e-3)
    )
    trainer = Trainer(epochs=2, tensorboard=False, progress=False)
    history = trainer.fit(step, digits.batches(batch_size=200), folder=tmp_path)
    assert history.epochs[-1]["train.loss"] < history.epochs[0]["train.loss"]
    assert "train.log_q.weights" in history.epochs[0]


def test_a_narrow_prior_pulls_the_weights_to_zero(digits):
    sizes = []
    for prior_scale in (1.0, 0.02):
        bayes = make("map", prior_scale=prior_scale)
        optimizer, objective = torch.optim.Adam(bayes.parameters(), lr=1e-2), ELBO()
        for batch in [*digits.batches(batch_size=100)] * 4:
            optimizer.zero_grad()
            (objective.differentiable_loss(bayes.model, bayes.guide, batch) / 1297).backward()
            optimizer.step()
        sizes.append(bayes.decoder.loc.square().mean())
    assert sizes[1] < sizes[0] / 4


@EACH
def test_it_trains_under_stock_svi(digits, weights):
    bayes, x = make(weights), digits.train.x[:50]
    svi = SVI(bayes.model, bayes.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    before = copy.deepcopy(bayes.state_dict())
    losses = [svi.step(x) for _ in range(30)]
    assert losses[-1] < losses[0]
    moved = {key for key, value in bayes.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == set(dict(bayes.named_parameters()))
    pyro.clear_param_store()


@EACH
def test_it_dreams_what_it_scores(weights, device):
    bayes = make(weights).to(device)
    dream = bayes.model(size=7)
    assert dream.shape == (7, 8, 8)
    assert dream.device.type == device.type
    assert bayes.guide(dream).shape == (7, 5)
    assert bayes.model(dream) is dream
    samples = Predictive(bayes.model, guide=bayes.guide, num_samples=3)(dream)
    assert samples["weights"].flatten(1).shape == (3, bayes.decoder.size)
    assert samples["z"].shape == (3, 7, 5)
    assert Predictive(bayes.model, num_samples=3)(size=4)["x"].shape == (3, 4, 8, 8)


@EACH
def test_the_predictive_probability_averages_over_weights(digits, weights):
    """Under one seed it is the average over the networks that `draw` gives, each weighed by its own particles."""
    x, bayes = digits.test.x[:20], make(weights)
    torch.manual_seed(2)
    each = [IWAE(4).per_datum(vae.model, vae.guide, x) for vae in (bayes.draw() for _ in range(3))]
    pyro.clear_param_store()
    torch.manual_seed(2)
    found = bayes.log_predictive(x, draws=3, particles=4)
    assert torch.allclose(found, torch.stack(each).logsumexp(0) - math.log(3), rtol=1e-5)
    assert found.shape == (20,)
    assert len(pyro.get_param_store()) == 0


def test_what_is_drawn_is_a_vae_of_its_own(digits):
    bayes, x = make(), digits.train.x[:10]
    first, second, mean = bayes.draw(), bayes.draw(), bayes.draw(mean=True)
    assert isinstance(first, VAE)
    z = torch.randn(3, 5)
    assert not torch.equal(first.likelihood(z).mean, second.likelihood(z).mean)
    assert torch.equal(mean.likelihood(z).mean, bayes.draw(mean=True).likelihood(z).mean)
    assert len(list(first.parameters())) == len(list(VAE(levels=2, **SMALL).parameters()))
    first.load_state_dict(VAE(levels=2, **SMALL).state_dict())
    ELBO().loss_and_grads(first.model, first.guide, x)
    assert all(parameter.grad is not None for parameter in first.parameters())


@EACH
def test_it_copies_pickles_and_loads(weights, digits):
    bayes, x = make(weights), digits.train.x[:10]
    again = make(weights)
    again.load_state_dict(bayes.state_dict())
    for twin in (copy.deepcopy(bayes), pickle.loads(pickle.dumps(bayes)), again):
        losses = []
        for each in (bayes, twin):
            torch.manual_seed(0)
            losses.append(ELBO().loss(each.model, each.guide, x))
        assert torch.equal(*losses)


def test_wrong_data_and_sizes_are_refused():
    bayes = make(size=5)
    with pytest.raises(ValueError, match="needs integers"):
        bayes.guide(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="batch of 6"):
        bayes.model(torch.zeros(6, 8, 8, dtype=torch.long))
    with pytest.raises(ValueError, match="size=0"):
        make(size=0)
    with pytest.raises(ValueError, match="draws=0"):
        bayes.log_predictive(torch.zeros(3, 8, 8, dtype=torch.long), draws=0)


def test_another_model_is_refused():
    ladder = HierarchicalVAE(shape=(8, 8), levels=2, latents=(3, 2), hidden=((4,), (4,)))
    with pytest.raises((ValueError, TypeCheckError), match="HierarchicalVAE"):  # the second while types are checked
        BayesianVAE(ladder, size=10)


def test_a_bound_per_datum_is_refused(digits):
    bayes = make()
    with pytest.raises(ValueError, match="global latent variable"):
        ELBO().per_datum(bayes.model, bayes.guide, digits.train.x[:10])


def test_double_precision(digits):
    torch.manual_seed(0)
    vae = VAE(shape=(8, 8), levels=2, latent=3, decoder=partial(MLP, hidden=(4,))).double()
    bayes = BayesianVAE(vae, size=100)
    assert ELBO(2).loss(bayes.model, bayes.guide, digits.train.x[:10]).dtype == torch.float64
