# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Updates found from a program are those of the books, and what has none is refused by name."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from sklearn.linear_model import ARDRegression
from torch import Tensor

from pyro_dgm.infer import ELBO, IWAE, MeanField
from pyro_dgm.train import Trainer
from tests.oracles import within


def tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


DATA = tensor(0.3, -1.2, 2.5, 1.1, 0.9, 1.7)


def unknown_normal(x: Tensor) -> None:
    precision = pyro.sample("precision", dist.Gamma(tensor(2.0)[0], 1.5))
    mean = pyro.sample("mean", dist.Normal(tensor(0.5)[0], (0.3 * precision) ** -0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, precision**-0.5), obs=x)


def clusters(x: Tensor, size: int = 3) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((size,), 0.5, dtype=x.dtype)))
    with pyro.plate("clusters", size):
        precision = pyro.sample("precision", dist.Gamma(tensor(2.0).to(x), 1.0))
        mean = pyro.sample("mean", dist.Normal(tensor(0.0).to(x), 3.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(mean[z], precision[z] ** -0.5), obs=x)


def regression(x: Tensor, y: Tensor) -> None:
    noise = pyro.sample("noise", dist.Gamma(tensor(1e-3)[0], 1e-3))
    relevance = pyro.sample("relevance", dist.Gamma(tensor(1e-3), 1e-3).expand([x.shape[1]]).to_event(1))
    weight = pyro.sample("weight", dist.Normal(tensor(0.0), relevance**-0.5).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x @ weight, noise**-0.5), obs=y)


def test_a_normal_of_unknown_mean_and_precision() -> None:
    """Bishop (2006), eq. 10.26 to 10.30, iterated by hand."""
    field = MeanField(unknown_normal, DATA)
    assert field.fit(tolerance=1e-13).monotone
    size, total = len(DATA), DATA.sum()
    mean = (0.3 * 0.5 + total) / (0.3 + size)
    shape, rate = 2.0 + (size + 1) / 2, tensor(1.0)[0]
    for _ in range(200):
        variance = rate / shape / (0.3 + size)
        squares = (DATA - mean).square().sum() + size * variance + 0.3 * ((mean - 0.5) ** 2 + variance)
        rate = 1.5 + squares / 2
    torch.testing.assert_close(field.posterior("mean").loc, mean)
    torch.testing.assert_close(field.posterior("mean").variance, rate / shape / (0.3 + size))
    assert float(field.posterior("precision").concentration) == pytest.approx(shape)
    torch.testing.assert_close(field.posterior("precision").rate, rate)


def test_a_mixture_is_updated_as_by_hand() -> None:
    x = torch.cat([DATA - 3, DATA * 0.5 + 3])
    field = MeanField(clusters, x, seed=1)
    r = field.posterior("z").probs
    m, spread = field.posterior("mean").loc.clone(), torch.full((3,), 9.0, dtype=x.dtype)
    for _ in range(8):
        field.sweep()  # in the order of the program: weights, precisions, means, and last the assignments
        alpha = 0.5 + r.sum(0)
        shape = 2.0 + r.sum(0) / 2
        rate = 1.0 + (r * ((x[:, None] - m) ** 2 + spread)).sum(0) / 2
        expected = shape / rate
        spread = 1 / (1 / 9 + expected * r.sum(0))
        m = spread * expected * (r * x[:, None]).sum(0)
        log_scale = shape.digamma() - rate.log()
        scores = alpha.digamma() + (log_scale - expected * ((x[:, None] - m) ** 2 + spread)) / 2
        r = scores.softmax(-1)
        torch.testing.assert_close(field.posterior("weights").concentration, alpha)
        torch.testing.assert_close(field.posterior("mean").loc, m)
        torch.testing.assert_close(field.posterior("precision").rate, rate)
        torch.testing.assert_close(field.posterior("z").probs, r)
    assert field.history.monotone, field.history.why


def test_relevance_of_inputs_as_scikit_learn_finds_it() -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 4, dtype=torch.float64)
    y = x @ tensor(1.0, 0.0, -2.0, 0.0) + 0.3 * torch.randn(60, dtype=torch.float64)
    field = MeanField(regression, x, y)
    assert field.fit(sweeps=60, tolerance=1e-6).monotone
    peer = ARDRegression(fit_intercept=False).fit(x.numpy(), y.numpy())
    torch.testing.assert_close(field.posterior("weight").mean, torch.from_numpy(peer.coef_), atol=5e-2, rtol=0)
    relevance, noise = field.posterior("relevance").base_dist.mean, field.posterior("noise").mean
    precision = noise * x.mT @ x + relevance.diag()  # the update of the weights at the fixed point
    torch.testing.assert_close(
        field.posterior("weight").mean, torch.linalg.solve(precision, noise * x.mT @ y), atol=1e-4, rtol=0
    )


def test_flips_of_a_coin_are_exact() -> None:
    def flips(x: Tensor) -> None:
        p = pyro.sample("p", dist.Beta(tensor(2.0)[0], 3.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(p), obs=x)

    x = tensor(1, 1, 0, 1, 1, 0, 1)
    field = MeanField(flips, x)
    bound = field.sweep()
    q = field.posterior("p")
    assert (float(q.concentration1), float(q.concentration0)) == pytest.approx((7, 5))
    evidence = sum(math.lgamma(part) * sign for part, sign in ((7, 1), (5, 1), (12, -1), (2, -1), (3, -1), (5, 1)))
    assert bound == pytest.approx(evidence)


def test_a_topic_model_separates_topics() -> None:
    def topics(words: Tensor) -> None:
        with pyro.plate("topics", 2):
            vocabulary = pyro.sample("vocabulary", dist.Dirichlet(torch.full((6,), 0.5, dtype=torch.float64)))
        with pyro.plate("documents", words.shape[1]):
            share = pyro.sample("share", dist.Dirichlet(torch.full((2,), 0.3, dtype=torch.float64)))
            with pyro.plate("words", words.shape[0]):
                topic = pyro.sample("topic", dist.Categorical(share))
                pyro.sample("x", dist.Categorical(vocabulary[topic]), obs=words)

    generator = torch.Generator().manual_seed(0)
    words = torch.randint(3, (15, 8), generator=generator) + 3 * (torch.arange(8) % 2)
    field = MeanField(topics, words)
    assert field.fit(sweeps=30).monotone
    share = field.posterior("share").mean[:, 0] > 0.5
    assert (share == share[0]).equal(torch.arange(8) % 2 == 0)
    r = field.posterior("topic").probs
    torch.testing.assert_close(field.posterior("share").concentration, 0.3 + r.sum(0), atol=1e-5, rtol=0)


def test_the_bound_is_the_elbo_of_the_guide() -> None:
    field = MeanField(unknown_normal, DATA)
    field.fit()
    torch.manual_seed(0)
    with torch.no_grad():
        draws = [-ELBO(400).differentiable_loss(unknown_normal, field.guide, DATA) for _ in range(20)]
    assert within(torch.stack(draws), field.bound())
    mixed = MeanField(clusters, DATA)
    mixed.fit(sweeps=3)
    draws = [torch.tensor(-Trace_ELBO().loss(clusters, mixed.guide, DATA)) for _ in range(400)]
    assert within(torch.stack(draws).double(), mixed.bound())


def test_it_is_a_step_and_its_state_continues() -> None:
    field, again = MeanField(clusters, DATA), MeanField(clusters, DATA, seed=7)
    losses = [float(field(DATA)["loss"]) for _ in range(3)]
    assert losses == [-bound / 6 for bound in field.history.objectives]
    again.load_state_dict(field.state_dict())
    torch.testing.assert_close(again.bound(), field.bound())
    assert again.history.objectives == field.history.objectives


def test_as_a_step_it_takes_all_its_data_and_no_others() -> None:
    field = MeanField(clusters, DATA)
    for batch in (DATA[:3], 100 * DATA, DATA.float()):
        with pytest.raises(ValueError, match="not the data it was made for"):
            field(batch)
    assert not field.history.objectives
    loss = field(DATA.clone().flip(0))["loss"]  # a loader may shuffle
    assert float(loss) == pytest.approx(-float(field.bound()) / 6)


def test_single_precision_and_devices(device: torch.device) -> None:
    x = torch.cat([DATA - 3, DATA + 3]).to(device, torch.float32)
    field = MeanField(clusters, x)
    history = field.fit(sweeps=10)
    assert history.monotone, history.why
    assert field.posterior("mean").loc.dtype == torch.float32
    assert field.posterior("mean").loc.device.type == device.type


def logistic(x: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(tensor(0.0)[0], 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(logits=slope), obs=(x > 0).double())


def entangled(x: Tensor) -> None:
    with pyro.plate("weights", 2):
        weight = pyro.sample("weight", dist.Normal(tensor(0.0), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(weight.sum(), 1.0), obs=x)


def chained(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(tensor(0.3)))
        pyro.sample("x", dist.Normal(z + z.roll(1), 1.0), obs=x)


def outside(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(tensor(0.3)))
    pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x.sum())


def heavy(x: Tensor) -> None:
    scale = pyro.sample("scale", dist.HalfCauchy(tensor(1.0)[0]))
    pyro.sample("x", dist.Normal(0.0, scale), obs=x[0])


def part(x: Tensor) -> None:
    with pyro.plate("data", len(x), subsample_size=2) as index:
        z = pyro.sample("z", dist.Normal(tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def nothing(x: Tensor) -> None:
    pyro.sample("x", dist.Normal(tensor(0.0)[0], 1.0), obs=x[0])


REFUSED = (
    (logistic, "'slope'"),
    (entangled, "'weight'"),
    (chained, "'z'"),
    (outside, "'z'"),
    (heavy, "'scale' of distribution HalfCauchy"),
    (part, "'z' with a scale"),
    (nothing, "without latent sites"),
)


@pytest.mark.parametrize(("model", "message"), REFUSED, ids=[model.__name__ for model, _ in REFUSED])
def test_what_is_not_conjugate_is_refused_by_name(model, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeanField(model, DATA).sweep()


def test_impossible_values_have_no_weight() -> None:
    def dice(x: Tensor) -> None:
        p = pyro.sample("p", dist.Beta(2 * tensor(1.0)[0], 2.0))
        with pyro.plate("data", len(x)):
            large = pyro.sample("large", dist.Bernoulli(p))
            faces = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]], dtype=x.dtype)
            pyro.sample("x", dist.Categorical(faces[large.long()]), obs=x.long())

    x = tensor(0, 2, 1, 2)
    field = MeanField(dice, x)
    history = field.fit()
    assert history.monotone
    assert math.isfinite(history.objectives[-1])
    torch.testing.assert_close(field.posterior("large").probs[1::2], tensor(1, 1))
    assert all(bool(value.isfinite().all()) for value in field.module.state_dict().values())


def test_the_trainer_makes_the_sweeps(tmp_path) -> None:
    field = MeanField(clusters, DATA)
    history = Trainer(epochs=3, progress=False).fit(field, [DATA], folder=tmp_path)
    losses = [epoch["train.loss"] for epoch in history.epochs]
    assert losses == pytest.approx([-bound / 6 for bound in field.history.objectives])
    more = MeanField(clusters, DATA, seed=7)
    Trainer(epochs=5, progress=False).fit(more, [DATA], folder=tmp_path, resume=True)
    whole = MeanField(clusters, DATA)
    for _ in range(5):
        whole.sweep()
    assert more.history.objectives == pytest.approx(whole.history.objectives)


def test_importance_sampling_from_the_guide_gives_the_evidence() -> None:
    field = MeanField(unknown_normal, DATA)
    field.fit()
    torch.manual_seed(0)
    with torch.no_grad():
        bounds = [-IWAE(2000).differentiable_loss(unknown_normal, field.guide, DATA) for _ in range(10)]
    evidence = torch.stack(bounds)
    assert evidence.std() < 0.1
    assert 0.01 < float(evidence.mean() - field.bound()) < 0.5


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="finite"):
        MeanField(unknown_normal, DATA / 0).sweep()
    with pytest.raises(ValueError, match="no site 'other'"):
        MeanField(unknown_normal, DATA).posterior("other")


@pytest.mark.parametrize("x", [DATA[:1], DATA[:2] * 0, 1e6 + DATA], ids=["one datum", "all alike", "far away"])
def test_poor_data_are_safe(x: Tensor) -> None:
    history = MeanField(clusters, x).fit(sweeps=20)
    assert history.monotone, history.why
    assert math.isfinite(history.objectives[-1])
