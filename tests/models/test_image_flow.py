# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A flow of images scores integers, dreams integers, and is trained and measured like every other model."""

import copy
import math
import pickle
from functools import partial

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO
from torch import nn

from pyro_dgm.data import Digits
from pyro_dgm.distributions import UniformDequantizer, VariationalDequantizer
from pyro_dgm.evaluate import bits_per_dim, dream, elbo_terms, log_likelihood
from pyro_dgm.infer import ELBO, IWAE, GradientStep, Objective, ReweightedWakeSleep
from pyro_dgm.models import ImageFlow
from pyro_dgm.nn import ConvNet
from pyro_dgm.train import Trainer, Validation
from pyro_dgm.transforms import ActNorm, AffineCoupling, Compose, Glow, Planar, RealNVP

NET = partial(ConvNet, hidden=(6,), kernels=(3, 3), activation=nn.Tanh)
FLOWS = {
    "couplings": lambda shape: Compose(
        [AffineCoupling(shape, mask="checkerboard", swap=swap, net=NET) for swap in (False, True)]
    ),
    "Glow": partial(Glow, scales=2, depth=2, net=NET),
    "RealNVP": partial(RealNVP, scales=2, net=NET),
}
SMALL_DEQUANTIZER = partial(VariationalDequantizer, context=3, depth=2, encoder=NET)


def small(flow="Glow", **options):
    return ImageFlow(**{"shape": (8, 8), "levels": 17, "flow": FLOWS[flow], **options})


def images(number=20, shape=(8, 8), levels=17):
    return torch.randint(levels, (number, *shape), dtype=torch.uint8)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("shape", [(8, 8), (3, 4, 8)])
@pytest.mark.parametrize("alpha", [0.05, None])
@pytest.mark.parametrize("dequantizer", [UniformDequantizer, SMALL_DEQUANTIZER])
def test_it_scores_and_dreams_integers(flow, shape, alpha, dequantizer, device):
    model = small(flow, shape=shape, alpha=alpha, dequantizer=dequantizer).to(device)
    x = images(shape=shape).to(device)
    for bound in (ELBO(), IWAE(3)):
        found = bound.per_datum(model.model, model.guide, x)
        assert found.shape == (20,)
        assert found.isfinite().all()
    dreamt = model.eval().model(size=5)
    assert dreamt.shape == (5, *shape)
    assert dreamt.dtype == torch.int64
    assert dreamt.min() >= 0
    assert dreamt.max() < 17
    assert model.distribution().event_shape == shape


def test_the_weight_is_the_density_of_the_noisy_image():
    """With uniform noise log w is log p(v), and the bound in bits is -log p(v) / (D log 2) in units of levels."""
    model, x = small().eval(), images()
    trace = poutine.trace(model.guide).get_trace(x)
    v = trace.nodes["v"]["value"]
    scored = poutine.trace(poutine.replay(model.model, trace=trace)).get_trace(x)
    scored.compute_log_prob()
    torch.testing.assert_close(scored.nodes["v"]["log_prob"], model.distribution().log_prob(v))
    assert scored.nodes["x"]["log_prob"].tolist() == [0] * 20
    assert (v.floor() == x).all()


def test_an_even_density_costs_the_log_of_the_levels():
    """Where the noise becomes logistic, v is even in (0, L), and every image costs log2(L) bits per pixel."""
    model = ImageFlow(shape=(4, 4), levels=16, flow=FLOWS["couplings"], alpha=1e-6).double()
    x = images(shape=(4, 4), levels=16)
    v = model.guide(x)
    y = model.to_levels.inv(v)  # couplings start as the identity
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(y)
    logistic = torch.nn.functional.logsigmoid(y) + torch.nn.functional.logsigmoid(-y)
    even = model.distribution().log_prob(v) + (logistic - normal).sum((-3, -2, -1))
    torch.testing.assert_close(bits_per_dim(even, (4, 4)), torch.full((20,), 4.0).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dequantizer", [UniformDequantizer, SMALL_DEQUANTIZER])
@pytest.mark.parametrize(
    "bound", [Trace_ELBO(), TraceGraph_ELBO(), ELBO(), IWAE(3, gradient="dreg"), ELBO(gradient="stl")]
)
def test_stock_svi_and_our_bounds_train_it(bound, dequantizer):
    x = Digits(binarization="none").train.x
    model = small("couplings", dequantizer=dequantizer)
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 5e-3}), bound)
    losses = [svi.step(x[turn * 50 : turn * 50 + 50]) / 50 for turn in range(20)]
    assert losses[-1] < losses[0] - 20
    assert all(math.isfinite(loss) for loss in losses)


def test_the_first_batch_initialises_every_act_norm_while_training(tmp_path):
    data = Digits(binarization="none")
    model = small()
    norms = [module for module in model.modules() if isinstance(module, ActNorm)]
    assert len(norms) > 3
    objective = Objective(model.model, model.guide, ELBO())
    step = GradientStep(objective, torch.optim.Adam(objective.parameters(), lr=1e-3))
    trainer = Trainer(epochs=1, tensorboard=False, progress=False)
    history = trainer.fit(
        step, data.batches(batch_size=400), folder=tmp_path, validate=Validation(objective, data.valid.x)
    )
    assert all(bool(norm.initialized) for norm in norms)
    assert history.epochs[-1]["valid.loss"] < 64 * math.log(17)


def test_evaluation():
    model, x = small(), images(10)
    ELBO().per_datum(model.model, model.guide, x)
    terms = elbo_terms(model.model, model.guide, x)
    assert terms.reconstruction.mean == 0
    assert terms.kl.keys() == {"v"}
    one, many = (log_likelihood(model.model, model.guide, x, num_samples=number) for number in (1, 50))
    assert many.mean < one.mean + 5 * one.standard_error
    assert "bits/dim" in str(many.to_bits_per_dim((8, 8)))
    assert dream(model.model, 4).shape == (4, 8, 8)
    assert Predictive(model.eval().model, num_samples=3)(size=2)["x"].shape == (3, 2, 8, 8)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("alpha", [0.05, None])
def test_codes_of_images(flow, alpha):
    model, x = small(flow, alpha=alpha), images(10, levels=17)
    ELBO().per_datum(model.model, model.guide, x)
    model.eval()
    noise = model.encode(x)
    assert noise.shape == (10, *model.flow.shape)
    assert (model.decode(noise) == x).all()
    assert model.decode(noise.reshape(2, 5, *model.flow.shape)).shape == (2, 5, 8, 8)
    assert model.encode(x[0]).shape == model.flow.shape


def test_a_code_is_the_noise_behind_what_the_guide_draws():
    """Not behind the middle of a cell, where a learned guide may never be."""
    model, x = small(dequantizer=partial(VariationalDequantizer, depth=2, context=4)), images(10, levels=17)
    ELBO().per_datum(model.model, model.guide, x)
    torch.manual_seed(3)
    v = model.guide(x)
    torch.manual_seed(3)
    assert torch.equal(model.encode(x), model.encode(v))


def test_temperature_changes_the_noise_and_nothing_else():
    model, x = small(), images()
    ELBO().per_datum(model.model, model.guide, x)
    cool = model.eval().at_temperature(1e-3)
    assert cool.temperature == 1e-3
    assert model.temperature == 1
    assert [*cool.parameters()][0] is [*model.parameters()][0]
    still = cool.model(size=50).double()
    assert still.std(0).max() < model.model(size=50).double().std(0).max()
    torch.testing.assert_close(still[0].long(), model.decode(torch.zeros(model.flow.shape)), atol=1, rtol=0)
    with pytest.raises(ValueError, match="it must be positive"):
        model.at_temperature(0)


def test_sampling_and_scoring_are_one_pass():
    calls = []

    class Counting(ConvNet):
        def body(self, x):
            calls.append(len(x))
            return super().body(x)

    def flow(shape):
        return Compose([AffineCoupling(shape, mask="checkerboard", net=partial(Counting, hidden=(), kernels=(3,)))])

    model = ImageFlow(shape=(4, 4), levels=8, flow=flow)
    trace = poutine.trace(model.model).get_trace(size=3)
    trace.compute_log_prob()
    assert calls == [3]


def test_copies_state_and_dtypes():
    model, x = small(dequantizer=SMALL_DEQUANTIZER), images()
    ELBO().per_datum(model.model, model.guide, x)
    v = model.eval().guide(x).detach()
    expected = model.distribution().log_prob(v)
    fresh = small(dequantizer=SMALL_DEQUANTIZER).eval()
    fresh.load_state_dict(model.state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fresh):
        torch.testing.assert_close(other.distribution().log_prob(v), expected)
    double = copy.deepcopy(model).double()
    torch.testing.assert_close(double.distribution().log_prob(v.double()).float(), expected, atol=1e-2, rtol=1e-4)
    assert double.guide(x).dtype == torch.float64


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"images have \(H, W\) or \(C, H, W\)"):
        small(shape=(64,))
    with pytest.raises(ValueError, match="at least 2"):
        small(levels=1)
    with pytest.raises(ValueError, match="must be images of shape"):
        ImageFlow(shape=(4, 4), levels=2, flow=lambda shape: Planar(16))
    with pytest.raises(ValueError, match="what makes one from the shape, e.g. flow=Glow"):
        ImageFlow(shape=(4, 4), levels=2, flow=FLOWS["couplings"]((1, 4, 4)))
    with pytest.raises(ValueError, match="its context_dim must be left out"):
        ImageFlow(shape=(4, 4), levels=2, flow=partial(AffineCoupling, mask="checkerboard", context_dim=3))
    with pytest.raises(ValueError, match="the margin must be"):
        small(alpha=0)


def test_dequantisers_that_it_refuses():
    with pytest.raises(ValueError, match=r"for shape=\(8, 8\) and levels=4: the data have .* levels=17"):
        small(dequantizer=lambda shape, levels: UniformDequantizer(shape, 4))
    with pytest.raises(ValueError, match="it needs what makes one from shape and levels"):
        small(dequantizer=UniformDequantizer((8, 8), 17))
    with pytest.raises(ValueError, match="that makes Normal: it must make a module"):
        small(dequantizer=lambda shape, levels: torch.distributions.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="that makes Planar: it must make a module"):
        small(dequantizer=lambda shape, levels: Planar(64))


@pytest.mark.parametrize("wrong", [17, -1, 300])
def test_values_that_are_no_levels(wrong):
    model, x = small(), torch.full((3, 8, 8), wrong)
    for use in (model.model, model.guide, model.encode):
        with pytest.raises(ValueError, match=rf"got x from {wrong} to {wrong}: it has 17 levels: 0 \.\.\. 16"):
            use(x)


def test_data_of_other_shapes_and_kinds():
    with pytest.raises(ValueError, match="it needs integers"):
        small().guide(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"it needs \(B, 8, 8\)"):
        small().model(torch.zeros(8, 8, dtype=torch.long))
    with pytest.raises(ValueError, match="NaN in it, which is no level"):
        small().decode(torch.full((2, 64), torch.nan))
    with pytest.raises(ValueError, match="fewer than 8 bits"):
        small("couplings").to(torch.bfloat16).guide(images())


def test_the_guide_does_not_score_dreams_outside_the_levels():
    """What a flow puts below 0 is clipped: q(v | x) has no density at such a v, and wake-sleep no lesson."""
    model, x = small("couplings", alpha=None), images()
    with pytest.raises(
        ValueError, match=r"outside the cells .* leave 0 \.\.\. 17 .* Use ReweightedWakeSleep\(insomnia=1\)"
    ):
        ReweightedWakeSleep(3, insomnia=0.5).loss_and_grads(model.model, model.guide, x)
    assert math.isfinite(ReweightedWakeSleep(3).loss_and_grads(model.model, model.guide, x))
