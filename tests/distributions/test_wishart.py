# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The Wishart and normal-Wishart distributions against PyTorch's formulas, samples, and updates one datum at a time."""

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_dgm.distributions.normal_wishart import NormalWishart
from pyro_dgm.distributions.wishart import Wishart
from tests.oracles import within

SCATTER = torch.tensor([[[2.0, 0.3], [0.3, 1.0]], [[1.0, 0.0], [0.0, 3.0]]], dtype=torch.float64)
DOF = torch.tensor([4.0, 5.5], dtype=torch.float64)


def wishart() -> Wishart:
    return Wishart(DOF, torch.linalg.cholesky(SCATTER))


def belief(**changes: Tensor) -> NormalWishart:
    loc = torch.tensor([[1.0, -2.0], [0.0, 0.5]], dtype=torch.float64)
    parts = {"loc": loc, "mean_precision": torch.tensor([0.5, 3.0], dtype=torch.float64), "dof": DOF}
    return NormalWishart(**{**parts, "scatter_tril": torch.linalg.cholesky(SCATTER), **changes})


def test_densities_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    draws = wishart().sample((6,))
    theirs = torch.distributions.Wishart(DOF, precision_matrix=SCATTER)
    torch.testing.assert_close(wishart().log_prob(draws), theirs.log_prob(draws))
    torch.testing.assert_close(wishart().mean, theirs.mean)
    torch.testing.assert_close(wishart().expand((3, 2)).log_prob(draws[:3]), theirs.log_prob(draws[:3]))


def test_draws_have_the_moments_that_formulas_give() -> None:
    torch.manual_seed(0)
    draws = wishart().sample((20000,))
    other = Wishart(torch.tensor(3.5).double(), torch.eye(2).double())
    assert within(draws, wishart().mean)
    assert within(torch.logdet(draws), wishart().expected_log_det())
    assert within(wishart().log_prob(draws) - other.log_prob(draws), wishart().kl(other))
    torch.testing.assert_close(wishart().kl(wishart()), torch.zeros(2).double())


def test_draws_carry_gradients() -> None:
    dof, tril = DOF.clone().requires_grad_(), torch.linalg.cholesky(SCATTER).requires_grad_()
    torch.manual_seed(0)
    draws = Wishart(dof, tril).rsample((20000,)).diagonal(dim1=-2, dim2=-1).sum((-2, -1)).mean()
    of_draws = torch.autograd.grad(draws, [dof, tril])
    of_mean = torch.autograd.grad(Wishart(dof, tril).mean.diagonal(dim1=-2, dim2=-1).sum(), [dof, tril])
    for found, exact in zip(of_draws, of_mean, strict=True):
        torch.testing.assert_close(found, exact.tril() if exact.dim() > 2 else exact, atol=0.15, rtol=0.05)


def test_expectations_under_a_belief() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[0.0, 0.0], [2.0, -1.0]], dtype=torch.float64)
    precisions = belief().precisions().sample((20000,))
    locs = belief().locs(precisions).sample()
    scores = dist.MultivariateNormal(locs, precision_matrix=precisions).log_prob(x[:, None, None]).movedim(0, 1)
    assert within(scores, belief().expected_log_prob(x))
    assert within(scores.exp(), belief().predictive_log_prob(x).exp())
    other = belief(loc=torch.zeros(2, 2).double(), mean_precision=torch.ones(2).double(), dof=DOF - 1)
    difference = belief().precisions().log_prob(precisions) - other.precisions().log_prob(precisions)
    difference = difference + belief().locs(precisions).log_prob(locs) - other.locs(precisions).log_prob(locs)
    assert within(difference, belief().kl(other))


def test_in_one_dimension_the_predictive_density_is_a_student_t() -> None:
    one = NormalWishart(*(torch.tensor(value).double() for value in ([[0.3]], [2.0], [3.0], [[[1.7**0.5]]])))
    x = torch.linspace(-3, 3, 7).double()
    scale = (1.7 * 3 / 2 / 3) ** 0.5
    torch.testing.assert_close(one.predictive_log_prob(x[:, None])[:, 0], dist.StudentT(3.0, 0.3, scale).log_prob(x))


@pytest.mark.parametrize("center", [0.0, 100.0])
def test_an_update_by_all_data_is_that_by_each_in_turn(center: float) -> None:
    torch.manual_seed(0)
    x, share = torch.randn(5, 2).double(), torch.rand(5, 2).double()
    centers = torch.full((2, 2), center).double()
    away = x - centers[:, None]
    weighted = share.mT.unsqueeze(-1) * away
    at_once = belief().updated(share.sum(0), centers, weighted.sum(1), weighted.mT @ away)
    in_turn = belief()
    for datum, weight in zip(x, share, strict=True):
        in_turn = in_turn.updated(
            weight, datum.expand(2, -1), torch.zeros(2, 2).double(), torch.zeros(2, 2, 2).double()
        )
    for one, other in zip(vars(at_once).values(), vars(in_turn).values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_half_the_way_there_is_the_mean_of_natural_parameters() -> None:
    other = belief(loc=torch.zeros(2, 2).double(), mean_precision=torch.ones(2).double(), dof=DOF + 4)

    def natural(q: NormalWishart) -> list[Tensor]:
        outer = q.loc.unsqueeze(-1) * q.loc.unsqueeze(-2)
        scatter = q.scatter_tril @ q.scatter_tril.mT + q.mean_precision[:, None, None] * outer
        return [q.mean_precision, q.mean_precision.unsqueeze(-1) * q.loc, q.dof, scatter]

    for half, one, two in zip(*map(natural, (belief().towards(other, 0.5), belief(), other)), strict=True):
        torch.testing.assert_close(half, (one + two) / 2)


@pytest.mark.parametrize("dof", [0.5, 2.0, torch.nan])
def test_too_few_degrees_of_freedom_are_refused(dof: float) -> None:
    with pytest.raises(ValueError, match="must be above 2"):
        Wishart(torch.tensor([4.0, dof]), torch.eye(3))
    assert Wishart(torch.tensor(2.5), torch.eye(3)).sample().isfinite().all()
