# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Glow is squeezes, steps and splits in the order of its paper, begins where data tell it to, and inverts itself."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
import yaml
from jaxtyping import TypeCheckError
from jsonargparse import ArgumentParser
from torch import nn

from pyro_dgm.nn import ConvNet
from pyro_dgm.transforms.act_norm import ActNorm
from pyro_dgm.transforms.additive_coupling import AdditiveCoupling
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.glow import Glow
from pyro_dgm.transforms.invert import Invert
from pyro_dgm.transforms.invertible_conv1x1 import InvertibleConv1x1
from pyro_dgm.transforms.qr_linear import QRLinear
from pyro_dgm.transforms.reversible import Reversible
from pyro_dgm.transforms.spline_coupling import SplineCoupling
from pyro_dgm.transforms.squeeze import Squeeze
from tests.transforms.image_flows import data, stirred

close = torch.testing.assert_close
small = partial(ConvNet, hidden=(8, 8), activation=nn.Tanh)
SmallGlow = partial(Glow, scales=2, depth=2, net=small)


def test_scoring_is_squeeze_then_steps_then_split_as_in_the_paper():
    flow, x = stirred(SmallGlow((3, 8, 8))), data(4)
    z, total, latents = x, 0.0, []
    for i, scale in enumerate(flow.scales):
        c1, w1, a1, c2, w2, a2, unsqueeze = scale.flows
        kinds = [type(part.flow if isinstance(part, Invert) else part) for part in scale.flows]
        assert kinds == [AffineCoupling, InvertibleConv1x1, ActNorm] * 2 + [Squeeze]
        z = unsqueeze.flow(z)
        for norm, conv, coupling in ((a2, w2.flow, c2), (a1, w1.flow, c1)):
            z, of_norm = norm.inverse_and_logdet(z)
            z, of_conv = conv.forward_and_logdet(z)
            z, of_coupling = coupling.inverse_and_logdet(z)
            total = total + of_norm + of_conv + of_coupling
        if i == 0:
            z, factored = z.chunk(2, 1)
            log_scale, mean = flow.splits[0].prior.net(z).chunk(2, 1)
            log_scale = 3 * torch.tanh(log_scale / 3)
            latents, total = [(factored - mean) / log_scale.exp()], total - log_scale.sum((1, 2, 3))
    z, logdet = flow.top.inverse_and_logdet(z)
    noise = torch.cat([z.flatten(1), latents[0].flatten(1)], 1)
    close(flow.inverse_and_logdet(x), (noise, total + logdet))
    close(flow.forward_and_logdet(noise), (x, -total - logdet))
    assert flow.latent_shapes == [(24, 2, 2), (6, 4, 4)]


@pytest.mark.parametrize("row", [False, True], ids=["kept", "reversible"])
@pytest.mark.parametrize("grad", [False, True])
def test_one_scoring_of_data_initialises_every_act_norm(row, grad):
    flow, x = SmallGlow((3, 8, 8), reversible=row).double(), data(30)
    with torch.set_grad_enabled(grad):
        flow.inverse_and_logdet(x)
    assert all(module.initialized for module in flow.modules() if isinstance(module, ActNorm))
    for i, scale in enumerate(flow.scales):
        for part in reversed(scale.flows):
            x = part.inverse_and_logdet(x)[0]
            if isinstance(part, ActNorm):
                close(x.mean((0, 2, 3)), torch.zeros(part.shape[0]).double(), rtol=0, atol=1e-6)
                close(x.var((0, 2, 3), correction=0), torch.ones(part.shape[0]).double())
        x = flow.splits[i].part(x)[0] if i == 0 else flow.top.inverse_and_logdet(x)[0]
    close(x.var((0, 2, 3), correction=0), torch.ones(24).double())


@pytest.mark.parametrize("options", [{}, {"learned_prior": False}, {"conv": "qr"}, {"coupling": "spline"}], ids=str)
def test_copies_are_equal_after_it_has_met_data(options):
    flow, x = stirred(SmallGlow((3, 8, 8), **options)), data(4)
    expected = flow.inverse_and_logdet(x)
    other = SmallGlow((3, 8, 8), **options).double()
    other.load_state_dict(flow.state_dict())
    for same in (other, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        close(same.inverse_and_logdet(x), expected, rtol=0, atol=0)
        close(same.forward_and_logdet(expected[0])[0], x)


def test_particles_and_data_stand_in_leading_dimensions():
    flow, x = stirred(SmallGlow((3, 8, 8))), data(2, 3)
    noise, logdet = flow.inverse_and_logdet(x)
    assert (noise.shape, logdet.shape) == ((2, 3, 192), (2, 3))
    for k in range(2):
        close(flow.inverse_and_logdet(x[k]), (noise[k], logdet[k]))
    close(flow.forward_and_logdet(noise), (x, -logdet))


def test_it_has_as_many_parameters_as_the_formulas_say():
    scales, depth, width = 2, 3, 7
    flow, expected = Glow((3, 8, 12), scales=scales, depth=depth, net=partial(ConvNet, hidden=(width, width))), 0
    for i in range(scales):
        c = 12 * 2**i
        net = 9 * (c // 2) * width + width + width**2 + width + 9 * width * c + c
        expected += depth * (2 * c + c**2 + net)  # ActNorm, 1x1 convolution, coupling
        expected += 9 * (c // 2) * c + c if i < scales - 1 else 2 * c  # a split, or the top
    assert sum(parameter.numel() for parameter in flow.parameters()) == expected


def test_its_defaults_are_of_a_size_for_a_cpu():
    flow = Glow((1, 28, 28))
    nets = [part.net for scale in flow.scales for part in scale.flows if isinstance(part, AffineCoupling)]
    convolutions = [module for module in nets[0].modules() if isinstance(module, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size) for c in convolutions] == [(64, (3, 3)), (64, (1, 1)), (4, (3, 3))]
    assert (repr(flow), len(nets)) == ("Glow((1, 28, 28), scales=2)", 16)
    assert sum(parameter.numel() for parameter in flow.parameters()) < 200_000


@pytest.mark.parametrize(
    ("shape", "scales"), [((3, 32, 32), 3), ((1, 28, 28), 2), ((1, 8, 8), 3), ((1, 6, 64), 1), ((3, 64, 48), 3)]
)
def test_it_takes_as_many_scales_as_the_shape_allows_and_three_at_most(shape, scales):
    assert len(Glow(shape, depth=1, net=small).scales) == scales


def test_grey_levels_are_no_scales():
    with pytest.raises(TypeError, match="levels"):
        Glow((1, 8, 8), levels=2)


def test_its_options():
    kinds = {"affine": AffineCoupling, "additive": AdditiveCoupling, "spline": SplineCoupling}
    for name, kind in kinds.items():
        assert isinstance(SmallGlow((1, 8, 8), coupling=name).scales[1].flows[0], kind)
    narrow = SmallGlow((1, 8, 8), coupling=partial(AffineCoupling, bound=0.5), context_dim=2)
    assert narrow.scales[0].flows[0].elementwise.bound == 0.5
    assert narrow.scales[0].flows[0].net.in_shape == (4, 4, 4)
    assert isinstance(SmallGlow((1, 8, 8), conv="qr").scales[0].flows[1].flow.linear, QRLinear)
    plain = SmallGlow((1, 8, 8), learned_prior=False, context_dim=2)
    assert (plain.top, plain.splits[0].prior, plain.context_dim) == (None, None, 2)
    additive = stirred(SmallGlow((3, 8, 8), coupling="additive", learned_prior=False))
    assert additive.inverse_and_logdet(data(2))[1].diff().abs() < 1e-9  # the same for all images


def test_reversible_it_gives_the_same():
    flow, x = stirred(SmallGlow((3, 8, 8))), data(4)
    other = SmallGlow((3, 8, 8), reversible=True).double()
    assert all(isinstance(scale, Reversible) for scale in other.scales)
    other.load_state_dict(flow.state_dict())
    found = []
    for same in (flow, other):
        noise, logdet = same.inverse_and_logdet(x)
        loss = (noise.square().sum(-1) / 2 - logdet) @ torch.arange(4.0).double()
        found.append([loss, *torch.autograd.grad(loss, list(same.parameters()))])
    close(*found, rtol=1e-8, atol=1e-8)


def test_it_follows_the_device(device):
    flow, x = SmallGlow((1, 8, 8)).to(device), torch.randn(5, 1, 8, 8, device=device)
    noise, logdet = flow.inverse_and_logdet(x)
    assert noise.device == logdet.device == x.device
    nowhere = SmallGlow((1, 8, 8)).to("meta").forward_and_logdet(torch.randn(3, 64, device="meta"))
    assert [tuple(value.shape) for value in nowhere] == [(3, 1, 8, 8), (3,)]


YAML = """
class_path: pyro_dgm.transforms.Glow
init_args:
  shape: [1, 8, 8]
  scales: 2
  depth: 1
  coupling: additive
  net: {class_path: pyro_dgm.nn.ConvNet, init_args: {hidden: [5, 6]}}
"""


def test_it_is_described_in_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--flow", type=FlowTransform)
    flow = parser.instantiate(parser.parse_object({"flow": yaml.safe_load(YAML)})).flow
    assert repr(flow) == "Glow((1, 8, 8), scales=2)"
    assert flow.scales[0].flows[0].net.layers[0].out_channels == 5


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (64, {}, r"Glow got shape=\(64,\): it needs that of an image, \(C, H, W\)"),
        ((8, 8), {}, r"Glow got shape=\(8, 8\): it needs that of an image"),
        ((1, 0, 8), {}, r"Glow got shape=\(1, 0, 8\)"),
        ((1, 8, 8), {"scales": 0}, r"Glow got scales=0: it must be a positive integer, or None"),
        ((1, 8, 8), {"depth": 0}, r"Glow got depth=\(0,\)"),
        (
            (1, 28, 28),
            {"scales": 3},
            r"Glow got scales=3 for shape=\(1, 28, 28\): at most scales=2 is possible, as height and width can be "
            r"halved 2 times. For 3, pad or crop the images to multiples of 8",
        ),
        ((1, 8, 6), {"scales": 2}, r"at most scales=1 is possible, .* halved 1 times"),
        ((1, 5, 8), {"scales": 1}, r"no scale is possible, .* halved 0 times. For 1, pad or crop .* multiples of 2"),
        ((1, 5, 8), {}, r"scales=None for shape=\(1, 5, 8\): no scale is possible, .* multiples of 2"),
    ],
)
def test_what_cannot_be_is_named(shape, options, message):
    with pytest.raises(ValueError, match=message):
        Glow(shape, **options)


def test_a_coupling_that_is_none_is_named():
    with pytest.raises((ValueError, TypeCheckError), match="quadratic"):
        Glow((1, 8, 8), scales=1, coupling="quadratic")
    for wrong in (lambda shape, **_: nn.Linear(2, 2), lambda shape, **_: AffineCoupling(4)):
        with pytest.raises(ValueError, match=r"Glow got a coupling= that makes .*: called with \(4, 4, 4\)"):
            Glow((1, 8, 8), scales=1, depth=1, coupling=wrong)
    with pytest.raises(ValueError, match=r"called with context_dim=3 it must make a coupling that sees such a context"):
        Glow((1, 8, 8), scales=1, depth=1, coupling=lambda shape, **_: AffineCoupling(shape), context_dim=3)


def test_every_scale_that_is_possible_is_there():
    flow = Glow((1, 8, 8), scales=3, depth=1, net=small)
    assert flow.latent_shapes == [(16, 1, 1), (4, 2, 2), (2, 4, 4)]
    assert flow.dim == math.prod((1, 8, 8))
