# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Under automatic mixed precision networks have 8 bits, and all that is probability has the 24 of float32."""

from functools import partial

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from pyro_dgm.infer import ELBO, Objective, log_weights
from pyro_dgm.infer.reduction import Reduction
from pyro_dgm.models import VAE, AmortisedMixture, BayesianMixture, BayesianVAE, FlowModel, GaussianMixture
from pyro_dgm.nn import MLP
from pyro_dgm.transforms import LULinear
from tests.cases import BOUNDS, KL_CONTROLS, LIKELIHOODS, MODELS
from tests.infer import programs
from tests.infer.programs import black_and_white


def scored_by(name, likelihood):
    """A VAE of four pixels with a likelihood, whose name says of how many levels it is."""
    levels = int(name.partition("(")[2].partition(" ")[0] or 2)
    tiny = partial(MLP, hidden=(4,))
    vae = VAE(shape=(2, 2), levels=levels, latent=2, encoder=tiny, decoder=tiny, likelihood=lambda s, _: likelihood(s))
    return vae, torch.randint(levels, (6, 2, 2))


PROGRAMS: dict[str, programs.Make] = {
    **programs.MODELS,
    **programs.FLOWS,
    **{name: partial(scored_by, name, make) for name, make in LIKELIHOODS.items()},
    "AmortisedMixture": lambda: (
        AmortisedMixture(mixture=GaussianMixture(dim=2, components=3), shape=(2,)),
        torch.randn(6, 2),
    ),
    "BayesianMixture": lambda: (BayesianMixture(dim=2, components=3), torch.randn(6, 2)),
    "BayesianVAE": lambda: (BayesianVAE(MODELS["VAE"](), size=100), black_and_white()),
    "FlowModel": lambda: (FlowModel(shape=(6,)), torch.randn(6, 6)),
}
WITHOUT_NETWORKS = ("BayesianMixture", "BernoulliMixture", "FactorAnalysis", "FlowModel", "GaussianMixture", "KMeans")
WITHOUT_NETWORKS += ("PPCA",)


def ready(name, device):
    """A program and data; flows that start from data have started."""
    torch.manual_seed(0)
    model, x = PROGRAMS[name]()
    model, x = model.to(device), x.to(device)
    model.model(x)
    return model.eval(), x


def mixed(device, *, enabled=True):
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def numbers(trace):
    """Values, log-densities and parameters of every site."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and type(site["fn"]).__name__ != "_Subsample":
            fn = site["fn"]
            given = vars(
                getattr(fn, "base_dist", fn)
            ).items()  # and not what is computed from them when it is asked for
            yield name, site["value"]
            yield f"log p({name})", fn.log_prob(site["value"])
            yield from ((f"{name}.{part}", value) for part, value in given if isinstance(value, Tensor))


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_sample_parameter_and_log_density_is_single(name, device):
    model, x = ready(name, device)
    with mixed(device), torch.no_grad():
        guess = poutine.trace(model.guide).get_trace(x)
        scored = poutine.trace(poutine.replay(model.model, guess)).get_trace(x)
        dream = poutine.trace(model.model).get_trace(size=3)
        for trace in (guess, scored, dream):
            for part, value in numbers(trace):
                assert not value.is_floating_point() or value.dtype == torch.float32, part


@pytest.mark.parametrize("name", PROGRAMS)
def test_log_weights_are_single_and_those_of_float32_up_to_the_networks(name, device):
    model, x = ready(name, device)
    found = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with mixed(device, enabled=enabled), torch.no_grad():
            found.append(log_weights(model.model, model.guide, x, particles=3))
    plain, ours = found
    for terms, mine in ((plain.model_terms, ours.model_terms), (plain.guide_terms, ours.guide_terms)):
        assert list(mine) == list(terms)
        assert {term.dtype for term in mine.values()} <= {torch.float32}
    off = (ours.log_w - plain.log_w).abs().max()
    assert off < (1e-5 if name.startswith(WITHOUT_NETWORKS) else 0.2)  # nats, of up to 200


def evaluated(bound, device, *, enabled):
    torch.manual_seed(0)
    model = MODELS["VAE"]().to(device)
    objective, x = Objective(model.model, model.guide, bound), black_and_white(200).to(device)
    torch.manual_seed(1)
    with mixed(device, enabled=enabled):
        loss = objective(x)["loss"]
        values = bound.per_datum(model.model, model.guide, x)
    loss.backward()
    return loss, values, torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


@pytest.mark.parametrize("particles", [1, 5])
@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_and_their_gradients(name, particles, device):
    plain, ours = (evaluated(BOUNDS[name](particles), device, enabled=enabled) for enabled in (False, True))
    assert {part.dtype for part in ours} == {torch.float32}
    torch.testing.assert_close(ours[0], plain[0], rtol=0, atol=0.05)
    torch.testing.assert_close(ours[1], plain[1], rtol=0, atol=0.1)
    assert torch.cosine_similarity(ours[2], plain[2], 0) > 0.99


@pytest.mark.parametrize("name", KL_CONTROLS)
def test_controls_of_the_kl(name, device):
    values = {}
    for enabled in (False, True):
        loss, _, grad = evaluated(ELBO(kl=KL_CONTROLS[name]()), device, enabled=enabled)
        values[enabled] = loss, grad
    assert values[True][0].dtype == torch.float32
    torch.testing.assert_close(values[True][0], values[False][0], rtol=0, atol=0.05)
    assert torch.cosine_similarity(values[True][1], values[False][1], 0) > 0.99


def test_a_program_that_scores_raw_outputs_is_summed_in_single_precision(device):
    """Stock Pyro keeps the 8 bits that a network gave, to which 1001 is 1000."""
    half = torch.full((1, 3, 1001), 1.0, dtype=torch.bfloat16, device=device)
    found = Reduction(2, [-2], 1)(half)
    assert found.dtype == torch.float32
    assert found.tolist() == [[1001.0] * 3]

    net = torch.nn.Linear(2, 300).to(device)

    def model(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("pixels", 300, dim=-1):
            z = torch.ones(len(x), 2, device=device)
            logits = torch.stack([net(z), -net(z)], -1)
            pyro.sample("x", pyro.distributions.Categorical(logits=logits), obs=x)

    x = torch.zeros(4, 300, dtype=torch.long, device=device)
    with mixed(device):
        found = log_weights(model, lambda x: None, x).log_w
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, log_weights(model, lambda x: None, x).log_w, rtol=0, atol=1.0)


@pytest.mark.parametrize("kind", ["total", "stl"])
def test_gradients_of_flows_are_single_within_a_forward_pass_too(kind, device):
    """What goes through the samples is differentiated while autocast is on."""
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        flow = FlowModel(shape=(6,), flow=LULinear).to(device)
        torch.nn.init.normal_(flow.flow.values.triangles, std=0.3)
        fit = flow.approximation(lambda x: -(x.norm(dim=-1) - 2).square())
        torch.manual_seed(1)
        with mixed(device, enabled=enabled):
            loss = ELBO(gradient=kind).loss_and_grads(fit.model, fit.guide, 50)
        found.append((loss, [weight.grad for weight in flow.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)
