# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The solvers solve to rounding error, give the right gradients, and say which rows they could not solve."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.transforms.solve import ConvergenceError, attach_gradients, solve_increasing, solve_tanh

DTYPES = [torch.float32, torch.float64]
COEFFICIENTS = st.one_of(
    st.floats(-1 + 1e-6, 200), st.floats(-16, 0).map(lambda power: -1 + 10**power), st.sampled_from([-1.0, 0.0, 1e6])
)
RIGHT_SIDES = st.one_of(
    st.floats(-1e6, 1e6), st.floats(-30, 6).map(lambda power: 10**power), st.sampled_from([0.0, 1.0, -200.0, 1e6])
)


def in_eps(residual, *terms):
    """The residual in units of the rounding errors of the equation's terms."""
    info = torch.finfo(terms[0].dtype)
    size = sum(term.double().abs() for term in terms).clamp_min(info.tiny / info.eps)
    return (residual.abs() / (info.eps * size)).max().item()


def residual_of_tanh(c, a, z):
    precise = z.double() + c.double() * z.double().tanh() - a.double()
    return in_eps(precise, z, c * z.tanh(), a)


@given(c=COEFFICIENTS, a=RIGHT_SIDES, dtype=st.sampled_from(DTYPES))
def test_solve_tanh_leaves_rounding_errors(c, a, dtype):
    c, a = torch.tensor(c, dtype=dtype), torch.tensor(a, dtype=dtype)
    assert residual_of_tanh(c, a, solve_tanh(c, a)) <= 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_solve_tanh_on_a_dense_grid(dtype):
    c = torch.cat([-1 + torch.logspace(-16, 0, 200).double(), torch.logspace(-9, 6, 300).double()]).to(dtype)[:, None]
    a = torch.cat([torch.zeros(1), torch.logspace(-30, 6, 999)]).to(dtype)
    near_the_knee = c * torch.linspace(0.5, 1.5, 1000, dtype=dtype)
    assert residual_of_tanh(c, a, solve_tanh(c, a)) <= 3
    assert residual_of_tanh(c, near_the_knee, solve_tanh(c, near_the_knee)) <= 3


def test_solve_tanh_is_accurate_where_the_equation_is_not_flat():
    c, a = torch.rand(1000) * 200 - 0.5, torch.randn(1000) * 100
    precise = solve_tanh(c.double(), a.double())
    torch.testing.assert_close(solve_tanh(c, a).double(), precise, rtol=3e-6, atol=1e-7)


def test_solve_tanh_is_odd_and_broadcasts():
    c, a = torch.randn(3, 1).exp() - 0.9, torch.randn(2, 1, 5)
    z = solve_tanh(c, a)
    assert z.shape == (2, 3, 5)
    assert torch.equal(solve_tanh(c, -a), -z)
    assert solve_tanh(c.to("meta"), a.to("meta")).shape == (2, 3, 5)


def test_gradients_of_solve_tanh():
    c = (torch.rand(4, 1, dtype=torch.float64) * 3 - 0.95).requires_grad_()
    a = (torch.randn(2, 1, 5, dtype=torch.float64) * 3).requires_grad_()
    assert torch.autograd.gradcheck(solve_tanh, (c, a))


def test_solve_tanh_stays_finite_where_the_equation_is_flat():
    c, a = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True), torch.tensor([0.0, 1e-30, 1.0], requires_grad=True)
    z = solve_tanh(c, a)
    z.sum().backward()
    assert all(t.isfinite().all() for t in (z, c.grad, a.grad))


def test_solve_tanh_answers_nan_with_nan_in_that_row_only():
    z = solve_tanh(torch.tensor([1.0, 1.0, torch.nan]), torch.tensor([torch.nan, 2.0, 1.0]))
    assert z.isnan().tolist() == [True, False, True]


FUNCTIONS = {
    "tanh": lambda x: (x + 150 * x.tanh(), 1 + 150 * (1 - x.tanh() ** 2)),
    "cubic": lambda x: (x**3 + x, 3 * x**2 + 1),
    "flat in one point": lambda x: (x**3, 3 * x**2),
    "exponential": lambda x: (x.sinh(), x.cosh()),
    "stairs": lambda x: (x + 0.999 * x.sin(), 1 + 0.999 * x.cos()),
    "a kink": lambda x: (torch.where(x > 0, 1e3 * x, 1e-3 * x), torch.where(x > 0, 1e3, 1e-3).to(x)),
    "a wrong derivative": lambda x: (x**5 + x, torch.ones_like(x)),
    "no derivative": lambda x: (x**3 + x, torch.zeros_like(x)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_solve_increasing_solves(name, dtype):
    y = torch.cat([torch.randn(500) * 3, torch.randn(100) * 1e3, torch.tensor([0.0, 1e6, -1e6])]).to(dtype)
    x = solve_increasing(FUNCTIONS[name], y)
    value, slope = FUNCTIONS["cubic" if name == "no derivative" else name](x)
    slope = 5 * x**4 + 1 if name == "a wrong derivative" else slope
    near = 8 * torch.finfo(dtype).eps * (1 + x.abs())  # the stated tolerance, twice
    assert ((value - y).abs() <= slope * near + near**3 + 300 * torch.finfo(dtype).eps * (1 + y.abs())).all()


@given(y=st.floats(-1e6, 1e6), c=st.floats(-0.999, 200), start=st.floats(-1e3, 1e3))
def test_solve_increasing_agrees_with_solve_tanh(y, c, start):
    y, c, start = (torch.tensor(number, dtype=torch.float64) for number in (y, c, start))
    x = solve_increasing(lambda x: (x + c * x.tanh(), 1 + c * (1 - x.tanh() ** 2)), y, start=start)
    torch.testing.assert_close(x, solve_tanh(c, y), rtol=1e-9, atol=1e-9)


def test_newton_steps_are_few():
    evaluations = []

    def function(x):
        evaluations.append(x)
        return FUNCTIONS["tanh"](x)

    solve_increasing(function, torch.randn(1000, dtype=torch.float64) * 100)
    assert len(evaluations) <= 20


def test_bounds_keep_the_search_inside():
    seen = []

    def logit(x):
        seen.append(x)
        return x.log() - (-x).log1p(), 1 / (x * (1 - x))

    y = torch.linspace(-15, 15, 31, dtype=torch.float64)
    x = solve_increasing(logit, y, lower=0.0, upper=1.0)
    torch.testing.assert_close(x, y.sigmoid())
    assert all(((x >= 0) & (x <= 1)).all() for x in seen)


def test_attached_gradients_are_those_of_the_implicit_function_theorem():
    def inverse(scale, y):
        def function(x):
            return x + scale * x.arctan(), 1 + scale / (1 + x**2)

        return attach_gradients(function, solve_increasing(function, y), y)

    scale = torch.rand(4, dtype=torch.float64, requires_grad=True)
    y = (torch.randn(3, 4, dtype=torch.float64) * 3).requires_grad_()
    assert torch.autograd.gradcheck(inverse, (scale, y))


def bounded_above(x):
    return torch.where(x < 0, x, x.tanh()), torch.where(x < 0, 1, 1 - x.tanh() ** 2)


def test_the_error_names_rows_and_residual():
    y = torch.tensor([[0.5, 3.0], [-4.0, 1.5]])
    with pytest.raises(ConvergenceError, match=r"2 of 4, first at \[\(0, 1\), \(1, 1\)\].*is \[-2\.0, -0\.5\]"):
        solve_increasing(bounded_above, y)


def test_a_wrong_bound_is_an_error():
    with pytest.raises(ConvergenceError, match=r"1 of 2, first at \[\(1,\)\]: y = \[3\.0\]"):
        solve_increasing(lambda x: (x, torch.ones_like(x)), torch.tensor([0.5, 3.0]), lower=0.0, upper=1.0)


@pytest.mark.parametrize("strange", [torch.nan, torch.inf, -torch.inf])
def test_right_sides_must_be_finite(strange):
    with pytest.raises(ConvergenceError, match=r"not finite, 1 of 3, first at \[\(2,\)\]"):
        solve_increasing(FUNCTIONS["cubic"], torch.tensor([0.0, 1.0, strange]))


def test_a_function_that_gives_nan_is_an_error():
    with pytest.raises(ConvergenceError, match=r"1 of 2, first at \[\(1,\)\].*are its parameters finite"):
        solve_increasing(lambda x: (x * torch.tensor([1.0, torch.nan]), torch.ones_like(x)), torch.ones(2))


def test_nothing_to_solve():
    assert solve_increasing(FUNCTIONS["cubic"], torch.zeros(0, 3)).shape == (0, 3)
    assert solve_tanh(torch.zeros(3), torch.zeros(0, 3)).shape == (0, 3)
