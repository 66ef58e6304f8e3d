# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The logit of pixels and the map into cells: exact at both ends, and no NaN beyond them."""

import copy
import math
import pickle

import pyro.distributions as dist
import pytest
import scipy.special
import torch
from jaxtyping import TypeCheckError

from pyro_dgm.transforms import Compose, Invert, Logit, Permute
from pyro_dgm.transforms.into_cells import IntoCells


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("levels", "alpha"), [(2, 0.05), (17, 0.2), (256, 0.05), (256, 1e-6), (65536, 0.05)])
def test_there_and_back(levels, alpha, dtype, device):
    flow = Logit((2, 3), levels=levels, alpha=alpha)
    v = levels * torch.rand(100, 2, 3, dtype=dtype, device=device)
    v[0], v[1] = 0, levels
    y, logdet = flow.forward_and_logdet(v)
    back, other = flow.inverse_and_logdet(y)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(back, v, atol=8 * levels * eps, rtol=0)
    torch.testing.assert_close(logdet, -other, atol=0, rtol=100 * eps)
    torch.testing.assert_close(y, -flow.forward_and_logdet(levels - v)[0], atol=50 * levels * eps, rtol=20 * eps)


def test_log_determinant_is_that_of_autograd():
    flow = Logit((2, 2), levels=5, alpha=0.1)
    v = 5 * torch.rand(4, 3, 2, 2, dtype=torch.float64)
    rows = torch.stack([row for part in v for row in part])
    jacobians = [torch.autograd.functional.jacobian(flow._call, row).reshape(4, 4) for row in rows]
    found = flow.forward_and_logdet(v)[1]
    assert found.shape == (4, 3)
    torch.testing.assert_close(found.flatten(), torch.stack([j.slogdet().logabsdet for j in jacobians]))


def test_the_ends_are_exact():
    """The last float below 256 differs from 256 in its logit as the derivative says."""
    flow = Logit(1, levels=256, alpha=1e-6)
    top = torch.tensor([256.0])
    v = torch.stack([top - 2.0**-k for k in range(15, 0, -1)])
    exact = flow.forward_and_logdet(v.double())[0]
    torch.testing.assert_close(flow.forward_and_logdet(v)[0].double(), exact, atol=1e-4, rtol=1e-5)


def test_outside_the_domain_the_density_is_zero():
    noise = dist.Normal(0.0, 1.0).expand((2,)).to_event(1)
    p = dist.TransformedDistribution(noise, [Invert(Logit(2, levels=10, alpha=0.1))], validate_args=False)
    v = torch.tensor([[-2.0, 5.0], [5.0, 12.0], [-1.2, 11.2], [torch.inf, 0.0]], requires_grad=True)
    found = p.log_prob(v)
    assert found.isneginf().tolist() == [True, True, False, True]
    found[2].backward()
    assert v.grad.isfinite().all()
    with pytest.raises(ValueError, match="support"):
        dist.TransformedDistribution(noise, [Invert(Logit(2, levels=10, alpha=0.1))], validate_args=True).log_prob(v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_real_number_comes_out_inside(dtype):
    flow = Logit(1, levels=256)
    y = torch.tensor([-torch.inf, -1e30, -100, -17, 0, 17, 100, 1e30, torch.inf], dtype=dtype).unsqueeze(-1)
    v, logdet = flow.inverse_and_logdet(y)
    assert flow.domain.check(v).all()
    assert not logdet.isnan().any()
    assert not flow.forward_and_logdet(v)[1].isneginf().any()


def test_it_is_a_flow_among_others():
    flow = Compose([Permute([1, 0]), Invert(Logit(2, levels=8))])
    noise = dist.Normal(0.0, 1.0).expand((2,)).to_event(1)
    p = dist.TransformedDistribution(noise, [flow], validate_args=False)
    v = p.rsample((7,))
    torch.testing.assert_close(p.log_prob(v), p.log_prob(v.clone()), atol=1e-5, rtol=1e-5)
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        torch.testing.assert_close(other(torch.ones(3, 2)), flow(torch.ones(3, 2)))
    assert Logit((1, 2), levels=8).forward_and_logdet(torch.empty(3, 1, 2, device="meta"))[1].shape == (3,)
    assert repr(Logit((1, 2), levels=8)) == "Logit((1, 2), levels=8, alpha=0.0001)"


def test_what_it_refuses():
    for alpha in (0, 0.5, -1):
        with pytest.raises(ValueError, match="the margin must be above 0"):
            Logit(2, levels=8, alpha=alpha)
    with pytest.raises(ValueError, match="at least 2"):
        Logit(2, levels=1)
    with pytest.raises((ValueError, TypeCheckError)):  # the latter comes first in tests
        Logit(2, levels=256.5)
    with pytest.raises(ValueError, match="dequantisation"):
        Logit(2, levels=8)(torch.tensor([1, 2]))


# Into cells.


def test_normal_noise_becomes_uniform():
    low = torch.tensor([[0.0, 3.0], [7.0, 255.0]])
    noise = dist.Normal(0.0, 1.0).expand((2,)).to_event(1)
    q = dist.TransformedDistribution(noise, [IntoCells(low, 1)])
    v = q.sample((1000,))
    assert v.shape == (1000, 2, 2)
    assert q.log_prob(v).abs().max() < 1e-5
    shares = (v - low).flatten(1)
    assert (shares.mean(0) - 0.5).abs().max() < 5 * (1 / 12 / 1000) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_into_cells_and_back(dtype):
    low = torch.arange(256, dtype=dtype)
    y = torch.linspace(-3, 3, 256, dtype=dtype)
    into = IntoCells(low, 1)
    v, logdet = into.forward_and_logdet(y)
    back, other = into.inverse_and_logdet(v)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(back, y, atol=256 * eps / 0.004, rtol=0)
    torch.testing.assert_close(other, -logdet, atol=1e6 * eps, rtol=0)
    jacobian = torch.autograd.functional.jacobian(lambda y: into.forward_and_logdet(y)[0], y)
    torch.testing.assert_close(logdet, jacobian.diagonal().log().sum(), atol=1e4 * eps, rtol=0)


def test_extreme_noise_stays_in_the_cell_and_finite():
    low = torch.tensor([0.0, 1.0, 255.0])
    into = IntoCells(low, 1)
    for value in (-40.0, -9.0, 9.0, 40.0):
        v = into.forward_and_logdet(torch.full((3,), value))[0]
        assert (v.floor() == low).all()
        back, logdet = into.inverse_and_logdet(v)
        assert back.isfinite().all()
        assert logdet.isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_black_is_exact_down_to_the_smallest_numbers(dtype):
    """Above 0 numbers are dense: a foreign v of a black pixel is its own noise, and is scored as such."""
    v = torch.tensor([1e-37, 1e-20, 1e-10, 1e-8, 1e-3, 0.5], dtype=dtype)
    y, logdet = IntoCells(torch.zeros(6, dtype=dtype), 1).inverse_and_logdet(v)
    exact = torch.from_numpy(scipy.special.ndtri(v.double().numpy()))
    torch.testing.assert_close(y.double(), exact, atol=1e-5, rtol=1e-6)
    expected = 0.5 * exact.square().sum() + 3 * math.log(2 * math.pi)
    assert logdet.double().item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("level", [1.0, 127.0, 128.0, 255.0])
def test_elsewhere_a_number_stands_for_what_rounds_to_it(level):
    low = torch.tensor([level])
    first, last = low, torch.nextafter(low + 1, low)
    spacing = [torch.nextafter(low, low + 1) - low, low + 1 - last]
    into = IntoCells(low, 1)
    for v, gap, sign in ((first, spacing[0] / 2, 1), (last, spacing[1], -1)):
        expected = sign * scipy.special.ndtri(gap.double().numpy())
        assert into.inverse_and_logdet(v)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_gradient_in_the_middle_of_a_cell():
    v = torch.tensor([3.5], dtype=torch.float64, requires_grad=True)
    IntoCells(torch.tensor([3.0], dtype=torch.float64), 1).inverse_and_logdet(v)[0].backward()
    assert v.grad.item() == pytest.approx((2 * torch.pi) ** 0.5)
