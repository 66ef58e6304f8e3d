# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A compiled bound gives the values and gradients of the bound itself, for every model, flow, bound and control."""

import shutil
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_dgm.infer import ELBO, IWAE, Bound, Objective, compiled
from tests import cases
from tests.infer import programs

# Compiled kernels need a C++ compiler, which whoever runs the tests need not have; recorded graphs run everywhere.
BACKENDS = ["graph", *(["inductor"] if shutil.which("g++") or shutil.which("clang++") else [])]

UNCAPTURED = {  # what runs as usual, by flow and gradient, each with the reason
    **dict.fromkeys(
        [
            "HouseholderSylvester",
            "HouseholderSylvester (2 in a row, 3 reflections)",
            "NeuralAutoregressive",
            "OrthogonalSylvester",
            "OrthogonalSylvester (2 in a row, one direction)",
            "OrthogonalSylvester (bottleneck)",
            "Planar (arctan)",
            "Planar (elu)",
            "Planar (sigmoid)",
            "Planar (sine)",
            "Planar (softplus)",
            "TriangularSylvester",
            "TriangularSylvester (3 in a row)",
        ],
        "stl scores samples by the inverse, which is solved until it converges",
    )
}


def evaluate(objective: Objective, x: Tensor, seed: int = 1) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """Give terms and gradients of one evaluation from a seed."""
    objective.zero_grad()
    torch.manual_seed(seed)
    terms = objective(x)
    terms["loss"].backward()
    return {name: term.detach() for name, term in terms.items()}, {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in objective.named_parameters()
    }


def assert_equal(model: Any, x: Tensor, bound: Bound, *, backend: str, rtol: float = 1e-5) -> None:
    """Compare three evaluations of both, the first of which records."""
    plain = Objective(model.model, model.guide, bound)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = Objective(model.model, model.guide, compiled(bound, backend=backend))
        evaluate(fast, x)
        assert fast.captured.recorded == 1
        for seed in (1, 2, 3):
            (terms, grads), (ours, our_grads) = evaluate(plain, x, seed), evaluate(fast, x, seed)
            assert list(ours) == list(terms)
            for name, term in terms.items():
                torch.testing.assert_close(ours[name], term, rtol=rtol, atol=rtol)
            assert [n for n, g in our_grads.items() if g is None] == [n for n, g in grads.items() if g is None]
            size = max(float(g.abs().max()) for g in grads.values() if g is not None)
            for name, grad in grads.items():
                if grad is not None:
                    torch.testing.assert_close(
                        our_grads[name], grad, rtol=rtol, atol=rtol * size, msg=lambda m, n=name: f"{n}: {m}"
                    )
    assert fast.captured.recorded == 1


@pytest.mark.parametrize("name", programs.MODELS)
def test_every_model(name: str) -> None:
    assert_equal(*programs.MODELS[name](), ELBO(), backend="graph")


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("name", [name for name in programs.MODELS if not name.startswith("ImageFlow")])
def test_every_model_of_few_kernels(name: str, backend: str) -> None:
    assert_equal(*programs.MODELS[name](), ELBO(), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", cases.BOUNDS)
def test_every_bound(name: str, backend: str) -> None:
    assert_equal(*programs.MODELS["VAE"](), cases.BOUNDS[name](4), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", cases.KL_CONTROLS)
def test_every_control_of_the_kl(name: str, backend: str) -> None:
    assert_equal(*programs.MODELS["VAE"](), ELBO(2, kl=cases.KL_CONTROLS[name]()), backend=backend)


@pytest.mark.parametrize("name", programs.FLOWS)
def test_every_flow(name: str) -> None:
    assert_equal(*programs.FLOWS[name](), IWAE(2), backend="graph")


@pytest.mark.parametrize("name", [name for name in programs.FLOWS if name in cases.TRANSFORMS])
def test_every_flow_scored_by_its_inverse(name: str) -> None:
    model, x = programs.FLOWS[name]()
    if name not in UNCAPTURED:
        assert_equal(model, x, ELBO(gradient="stl"), backend="graph")
        return
    objective = Objective(model.model, model.guide, compiled(ELBO(gradient="stl"), backend="graph"))
    with pytest.warns(UserWarning, match="looks at numbers"):
        objective(x)
    assert objective.captured.recorded == 0
