# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Products of reflections in compact form: against the product written out, and where vectors vanish."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_dgm.transforms.reflections import reflect, reflect_back, reflection_matrix, reflections

DOUBLE = {"dtype": torch.float64}


def written_out(vectors):
    """H_1 H_2 ... H_K, shape (*batch, D, D)."""
    product = torch.eye(vectors.shape[-1], dtype=vectors.dtype).expand(*vectors.shape[:-2], -1, -1)
    for v in vectors.unbind(-2):
        unit = v / v.norm(dim=-1, keepdim=True)
        product = product @ (torch.eye(v.shape[-1], dtype=v.dtype) - 2 * unit.unsqueeze(-1) * unit.unsqueeze(-2))
    return product


def orthogonality_error(q):
    return (q.mT @ q - torch.eye(q.shape[-1], dtype=q.dtype)).abs().max()


@given(st.integers(1, 9), st.integers(1, 12), st.sampled_from([(), (3,), (2, 3)]))
def test_the_compact_form_is_the_product(dim, count, batch):
    vectors = torch.randn(*batch, count, dim, **DOUBLE)
    q, compact = written_out(vectors), reflections(vectors)
    torch.testing.assert_close(reflection_matrix(compact), q)
    rows = torch.randn(*batch, 5, dim, **DOUBLE)
    torch.testing.assert_close(reflect(rows, compact), rows @ q.mT)
    torch.testing.assert_close(reflect_back(rows, compact), rows @ q)
    torch.testing.assert_close(reflect_back(reflect(rows, compact), compact), rows)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 2e-15)])
@pytest.mark.parametrize(("count", "dim"), [(8, 64), (64, 64), (1, 1)])
def test_the_product_is_orthogonal_to_machine_precision(dtype, error, count, dim):
    q = reflection_matrix(reflections(torch.randn(20, count, dim, dtype=dtype)))
    assert orthogonality_error(q) < error * max(count, 4) ** 0.5


def test_parallel_vectors_cancel_in_pairs():
    vectors = torch.randn(5, **DOUBLE).expand(4, 5) * torch.tensor([[1.0], [-3.0], [2.0], [0.1]])
    torch.testing.assert_close(reflection_matrix(reflections(vectors)), torch.eye(5, **DOUBLE))
    compact = reflections(vectors[:3])
    torch.testing.assert_close(reflect(vectors[0], compact), -vectors[0])


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-10, 1e10, 1e30])
def test_the_length_of_a_vector_does_not_matter(scale):
    vectors = torch.randn(3, 6)
    other = reflection_matrix(reflections(vectors * torch.tensor([[1.0], [scale], [scale]])))
    torch.testing.assert_close(other, reflection_matrix(reflections(vectors)), rtol=1e-5, atol=1e-5)


def test_a_zero_vector_reflects_nothing_and_its_gradient_is_finite():
    vectors = torch.randn(4, 5, **DOUBLE)
    vectors[[1, 3]] = 0
    vectors.requires_grad_()
    q = reflection_matrix(reflections(vectors))
    torch.testing.assert_close(q, written_out(vectors[[0, 2]]))
    (grad,) = torch.autograd.grad((q * torch.randn_like(q)).sum(), vectors)
    assert grad.isfinite().all()
    nothing = torch.zeros(2, 3, 5, requires_grad=True)
    q = reflection_matrix(reflections(nothing))
    assert (q == torch.eye(5)).all()
    (grad,) = torch.autograd.grad(q.sum(), nothing)
    assert grad.isfinite().all()


@pytest.mark.parametrize(("count", "dim"), [(1, 1), (2, 3), (4, 3)])
def test_gradients(count, dim):
    vectors, rows = torch.randn(2, count, dim, **DOUBLE), torch.randn(2, 3, dim, **DOUBLE)
    for function in (reflect, reflect_back):

        def run(vectors, rows, function=function):
            return function(rows, reflections(vectors))

        assert torch.autograd.gradcheck(run, (vectors.requires_grad_(), rows.requires_grad_()))
