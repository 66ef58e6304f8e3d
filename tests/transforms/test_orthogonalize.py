# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The polar factor: against the singular value decomposition, its gradient, and matrices that have none."""

import pytest
import torch

from pyro_dgm.transforms.orthogonalize import CACHED, SMALLEST, _by_eigenvalues, _by_steps, _steps, orthogonalize

DOUBLE = {"dtype": torch.float64}
SHAPES = [(1, 1), (5, 1), (2, 2), (5, 3), (64, 8), (64, 32), (64, 60)]


def polar(matrix):
    u, _, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u @ v


def published(matrix, steps):
    """The iteration of the paper, without scales."""
    q = matrix / torch.linalg.matrix_norm(matrix, keepdim=True)
    for _ in range(steps):
        q = q + q @ (torch.eye(q.shape[-1], dtype=q.dtype) - q.mT @ q) / 2
    return q


def orthogonality_error(q):
    return (q.mT @ q - torch.eye(q.shape[-1], dtype=q.dtype)).abs().max()


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.float64, 4e-15)])
@pytest.mark.parametrize(("dim", "width"), SHAPES)
def test_columns_are_orthonormal_and_nearest(dim, width, dtype, error):
    matrix = torch.randn(50, dim, width, dtype=dtype)
    q = orthogonalize(matrix)
    assert orthogonality_error(q) < error
    conditioned = torch.linalg.cond(matrix) < 1000
    assert (q - polar(matrix))[conditioned].abs().max() < 4 * error


def test_it_is_the_limit_of_the_published_iteration():
    matrix = torch.randn(3, 4, 6, 2, **DOUBLE)
    torch.testing.assert_close(orthogonalize(matrix), published(matrix, 60))


@pytest.mark.parametrize(("dtype", "steps"), [(torch.float32, 14), (torch.float64, 15)])
def test_singular_values_down_to_the_smallest_become_one(dtype, steps):
    assert len(_steps(torch.finfo(dtype).eps)) == steps
    u, v = torch.linalg.qr(torch.randn(64, 32, dtype=dtype))[0], torch.linalg.qr(torch.randn(32, 32, dtype=dtype))[0]
    values = torch.logspace(-3.6, 0, 32, dtype=dtype)
    assert values.min() / values.norm() > SMALLEST
    q = orthogonalize(u * values @ v.mT)
    assert orthogonality_error(q) < 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(q, u @ v.mT, rtol=0, atol=1e4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_the_scale_does_not_matter(scale):
    matrix = torch.randn(5, 6, 3)
    torch.testing.assert_close(orthogonalize(scale * matrix), orthogonalize(matrix), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["zero", "equal columns", "a column of zeros", "underflow"])
def test_without_a_polar_factor_it_is_the_identity_without_a_gradient(kind):
    matrix = torch.randn(3, 5, 2)
    matrix[1] = {
        "zero": torch.zeros(5, 2),
        "equal columns": matrix[1, :, :1].expand(5, 2),
        "a column of zeros": matrix[1] * torch.tensor([0.0, 1.0]),
        "underflow": 1e-30 * matrix[1],
    }[kind]
    matrix.requires_grad_()
    q = orthogonalize(matrix)
    assert (q[1] == torch.eye(5, 2)).all()
    torch.testing.assert_close(q[[0, 2]], polar(matrix[[0, 2]]).float(), rtol=0, atol=2e-6)
    (grad,) = torch.autograd.grad((q * torch.randn(3, 5, 2)).sum(), matrix)
    assert grad.isfinite().all()
    assert not grad[1].any()
    assert grad[[0, 2]].any()


@pytest.mark.parametrize(("dim", "width"), [(1, 1), (4, 1), (5, 3), (3, 3)])
def test_gradients_of_both_orders(dim, width):
    matrix = torch.randn(2, dim, width, **DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(orthogonalize, matrix)
    assert torch.autograd.gradgradcheck(orthogonalize, matrix)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_both_ways_to_the_gradient_solve_its_equation(dtype, error):
    factor = torch.randn(10, 20, 8, dtype=dtype)
    s = factor.mT @ factor
    s, c = s / torch.linalg.matrix_norm(s, keepdim=True), torch.randn(10, 8, 8, dtype=dtype)
    for solve in (_by_eigenvalues, _by_steps):
        inverse, x = solve(s, c - c.mT)
        assert (s @ x + x @ s - (c - c.mT)).abs().max() < error
        assert (s @ inverse - torch.eye(8, dtype=dtype)).abs().max() < error


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_the_gradient_is_that_of_the_iteration(dtype, error):
    matrix, weight = torch.randn(20, 64, 32, dtype=dtype), torch.randn(20, 64, 32, dtype=dtype)
    grads = []
    for function, x in ((orthogonalize, matrix), (lambda x: published(x, 40), matrix.double())):
        x = x.clone().requires_grad_()
        grads += torch.autograd.grad((function(x) * weight).sum(), x)
    assert (grads[0] - grads[1]).abs().max() < error * grads[1].abs().max()


def test_many_matrices_are_the_same_as_few():
    matrix = torch.randn(2 * CACHED // 32 // 8 + 3, 32, 8, requires_grad=True)
    q = orthogonalize(matrix)
    torch.testing.assert_close(q[-3:], orthogonalize(matrix[-3:]))
    (grad,) = torch.autograd.grad(q.square().sum() + q[-1, 0, 0], matrix)
    assert grad[-1].any()


def test_under_vmap_and_on_no_device():
    matrix = torch.randn(4, 5, 3, **DOUBLE)
    torch.testing.assert_close(torch.vmap(orthogonalize)(matrix), orthogonalize(matrix))
    per_matrix = torch.vmap(torch.func.grad(lambda x: orthogonalize(x)[0, 0]))(matrix)
    together = torch.func.grad(lambda x: orthogonalize(x)[:, 0, 0].sum())(matrix)
    torch.testing.assert_close(per_matrix, together)
    assert orthogonalize(matrix.to("meta")).shape == (4, 5, 3)
    assert orthogonalize(matrix[:0]).shape == (0, 5, 3)
