# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""RealNVP is couplings of chessboards and channels in the order of its paper, and begins where data tell it to."""

import copy
import pickle
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_dgm.nn import ConvNet, ResidualConvNet
from pyro_dgm.transforms.act_norm import ActNorm
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.invert import Invert
from pyro_dgm.transforms.masks import Checkerboard
from pyro_dgm.transforms.real_nvp import RealNVP
from pyro_dgm.transforms.reversible import Reversible
from tests.transforms.image_flows import data, digits, images, stirred

close = torch.testing.assert_close
small = partial(ResidualConvNet, channels=6, blocks=1, activation=nn.Tanh)
SmallRealNVP = partial(RealNVP, scales=2, net=small)


def changed_by(coupling):
    """For each channel and pixel, whether the coupling changes it."""
    coupling, x = copy.deepcopy(coupling), torch.randn(coupling.shape, dtype=torch.float64)
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.add_(torch.randn(parameter.shape))
    return coupling(x) != x


def test_scoring_goes_through_the_couplings_of_the_paper():
    flow = stirred(SmallRealNVP((3, 8, 8), scales=3))
    odd = (torch.arange(8).unsqueeze(1) + torch.arange(8)) % 2 == 1
    for i, scale in enumerate(flow.scales):
        norms, couplings, z = scale.flows[::2], scale.flows[1::2], torch.zeros(0)
        if i < 2:
            norms, couplings = [*norms[:3], *scale.flows[7::2]], [*couplings[:3], *scale.flows[8::2]]
            z = scale.flows[6].flow(torch.arange(float(torch.tensor(scale.out_shape).prod())).reshape(scale.out_shape))
        assert all(isinstance(norm, ActNorm) for norm in norms)
        assert all(isinstance(coupling, AffineCoupling) for coupling in couplings)
        board = odd[: scale.out_shape[1], : scale.out_shape[2]].expand(scale.out_shape)
        chess = [coupling for coupling in couplings if isinstance(coupling.mask, Checkerboard)][::-1]
        assert len(chess) == (3 if i < 2 else 4)
        for number, coupling in enumerate(chess):
            assert torch.equal(changed_by(coupling), board if number % 2 == 0 else ~board)
        for number, coupling in enumerate(couplings[:3][::-1] if i < 2 else []):
            row_of_pixel = z // scale.out_shape[2] % 2  # of those that came from the lower row of their square, 1
            assert torch.equal(changed_by(coupling), row_of_pixel == (1 - number % 2))
    assert flow.latent_shapes == [(12, 2, 2), (12, 2, 2), (6, 4, 4)]


def test_every_coupling_is_followed_by_an_act_norm_and_inverts():
    flow, x = stirred(SmallRealNVP((3, 8, 8))), data(2, 3)
    z, total = x, 0.0
    for i, scale in enumerate(flow.scales):
        kinds = [type(part) for part in reversed(scale.flows)]
        pair = [AffineCoupling, ActNorm]
        assert kinds == ([*3 * pair, Invert, *3 * pair] if i == 0 else 4 * pair)
        for part in reversed(scale.flows):
            z, logdet = part.inverse_and_logdet(z)
            total = total + logdet
        if i == 0:
            z, latents = z.chunk(2, -3)
    noise = torch.cat([z.flatten(-3), latents.flatten(-3)], -1)
    close(flow.inverse_and_logdet(x), (noise, total))
    close(flow.forward_and_logdet(noise), (x, -total))


@pytest.mark.parametrize("reversible", [False, True])
def test_one_scoring_of_data_initialises_every_act_norm(reversible):
    flow, x = SmallRealNVP((3, 8, 8), learned_prior=True, reversible=reversible).double(), data(30)
    assert all(isinstance(scale, Reversible) is reversible for scale in flow.scales)
    noise, _ = flow.inverse_and_logdet(x)
    norms = [module for module in flow.modules() if isinstance(module, ActNorm)]
    assert len(norms) == 11
    assert all(norm.initialized for norm in norms)
    for part in reversed(flow.scales[0].flows):
        x = part.inverse_and_logdet(x)[0]
        if isinstance(part, ActNorm):
            close(x.mean((0, 2, 3)), torch.zeros(part.shape[0]).double(), rtol=0, atol=1e-6)
            close(x.var((0, 2, 3), correction=0), torch.ones(part.shape[0]).double())
    assert noise.square().mean().item() == pytest.approx(1, abs=1e-6)


def test_images_do_not_know_one_another():
    flow, x = SmallRealNVP((3, 8, 8)).double(), data(20)
    flow.inverse_and_logdet(x)
    trained = images(flow).log_prob(x)
    close(images(flow).log_prob(x[:1]), trained[:1])
    close(images(flow.eval()).log_prob(x), trained)


def test_it_is_a_site_that_is_scored_and_sampled():
    flow, x = RealNVP((1, 8, 8), scales=1, net=partial(ResidualConvNet, channels=8, blocks=1)), digits(100)

    def model(x=None, size=1):
        pyro.module("flow", flow)
        with pyro.plate("data", size if x is None else len(x)):
            return pyro.sample("x", images(flow), obs=x)

    svi = SVI(model, lambda x: None, pyro.optim.Adam({"lr": 3e-3}), Trace_ELBO())
    losses = [svi.step(x) / len(x) for _ in range(30)]
    assert losses[-1] < losses[0] - 5
    assert model(size=7).shape == (7, 1, 8, 8)


def test_a_context_is_seen_by_couplings_and_by_a_learned_prior():
    flow = SmallRealNVP((1, 8, 8), context_dim=2)
    assert (flow.context_dim, flow.splits[0].context_dim, flow.top) == (2, None, None)
    flow = SmallRealNVP((1, 8, 8), context_dim=2, learned_prior=True)
    assert [part.context_dim for part in (*flow.splits, flow.top)] == [2, 2]
    law = dist.ConditionalTransformedDistribution(dist.Normal(torch.zeros(64), 1.0).to_event(1), [flow])
    x = law.condition(torch.randn(5, 2)).rsample((3,))
    assert law.condition(torch.randn(5, 2)).log_prob(x).shape == (3, 5)


def test_copies_are_equal_after_it_has_met_data():
    flow, x = stirred(SmallRealNVP((3, 8, 8))), data(4)
    expected = flow.inverse_and_logdet(x)
    other = SmallRealNVP((3, 8, 8), reversible=True).double()
    other.load_state_dict(flow.state_dict())
    for same in (other, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        close(same.inverse_and_logdet(x), expected)


def test_it_has_as_many_parameters_as_the_formulas_say():
    width, scales = 7, 3
    net = partial(ConvNet, hidden=(width,), kernels=(3, 3))
    flow, expected = RealNVP((3, 8, 12), scales=scales, net=net, learned_prior=True), 0
    for i in range(scales):
        c = 3 * 2**i
        chess = 9 * c * width + width + 9 * width * 2 * c + 2 * c + 2 * c  # a network of all channels, and an ActNorm
        rest = 9 * 2 * c * width + width + 9 * width * 4 * c + 4 * c + 2 * 4 * c  # of half of four times as many
        prior = 9 * 2 * c * 4 * c + 4 * c if i < scales - 1 else 2 * c  # a split, or the top
        expected += prior + (3 * chess + 3 * rest if i < scales - 1 else 4 * chess)
    assert sum(parameter.numel() for parameter in flow.parameters()) == expected


def test_trained_on_digits_it_inverts_its_own_samples_in_single_precision():
    flow = RealNVP((1, 8, 8), scales=2, net=partial(ResidualConvNet, channels=16, blocks=1))
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-3)
    for _ in range(60):
        loss = -images(flow).log_prob(digits(16)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        noise = torch.randn(500, 64)
        x, logdet = flow.forward_and_logdet(noise)
        back, inverse_logdet = flow.inverse_and_logdet(x)
    close(back, noise, rtol=0, atol=1e-4)
    close(inverse_logdet, -logdet, rtol=0, atol=1e-3)


def test_it_follows_the_device(device):
    flow, x = SmallRealNVP((1, 8, 8)).to(device), torch.randn(5, 1, 8, 8, device=device)
    assert flow.inverse_and_logdet(x)[0].device == x.device
    nowhere = SmallRealNVP((1, 8, 8)).to("meta").forward_and_logdet(torch.randn(3, 64, device="meta"))
    assert [tuple(value.shape) for value in nowhere] == [(3, 1, 8, 8), (3,)]


def test_its_defaults_are_of_a_size_for_a_cpu():
    flow = RealNVP((1, 28, 28))
    nets = [module for module in flow.modules() if isinstance(module, ResidualConvNet)]
    assert (repr(flow), len(nets)) == ("RealNVP((1, 28, 28), scales=3)", 16)
    assert sum(parameter.numel() for parameter in flow.parameters()) < 400_000


@pytest.mark.parametrize(("shape", "scales"), [((3, 32, 32), 3), ((1, 14, 14), 2), ((1, 2, 2), 1), ((1, 7, 5), 1)])
def test_it_takes_as_many_scales_as_the_shape_allows_and_three_at_most(shape, scales):
    assert len(RealNVP(shape, net=small).scales) == scales


YAML = """
class_path: pyro_dgm.transforms.RealNVP
init_args: {shape: [1, 8, 8], scales: 2, net: {class_path: pyro_dgm.nn.ResidualConvNet, init_args: {channels: 5}}}
"""


def test_it_is_described_in_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--flow", type=FlowTransform)
    flow = parser.instantiate(parser.parse_object({"flow": yaml.safe_load(YAML)})).flow
    assert repr(flow) == "RealNVP((1, 8, 8), scales=2)"


@pytest.mark.parametrize(
    ("shape", "scales", "message"),
    [
        (64, 2, r"RealNVP got shape=\(64,\): it needs that of an image, \(C, H, W\)"),
        ((1, 8, 8), 0, r"RealNVP got scales=0: it must be a positive integer"),
        ((1, 28, 28), 4, r"scales=4 for shape=\(1, 28, 28\): at most scales=3 is possible, .* multiples of 16"),
        ((1, 8, 8), 4, r"at most scales=3 is possible, .* halved 3 times"),
        ((1, 8, 16), 5, r"at most scales=4 is possible, .* halved 3 times"),
        ((3, 5, 5), 2, r"at most scales=1 is possible, .* halved 0 times. For 2, pad or crop"),
        ((3, 1, 1), 1, r"no scale is possible, .* halved 0 times"),
    ],
)
def test_what_cannot_be_is_named(shape, scales, message):
    with pytest.raises(ValueError, match=message):
        RealNVP(shape, scales=scales, net=small)


@pytest.mark.parametrize(
    ("shape", "scales"), [((1, 28, 28), 3), ((1, 8, 8), 3), ((1, 8, 16), 4), ((3, 5, 5), 1), ((1, 1, 2), 1)]
)
def test_every_scale_that_is_possible_is_there(shape, scales):
    flow, x = RealNVP(shape, scales=scales, net=small), torch.randn(2, *shape)
    close(flow(flow.inverse_and_logdet(x)[0]), x, rtol=1e-4, atol=1e-4)
