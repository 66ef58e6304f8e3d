# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Triangular systems with a tanh: against back-substitution, at the corners, and their gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.transforms import solve_triangular_tanh as room
from pyro_dgm.transforms.solve import ConvergenceError, solve_tanh
from pyro_dgm.transforms.solve_triangular_tanh import solve_triangular_tanh

DOUBLE = {"dtype": torch.float64}


def system(width, scale, *, batch=(), rows=20, dtype=torch.float64, upper=True):
    c = torch.randn(*batch, width, dtype=dtype).tanh() * torch.randn(*batch, width, dtype=dtype).tanh()
    matrix = scale * torch.randn(*batch, width, width, dtype=dtype)
    matrix = (matrix.triu(1) if upper else matrix.tril(-1)) + c.diag_embed()
    return matrix, 3 * torch.randn(*batch, rows, width, dtype=dtype), c, 1 + c


def back_substitution(matrix, a, c):
    """One scalar equation after the other, the last first."""
    p = torch.zeros_like(a)
    for i in reversed(range(a.shape[-1])):
        rest = (p[..., i + 1 :].tanh() @ matrix[..., i, i + 1 :, None]).squeeze(-1)
        p[..., i] = solve_tanh(c[..., i, None].expand_as(rest), a[..., i] - rest)
    return p


@given(st.integers(1, 12), st.floats(0, 3), st.sampled_from([(), (2,), (2, 3)]), st.booleans())
def test_every_system_is_solved(width, scale, batch, upper):
    matrix, a, c, gap = system(width, scale, batch=batch, upper=upper)
    p = solve_triangular_tanh(matrix, a, c, gap, upper=upper)
    terms = p.abs() + a.abs() + p.tanh().abs() @ matrix.abs().mT
    assert ((p + p.tanh() @ matrix.mT - a).abs() <= 1e-14 * terms).all()


@pytest.mark.parametrize("width", [1, 8, 32])
def test_it_is_back_substitution(width):
    matrix, a, c, gap = system(width, 0.3)
    expected = back_substitution(matrix, a, c)
    torch.testing.assert_close(solve_triangular_tanh(matrix, a, c, gap), expected, rtol=1e-11, atol=1e-11)
    reversed_ = solve_triangular_tanh(matrix.flip(0, 1), a.flip(1), c.flip(0), gap.flip(0), upper=False)
    torch.testing.assert_close(reversed_, expected.flip(1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_large_triangles_converge(scale, dtype):
    matrix, a, c, gap = system(64, scale, rows=100, dtype=dtype)
    p = solve_triangular_tanh(matrix, a, c, gap)
    terms = p.abs() + a.abs() + p.tanh().abs() @ matrix.abs().mT
    assert ((p + p.tanh() @ matrix.mT - a).abs() <= 64 * torch.finfo(dtype).eps * terms).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_scalar_solver_where_the_map_is_all_but_flat(dtype):
    gap = torch.tensor([8 * torch.finfo(dtype).eps, 1e-4, 0.5, 1.0, 1.99999], dtype=dtype)
    sizes = torch.tensor([0, 1e-3, 0.3, 3.0, 1e3, 1e6], dtype=dtype)
    a = torch.cat([sizes, -sizes])[:, None, None]
    p = solve_triangular_tanh(
        (gap - 1)[:, None, None], a.movedim(0, 1).expand(5, 12, 1), gap[:, None] - 1, gap[:, None]
    )
    expected = solve_tanh((gap - 1)[:, None, None].expand_as(p), a.movedim(0, 1).expand_as(p))
    torch.testing.assert_close(p, expected, rtol=50 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("upper", [True, False])
def test_gradients(batch, upper):
    matrix, a, c, gap = system(3, 1.0, batch=batch, rows=2, upper=upper)

    def run(matrix, a):
        c = matrix.diagonal(dim1=-2, dim2=-1)
        return solve_triangular_tanh(matrix, a, c, 1 + c, upper=upper)

    assert torch.autograd.gradcheck(run, (matrix.requires_grad_(), a.requires_grad_()))


def test_the_value_does_not_depend_on_gradients_being_recorded():
    matrix, a, c, gap = system(5, 1.0)
    with torch.no_grad():
        expected = solve_triangular_tanh(matrix, a, c, gap)
    assert (solve_triangular_tanh(matrix, a.requires_grad_(), c, gap) == expected).all()


def test_what_is_not_finite_stays_in_its_row():
    matrix, a, c, gap = system(4, 1.0)
    expected = solve_triangular_tanh(matrix, a, c, gap)
    a[0, 1], a[1, 2] = torch.nan, torch.inf
    p = solve_triangular_tanh(matrix, a, c, gap)
    assert p[:2].isnan().any(-1).all()
    torch.testing.assert_close(p[2:], expected[2:])


def test_it_says_which_systems_it_did_not_solve(monkeypatch):
    matrix, a, c, gap = system(4, 1.0, rows=3)
    a[0] = 0
    monkeypatch.setattr(room, "SWEEPS", 1)
    monkeypatch.setattr(room, "FEWEST", -40 + 2)
    with pytest.raises(ConvergenceError, match=r"did not solve 2 of 3 systems in 2 sweeps, first \[\(1,\), \(2,\)\]"):
        solve_triangular_tanh(matrix, a, c, gap)


def test_under_vmap():
    matrix, a, c, gap = system(4, 1.0, batch=(3,))
    expected = solve_triangular_tanh(matrix, a, c, gap)
    torch.testing.assert_close(torch.vmap(solve_triangular_tanh)(matrix, a, c, gap), expected)
    shared = torch.vmap(lambda a: solve_triangular_tanh(matrix[0], a, c[0], gap[0]))(a)
    torch.testing.assert_close(shared[0], expected[0])
