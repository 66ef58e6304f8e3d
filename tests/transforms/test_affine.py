# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The affine maps of one number are the papers' formulas, with slopes that cannot run away."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from pyro_dgm.transforms.affine import ElementwiseAffine
from pyro_dgm.transforms.gated_affine import GatedAffine

MAPS = [ElementwiseAffine(), ElementwiseAffine(bound=5), GatedAffine(), GatedAffine(forget_bias=2)]


def test_affine_is_a_scale_and_a_shift():
    x, scale, shift = torch.randn(3, 4, 5, dtype=torch.float64).unbind()
    y, logdet = ElementwiseAffine(bound=1e6).forward_and_logdet(x, torch.stack([scale, shift], -1))
    torch.testing.assert_close(y, x * scale.exp() + shift)
    torch.testing.assert_close(logdet, scale)


def test_gated_affine_is_the_formula_of_the_paper():
    x, gate, mean = torch.randn(3, 4, 5, dtype=torch.float64).unbind()
    y, logdet = GatedAffine(forget_bias=2.0, bound=1e6).forward_and_logdet(x, torch.stack([gate, mean], -1))
    g = torch.sigmoid(gate + 2)
    torch.testing.assert_close(y, g * x + (1 - g) * mean)
    torch.testing.assert_close(logdet, logsigmoid(gate + 2))


def test_zeros_are_the_identity_and_the_gate_of_the_forget_bias():
    x, raw = torch.randn(5), torch.zeros(5, 2)
    y, logdet = ElementwiseAffine().forward_and_logdet(x, raw)
    assert (y == x).all()
    assert (logdet == 0).all()
    y, logdet = GatedAffine(forget_bias=1.0).forward_and_logdet(x, raw)
    torch.testing.assert_close(y, x / (1 + math.exp(-1)))
    torch.testing.assert_close(logdet, torch.full_like(x, -math.log1p(math.exp(-1))))


@pytest.mark.parametrize("elementwise", MAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_undoes_the_map_and_its_logdet(elementwise, dtype):
    x, raw = 3 * torch.randn(50, dtype=dtype), 3 * torch.randn(50, 2, dtype=dtype)
    y, logdet = elementwise.forward_and_logdet(x, raw)
    back, back_logdet = elementwise.inverse_and_logdet(y, raw)
    tolerance = 1e3 * torch.finfo(dtype).eps  # a slope of 1 / 100 loses two digits
    torch.testing.assert_close(back, x, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(back_logdet, -logdet)


@pytest.mark.parametrize("elementwise", MAPS)
def test_values_and_logdets_have_the_gradients_of_the_function_computed(elementwise):
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    raw = 8 * torch.randn(4, 2, dtype=torch.float64)
    raw.requires_grad_()
    torch.autograd.gradcheck(elementwise.forward_and_logdet, (x, raw))
    torch.autograd.gradcheck(elementwise.inverse_and_logdet, (x, raw))
    y, logdet = elementwise.forward_and_logdet(x, raw)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(logdet, slope.log())


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("elementwise", "low", "high"),
    [(ElementwiseAffine(bound=2), -2, 2), (GatedAffine(1, bound=10), math.log(1 / (1 + math.exp(9))), 0)],
)
def test_slopes_stay_within_their_bounds_however_large_the_raw_number(elementwise, low, high, sign):
    x, raw = torch.randn(5), torch.tensor([sign * 1e6, 0.5]).expand(5, 2)
    y, logdet = elementwise.forward_and_logdet(x, raw)
    assert (logdet >= low - 1e-5).all()
    assert (logdet <= high + 1e-5).all()
    back, _ = elementwise.inverse_and_logdet(y, raw)
    torch.testing.assert_close(back, x, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("elementwise", [ElementwiseAffine, GatedAffine])
@pytest.mark.parametrize("bound", [0, -1.0, math.nan])
def test_a_bound_must_be_positive(elementwise, bound):
    with pytest.raises(ValueError, match=f"{elementwise.__name__} got bound="):
        elementwise(bound=bound)
