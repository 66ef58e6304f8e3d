# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Programs with discrete latent variables, and what scikit-learn makes of one of them."""

import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from sklearn.mixture import GaussianMixture as Reference
from torch import Tensor, nn

F64 = torch.float64


def points(size: int = 200, **to: Any) -> Tensor:
    """Data of three clusters in the plane."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[0.0, 0.0], [4.0, 1.0], [-2.0, 3.0]], dtype=F64)
    x = centres[torch.randint(3, (size,), generator=generator)]
    return (x + torch.randn(size, 2, generator=generator, dtype=F64)).to(**to)


def mixture(x: Tensor, *, matrix: str = "covariance_matrix") -> None:
    weights = pyro.param("weights", torch.tensor([0.3, 0.3, 0.4], dtype=F64).to(x), constraint=constraints.simplex)
    means = pyro.param("means", points()[:3].to(x))
    kept = constraints.lower_cholesky if matrix == "scale_tril" else constraints.positive_definite
    matrices = pyro.param("matrices", torch.eye(2).repeat(3, 1, 1).to(x), constraint=kept)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.MultivariateNormal(means[z], **{matrix: matrices[z]}), obs=x)


def reference(x: Tensor, sweeps: int, kind: str, start: Tensor) -> Reference:
    """scikit-learn's EM from the same start, after so many sweeps."""
    model = Reference(
        3, covariance_type=kind, max_iter=sweeps, tol=0, reg_covar=0,
        weights_init=[0.3, 0.3, 0.4], means_init=points()[:3].numpy(), precisions_init=start.numpy(),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        return model.fit(x.numpy())


class Diagonal(nn.Module):
    """A mixture whose parameters are unconstrained, as the house keeps them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.3, 0.3, 0.4], dtype=F64).log())
        self.loc = nn.Parameter(points()[:3].clone())
        self.log_scale = nn.Parameter(torch.zeros(shape, dtype=F64))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(logits=self.logits))
            pyro.sample("x", dist.Normal(self.loc[z], self.log_scale.exp()[z]).to_event(1), obs=x)


def hmm(x: Tensor, lengths: Tensor) -> None:
    begin = pyro.param("begin", torch.tensor([0.6, 0.4], dtype=F64), constraint=constraints.simplex)
    moves = pyro.param("moves", torch.tensor([[0.7, 0.3], [0.2, 0.8]], dtype=F64), constraint=constraints.simplex)
    shows = pyro.param(
        "shows", torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]], dtype=F64), constraint=constraints.simplex
    )
    with pyro.plate("sequences", len(x)):
        z: Any = None
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=t < lengths):
                z = pyro.sample(f"z_{t}", dist.Categorical(begin if z is None else moves[z]))
                pyro.sample(f"x_{t}", dist.Categorical(shows[z]), obs=x[:, t])


def bayesian(x: Tensor) -> None:
    to = {"dtype": x.dtype, "device": x.device}
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((2,), 3.0, **to)))
    with pyro.plate("components", 2):
        loc = pyro.sample("loc", dist.Normal(torch.zeros((), **to), 2.0))
        precision = pyro.sample("precision", dist.Gamma(torch.tensor(2.0, **to), 1.5))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(loc[z], precision[z].rsqrt()), obs=x)


def middle() -> dict[str, Tensor]:
    return {"weights": torch.tensor([0.4, 0.6], dtype=F64), "precision": torch.ones(2, dtype=F64)}
