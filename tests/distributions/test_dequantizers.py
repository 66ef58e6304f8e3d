# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Dequantisers draw from the cell of each pixel, score exactly what they draw, and never leave the cell."""

import copy
import math
import pickle

import pyro
import pytest
import torch

from pyro_dgm.distributions import UniformDequantizer, VariationalDequantizer
from pyro_dgm.distributions.quantized import Quantized
from pyro_dgm.transforms import AffineCoupling, Compose, Planar
from tests.cases import DEQUANTIZERS

VARIATIONAL = [name for name in DEQUANTIZERS if name.startswith("Variational")]


def stirred(module, scale=0.1):
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(scale * torch.randn_like(weight))
    return module


@pytest.fixture(params=DEQUANTIZERS)
def make(request):
    return DEQUANTIZERS[request.param]


@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_samples_lie_in_the_cells(make, shape, dtype, device):
    x = torch.randint(256, (50, *shape), dtype=torch.int64, device=device).to(dtype)
    q = stirred(make(shape, 256)).eval().to(device)(x)
    v = q.rsample((3,))
    assert q.batch_shape == (50,)
    assert q.event_shape == shape
    assert v.shape == (3, 50, *shape)
    assert (v.floor() == x).all()
    log_prob = q.log_prob(v)
    assert log_prob.shape == (3, 50)
    assert log_prob.isfinite().all()


def test_leading_dimensions_and_plates(make):
    x = torch.randint(17, (5, 3, 4, 4))
    dequantizer = stirred(make((4, 4), 17)).eval()
    q = dequantizer(x).expand((2, 5, 3))
    v = q.rsample()
    assert v.shape == (2, 5, 3, 4, 4)
    assert q.log_prob(v).shape == (2, 5, 3)
    one = dequantizer(x[1, 2])
    torch.testing.assert_close(one.log_prob(v[0, 1, 2].detach()), q.log_prob(v.detach())[0, 1, 2], atol=1e-3, rtol=1e-4)
    assert dequantizer(x[0, 0]).sample().shape == (4, 4)


def test_no_draw_of_a_byte_rounds_up(make):
    """Of these floats near 256 one in 65536 would, by rounding."""
    q = make((16, 16), 256).eval()(torch.full((3000, 16, 16), 255, dtype=torch.uint8))
    v = q.sample()
    assert v.max() < 256
    assert v.max() > 255.9999
    assert q.log_prob(v).isfinite().all()


def test_other_cells_have_no_density(make):
    q = make((4, 4), 8).eval()(torch.full((3, 4, 4), 5))
    for wrong in (4.999, 6.0, -1.0, 6.5):
        v = torch.full((3, 4, 4), 5.5)
        v[1, 2, 3] = wrong
        with pytest.raises(ValueError, match="support"):
            q.log_prob(v)
        q._validate_args = False
        assert q.log_prob(v).isneginf().tolist() == [False, True, False]
        q._validate_args = True


@pytest.mark.parametrize("name", VARIATIONAL)
def test_a_foreign_value_is_scored_as_a_drawn_one(name):
    x = torch.randint(17, (20, 4, 4))
    q = stirred(DEQUANTIZERS[name]((4, 4), 17)).double().eval()(x)
    v = q.rsample()
    own, foreign = q.log_prob(v), q.log_prob(v.detach().clone())
    torch.testing.assert_close(own, foreign, atol=1e-6, rtol=1e-6)
    ends = x.double()
    assert q.log_prob(ends).isfinite().all(), "the lower end belongs to the cell"


@pytest.mark.parametrize("name", VARIATIONAL)
def test_the_density_integrates_to_one(name):
    """Over the cell of a 1 x 2 image, by the midpoint rule on the normal quantiles of the noise."""
    x, line = torch.tensor([[[2, 0]]]), torch.linspace(-8, 8, 300, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    area = torch.exp(-grid.square().sum(-1) / 2) / (2 * torch.pi) * (line[1] - line[0]) ** 2
    q = stirred(DEQUANTIZERS[name]((1, 2), 4)).double()(x.expand(300**2, 1, 2))
    mass = q.log_prob(torch.special.ndtr(grid).unsqueeze(-2) + x).exp() * area
    assert mass.sum().item() == pytest.approx(1, abs=1e-3)


def test_it_starts_uniform():
    x = torch.randint(256, (4, 6, 6))
    q = VariationalDequantizer((6, 6), 256)(x)
    torch.testing.assert_close(q.log_prob(q.rsample()), torch.zeros(4), atol=1e-4, rtol=0)
    single = VariationalDequantizer((1, 1), 256)(torch.tensor([[[3]]]))
    torch.testing.assert_close(single.log_prob(single.rsample()), torch.zeros(1), atol=1e-5, rtol=0)


def test_gradients_reach_every_parameter():
    dequantizer = stirred(VariationalDequantizer((4, 4), 17, context=3, depth=2), 0.3)
    q = dequantizer(torch.randint(17, (5, 4, 4)))
    v = q.rsample()
    (q.log_prob(v).sum() + v.square().sum()).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in dequantizer.parameters())


def test_the_moments_of_uniform_noise():
    q = UniformDequantizer((2,), 9)(torch.tensor([0, 8]))
    assert q.mean.tolist() == [0.5, 8.5]
    torch.testing.assert_close(q.variance, torch.full((2,), 1 / 12))
    assert q.entropy() == 0
    v = q.sample((10_000,))
    assert (v.mean(0) - q.mean).abs().max() < 5 * (1 / 12 / 10_000) ** 0.5


def test_copies_dtypes_and_the_meta_device(make):
    x = torch.randint(17, (3, 4, 4))
    dequantizer = stirred(make((4, 4), 17)).eval()
    v = dequantizer(x).sample()
    for other in (copy.deepcopy(dequantizer), pickle.loads(pickle.dumps(dequantizer))):
        torch.testing.assert_close(other(x).log_prob(v), dequantizer(x).log_prob(v))
    assert dequantizer.double()(x).sample().dtype == torch.float64
    with pyro.validation_enabled(is_validate=False):  # which reads numbers
        q = copy.deepcopy(dequantizer).to("meta")(x.to("meta"))
        assert q.log_prob(q.rsample()).shape == (3,)


def test_what_they_refuse(make):
    with pytest.raises(ValueError, match="at least 2 levels"):
        make((4, 4), 1)
    with pytest.raises(ValueError, match="every size must be a positive integer"):
        make((0, 4), 2)
    with pytest.raises(ValueError, match="its last sizes must be"):
        make((4, 4), 2)(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (300, "got x from 300 to 300: it has 256 levels: 0 ... 255"),
        (-1, "from -1"),
        (0.5, "with fractions"),
        (torch.nan, "nan"),
    ],
)
def test_values_that_are_no_levels(make, x, said):
    with pytest.raises(ValueError, match=said):
        make((4, 4), 256)(torch.full((2, 4, 4), x))


def test_levels_that_a_dtype_cannot_part(make):
    for dtype, most in ((torch.bfloat16, 1), (torch.float16, 8), (torch.float32, 2**16)):
        with pytest.raises(ValueError, match="Use float32 up to"):
            make((4, 4), 2 * most).to(dtype)(torch.zeros(2, 4, 4))
    v = make((4, 4), 2**16)(torch.full((100, 4, 4), 2**16 - 1)).sample()
    assert v.unique().numel() > 128
    assert make((4, 4), 2**24).double()(torch.zeros(2, 4, 4)).sample().shape == (2, 4, 4)


def test_what_the_variational_one_refuses():
    with pytest.raises(ValueError, match=r"images have \(H, W\)"):
        VariationalDequantizer((16,), 2)
    with pytest.raises(ValueError, match="it needs what makes one"):
        VariationalDequantizer((4, 4), 2, flow=Planar(3))
    with pytest.raises(ValueError, match="its context_dim must be"):
        VariationalDequantizer((4, 4), 2, flow=lambda shape, context_dim: AffineCoupling(shape, mask="checkerboard"))
    with pytest.raises(ValueError, match="must be images of shape"):
        VariationalDequantizer((4, 4), 2, flow=lambda shape, context_dim: Planar(3))
    with pytest.raises(ValueError, match="it must make a flow"):
        VariationalDequantizer((4, 4), 2, flow=lambda shape, context_dim: torch.nn.Identity())
    with pytest.raises(ValueError, match="context"):
        VariationalDequantizer((4, 4), 2, context=0)
    assert isinstance(VariationalDequantizer((4, 4), 2).flow, Compose)


def test_plain_networks_of_torch_and_several_leading_dimensions():
    """Convolutions of torch take one leading dimension; features are computed as one batch."""

    def encoder(shape, features):
        return torch.nn.Conv2d(shape[0], features[0], 3, padding=1)

    dequantizer = VariationalDequantizer((4, 4), 17, context=3, encoder=encoder)
    x = torch.randint(17, (2, 5, 4, 4))
    v = dequantizer(x).rsample()
    assert v.shape == x.shape
    torch.testing.assert_close(dequantizer(x[1]).log_prob(v[1]), dequantizer(x).log_prob(v)[1], atol=1e-4, rtol=1e-4)
    assert dequantizer(x[:, :0]).sample().shape == (2, 0, 4, 4)


@pytest.mark.parametrize("shape", [(4, 4), (2, 1, 1)])
@pytest.mark.parametrize("depth", [1, 2, 5, 8])
def test_log_scales_of_a_pixel_add_up_to_three_at_most(shape, depth):
    """However many couplings touch it: y is spread by a factor of 20 at most. Here all networks say 'spread'."""
    dequantizer = VariationalDequantizer(shape, 4, depth=depth, context=2)
    with torch.no_grad():
        for weight in dequantizer.parameters():
            weight.fill_(100.0)
    flow = dequantizer.flow.condition(torch.ones(3, *dequantizer.flow.context_shape))
    logdet = flow.forward_and_logdet(torch.zeros(3, *dequantizer.flow.shape))[1]
    turns = [depth] * 2 if shape[-1] == 1 else [(depth + 1) // 2, depth // 2]  # of either colour
    expected = 3 * sum(turns) / 2 / turns[0]
    torch.testing.assert_close(logdet / math.prod(shape), torch.full((3,), expected), atol=0.01, rtol=0)


# Rounding.


def test_rounding_is_a_point_mass(device):
    v = torch.tensor([[-0.5, 0.0, 0.999, 3.2], [7.999, 8.0, 9.5, 4.0]], device=device)
    p = Quantized(v, 8, 1)
    x = torch.tensor([[0, 0, 0, 3], [7, 7, 7, 4]], device=device)
    assert p.sample().tolist() == x.tolist()
    assert p.sample().dtype == torch.int64
    assert p.mean.tolist() == x.tolist()
    assert p.log_prob(x).tolist() == [0, 0]
    assert p.log_prob(x.byte() * 0).isneginf().tolist() == [True, True]
    assert p.expand((3, 2)).log_prob(x).shape == (3, 2)
    assert p.expand((3, 2)).sample().shape == (3, 2, 4)
    with pytest.raises(ValueError, match="support"):
        p.log_prob(x + 8)
    with pytest.raises(ValueError, match="NaN in it"):
        Quantized(torch.tensor([0.0, torch.nan]), 8, 1)
