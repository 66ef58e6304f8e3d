# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A multi-scale flow makes images of flat noise, the coarsest scale first, and parts what it scores by scale."""

from functools import partial

import pyro.distributions as dist
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from pyro_dgm.nn import ConvNet
from pyro_dgm.transforms.act_norm import ActNorm
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.invert import Invert
from pyro_dgm.transforms.multi_scale import MultiScale
from pyro_dgm.transforms.planar import Planar
from pyro_dgm.transforms.split import Split
from pyro_dgm.transforms.squeeze import Squeeze

close = torch.testing.assert_close
small = partial(ConvNet, hidden=(4,), kernels=(3, 3), activation=nn.Tanh)


@torch.no_grad()
def stirred(flow):
    """The flow with parameters of order 1 / 2, in double precision and evaluation mode."""
    for parameter in flow.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape) / max(1, parameter[0].numel()) ** 0.5)
    return flow.double().eval()


def scale(shape, context_dim=None):
    squeeze = Squeeze(shape)
    return Compose([AffineCoupling(squeeze.out_shape, net=small, context_dim=context_dim), Invert(squeeze)])


def three(context_dim=None):
    return [scale(shape, context_dim) for shape in ((1, 8, 8), (2, 4, 4), (4, 2, 2))]


def three_scales(context_dim=None, *, top=False):
    flows = three(context_dim)
    between = None if top else [Split((4, 4, 4), context_dim=context_dim), Split((8, 2, 2), context_dim=context_dim)]
    flow = MultiScale(flows, splits=between, learned_prior=top)
    assert flow.latent_shapes == [(16, 1, 1), (4, 2, 2), (2, 4, 4)]
    return stirred(flow)


def noise(*batch):
    return torch.randn(*batch, 64, dtype=torch.float64)


def counted(flow):
    """Count how often each convolution runs."""
    calls = []
    for module in flow.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_: calls.append(1))
    return calls, sum(isinstance(module, nn.Conv2d) for module in flow.modules())


def test_it_is_its_parts_one_after_the_other():
    flow, x = three_scales(top=True), noise(2, 3)
    coarse, middle, fine = (
        part.reshape(2, 3, *shape) for part, shape in zip(x.split([16, 16, 32], -1), flow.latent_shapes, strict=True)
    )
    z, total = flow.top.forward_and_logdet(coarse)
    for part in (
        flow.scales[2],
        lambda z: torch.cat([z, middle], -3),
        flow.splits[1],
        flow.scales[1],
        lambda z: torch.cat([z, fine], -3),
        flow.splits[0],
        flow.scales[0],
    ):
        if isinstance(part, nn.Module):
            z, logdet = part.forward_and_logdet(z)
            total = total + logdet
        else:
            z = part(z)
    image, logdet = flow.forward_and_logdet(x)
    close((image, logdet), (z, total))
    close(flow.inverse_and_logdet(image), (x, -logdet))


def test_the_log_determinant_is_that_of_the_jacobian():
    flow, x = three_scales(top=True), noise()
    jacobian = torch.func.jacrev(lambda x: flow.forward_and_logdet(x)[0].flatten())(x)
    close(flow.forward_and_logdet(x)[1], jacobian.slogdet().logabsdet)


def test_at_the_start_it_only_moves_pixels():
    flow, x = MultiScale(three()).eval(), torch.arange(64.0)
    image, logdet = flow.forward_and_logdet(x)
    assert image.flatten().sort().values.equal(x)
    assert not logdet.any()
    assert (image[0, ::2, ::2] < 32).all()  # one colour of the chessboard is made of the coarser scales' noise
    assert (image[0, 1::2, 1::2] < 32).all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)], ids=str)
def test_noise_is_parted_and_put_together(batch):
    flow, x = three_scales(), noise(*batch)
    parts = flow.latents(x)
    assert [part.shape for part in parts] == [(*batch, *shape) for shape in flow.latent_shapes]
    assert torch.equal(flow.flatten(parts), x)


def test_details_are_drawn_anew_while_the_coarse_image_stays():
    flow = three_scales()
    coarse, middle, _ = flow.latents(noise())
    images = flow(flow.flatten([coarse, middle, torch.randn(5, *flow.latent_shapes[2]).double()]))
    assert images.shape == (5, 1, 8, 8)
    parts = flow.latents(flow.inverse_and_logdet(images)[0])
    close(parts[0], coarse.expand_as(parts[0]))
    close(parts[1], middle.expand_as(parts[1]))
    assert parts[2].std(0).min() > 0.01


def test_a_sample_is_scored_without_running_a_network_again():
    flow = three_scales()
    images = dist.TransformedDistribution(dist.Normal(torch.zeros(64).double(), 1.0).to_event(1), [flow])
    calls, networks = counted(flow)
    x = images.rsample((5,))
    log_prob = images.log_prob(x)
    assert len(calls) == networks
    close(log_prob, images.log_prob(x.clone()))
    assert len(calls) == 2 * networks
    assert (x.shape, images.event_shape) == ((5, 1, 8, 8), (1, 8, 8))


def test_a_context_goes_to_scales_splits_and_top():
    flow, x = three_scales(3, top=True), noise(2, 5)
    h = torch.randn(5, 3, dtype=torch.float64)
    assert all(part.context_dim == 3 for part in (*flow.scales, *flow.splits, flow.top))
    image, logdet = flow.condition(h).forward_and_logdet(x)
    for i in range(5):
        close(flow.condition(h[i]).forward_and_logdet(x[:, i]), (image[:, i], logdet[:, i]))
    close(flow.condition(h).inverse_and_logdet(image), (x, -logdet))


def test_what_is_not_given_is_learned_or_standard_normal():
    learned, normal = MultiScale(three(3)), MultiScale(three(3), learned_prior=False)
    assert [(split.keep, split.context_dim) for split in learned.splits] == [(2, 3), (4, 3)]
    assert all(isinstance(split.prior, AffineCoupling) for split in learned.splits)
    assert isinstance(learned.top, ActNorm)
    assert (learned.top.shape, learned.top.context_dim) == ((16, 1, 1), 3)
    assert [split.prior for split in normal.splits] == [None, None]
    assert (normal.top, normal.context_dim) == (None, 3)
    top, between = ActNorm((16, 1, 1)), [Split((4, 4, 4)), Split((8, 2, 2))]
    given = MultiScale(three(), splits=between, top=top, learned_prior=False)
    assert given.top is top
    assert list(given.splits) == between
    assert MultiScale(three(), splits=between, learned_prior=False).top is None
    assert MultiScale(three(), top=top, learned_prior=False).splits[0].prior is None


def test_learned_and_amortised_parts_are_mixed():
    flows = [scale((1, 8, 8)), scale((2, 4, 4), 3)]
    flow = MultiScale(flows, learned_prior=False)
    x, h = torch.randn(2, 64), torch.randn(2, 3)
    assert flow.context_dim == 3
    assert flow.condition(h)(x).shape == (2, 1, 8, 8)


def test_other_shares_than_half_and_one_scale():
    fine, coarse = scale((1, 8, 8)), AffineCoupling((3, 4, 4))
    flow = stirred(MultiScale([fine, coarse]))
    assert (flow.splits[0].keep, flow.latent_shapes) == (3, [(3, 4, 4), (1, 4, 4)])
    image, logdet = flow.forward_and_logdet(x := noise(2))
    close(flow.inverse_and_logdet(image), (x, -logdet))
    alone, same = MultiScale([fine], learned_prior=False), noise(2)
    close(alone.forward_and_logdet(same), fine.forward_and_logdet(same.reshape(2, 4, 4, 4)))


def test_it_follows_the_device(device):
    flow, x = MultiScale(three()).to(device), torch.randn(3, 64, device=device)
    assert flow(x).device == flow.latents(x)[0].device == x.device
    nowhere = MultiScale(three()).to("meta").inverse_and_logdet(torch.randn(3, 1, 8, 8, device="meta"))
    assert [tuple(value.shape) for value in nowhere] == [(3, 64), (3,)]


def test_in_one_graph():
    flow = stirred(MultiScale([AffineCoupling((channels, 4, 4), net=small) for channels in (4, 3, 2)]))
    x = noise(2)
    y = flow(x).detach()
    for function, value in ((flow.forward_and_logdet, x), (flow.inverse_and_logdet, y)):
        torch.compiler.reset()
        close(torch.compile(function, fullgraph=True, backend="eager")(value), function(value))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiScale([]), "MultiScale got no scales: it needs one flow of images for each scale"),
        (
            lambda: MultiScale([Planar(4)]),
            r"a flow of scale 0 that maps \(4,\) to \(4,\): both must be shapes of images",
        ),
        (
            lambda: MultiScale([scale((1, 8, 8)), scale((2, 8, 8))]),
            r"of scale 0 that takes \(4, 4, 4\), and one of .*",
        ),
        (lambda: MultiScale([scale((1, 8, 8)), scale((4, 4, 4))]), r"must take .* more channels, the rest of which"),
        (lambda: MultiScale([scale((1, 8, 8), 2), scale((2, 4, 4), 3)]), r"contexts \{2, 3\}: .* the same vector"),
        (
            lambda: MultiScale([AffineCoupling((2, 4, 4), context_dim=(3, 4, 4))]),
            r"contexts \{\(3, 4, 4\)\}: .* An image as context",
        ),
        (lambda: MultiScale(three(), splits=[Split((4, 4, 4))]), r"one between each two scales, .*\(\(4, 4, 4\), 2\)"),
        (lambda: MultiScale(three()[:2], splits=[Split((4, 4, 4), keep=1)]), r"must be one between each two scales"),
        (lambda: MultiScale(three(), top=ActNorm(16)), r"top=ActNorm\(16\): it must map images of .*\(16, 1, 1\)"),
    ],
)
def test_what_does_not_fit_together_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_flow_is_named():
    with pytest.raises((ValueError, TypeCheckError), match=r"MultiScale[\s\S]*Linear"):
        MultiScale([nn.Linear(2, 2)])


def test_values_of_other_shapes_are_named():
    flow = MultiScale(three())
    with pytest.raises(ValueError, match=r"its last size must be 64"):
        flow(torch.randn(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"its last size must be 64"):
        flow.latents(torch.randn(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"its last sizes must be \(1, 8, 8\)"):
        flow.inv(torch.randn(2, 64))
    with pytest.raises(ValueError, match=r"flatten got latents of the shapes \[\(2, 4, 4\)\], .* the coarsest first"):
        flow.flatten([torch.randn(2, 4, 4)])


def test_it_says_what_it_is():
    assert repr(MultiScale(three(3))) == "MultiScale((1, 8, 8), scales=3, context_dim=3)"
