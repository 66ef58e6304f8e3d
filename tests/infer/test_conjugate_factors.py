# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Factors of a mean-field posterior: few points stand for each exactly, and gradients at few points find it."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_dgm.infer import MeanField
from pyro_dgm.infer.conjugate_factor import ContinuousFactor, Factor
from pyro_dgm.infer.conjugate_gamma import GammaFactor
from pyro_dgm.infer.conjugate_normal import NormalFactor, VectorFactor
from pyro_dgm.infer.conjugate_simplex import BetaFactor, DirichletFactor


def tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


FACTORS: dict[str, Factor] = {
    "beta": BetaFactor(tensor(0.3, 2.0, 700.0), tensor(1.5, 0.2, 0.9), 0),
    "dirichlet": DirichletFactor(torch.tensor([[0.2, 3.0, 0.5], [40.0, 1.0, 0.1]], dtype=torch.float64), 1),
    "dirichlet (one)": DirichletFactor(tensor(0.7), 1),
    "gamma": GammaFactor(tensor(0.05, 1.0, 3e5), tensor(0.1, 9.0, 2.0), 0),
    "normal": NormalFactor(tensor(0.0, 5.0), tensor(1.0, 1e-3)),
    "vector": VectorFactor(tensor(1.0, -2.0), torch.tensor([[1.0, 0.0], [0.7, 0.3]], dtype=torch.float64), 1),
}


@pytest.mark.parametrize("name", FACTORS)
def test_nodes_have_the_moments_of_the_factor(name: str) -> None:
    factor = FACTORS[name]
    nodes = factor.nodes()
    assert sum(weight for _, weight in nodes) == pytest.approx(1)

    def mean(statistic) -> Tensor:
        return torch.stack([weight * statistic(point) for point, weight in nodes]).sum(0)

    q = factor.distribution()
    if name == "beta":
        total = (factor.first + factor.second).digamma()
        torch.testing.assert_close(mean(torch.log), factor.first.digamma() - total)
        torch.testing.assert_close(mean(lambda s: torch.log1p(-s)), factor.second.digamma() - total)
    elif name.startswith("dirichlet"):
        exact = factor.concentration.digamma() - factor.concentration.sum(-1, keepdim=True).digamma()
        torch.testing.assert_close(mean(torch.log), exact)
        torch.testing.assert_close(mean(lambda s: s.sum(-1)), torch.ones_like(exact[..., 0]))
    elif name == "gamma":
        torch.testing.assert_close(mean(lambda s: s), q.mean)
        torch.testing.assert_close(mean(torch.log), factor.concentration.digamma() - factor.rate.log())
    elif name == "normal":
        torch.testing.assert_close(mean(lambda s: s), q.mean)
        torch.testing.assert_close(mean(torch.square), q.mean**2 + q.variance)
    else:
        torch.testing.assert_close(mean(lambda s: s), q.mean)
        torch.testing.assert_close(mean(lambda s: s.outer(s)), q.mean.outer(q.mean) + q.covariance_matrix)


@pytest.mark.parametrize("name", [name for name, factor in FACTORS.items() if isinstance(factor, ContinuousFactor)])
def test_a_factor_finds_itself_from_its_own_gradient(name: str) -> None:
    target = FACTORS[name].distribution()
    factor = copy.deepcopy(FACTORS[name])
    for buffer in factor.buffers():
        buffer.mul_(1.3)

    def gradient(point: Tensor) -> Tensor:
        leaf = point.clone().requires_grad_()
        return torch.autograd.grad(target.log_prob(leaf).sum(), leaf)[0]

    assert factor.fit(gradient) < 1e-6
    if name != "dirichlet (one)":
        for found, wanted in zip(factor.buffers(), FACTORS[name].buffers(), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-8, rtol=1e-6)


def test_a_factor_too_broad_for_numbers_is_refused() -> None:
    """Its mean log is about -10^4, and no number has that log."""

    def broad() -> None:
        with pyro.plate("rates", 2):
            rate = pyro.sample("rate", dist.Gamma(torch.tensor(1e-4).double(), 1.0))
        pyro.sample("x", dist.Poisson(rate[0]), obs=tensor(3.0)[0])

    def sparse() -> None:
        p = pyro.sample("p", dist.Dirichlet(torch.full((3,), 1e-4).double()))
        pyro.sample("x", dist.Categorical(p), obs=torch.tensor(1))

    def lopsided() -> None:
        p = pyro.sample("p", dist.Beta(torch.tensor(1e-4).double(), 2.0))
        pyro.sample("x", dist.Bernoulli(p), obs=tensor(0.0)[0])

    for model in (broad, sparse, lopsided):
        with pytest.raises(ValueError, match="too broad"):
            MeanField(model).sweep()
