# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Models whose log p(x) is known exactly, to hold every estimate against."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn


class LinearGaussian(nn.Module):
    """PPCA: z ~ N(0, I), x | z ~ N(W z, s^2 I), whose log p(x) and posterior are Gaussian and known.

    ``widen`` above 1 makes the guide worse than the exact posterior by a known amount. ``subsample`` lets the data
    plate pick that many of the data, ``infinite`` gives the plate no size, ``outside`` adds an observed site outside.
    """

    def __init__(
        self,
        dim: int = 4,
        latent: int = 2,
        *,
        widen: float = 1.0,
        subsample: int | None = None,
        infinite: bool = False,
        outside: bool = False,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        weight = torch.randn(dim, latent, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight.to(device=device, dtype=dtype))
        self.noise = 0.6
        self.widen, self.subsample, self.infinite, self.outside = widen, subsample, infinite, outside

    def plate(self, x: Tensor) -> pyro.plate:
        if self.infinite:
            return pyro.plate("data", dim=-1)
        return pyro.plate("data", len(x), subsample_size=self.subsample, device=x.device)

    def model(self, x: Tensor) -> None:
        if self.outside:
            pyro.sample("outside", dist.Normal(x.new_zeros(3), 1.0).to_event(1), obs=x.new_tensor([0.3, -1.0, 2.0]))
        with self.plate(x) as index:
            batch = x if self.infinite else x[index]
            rows = (len(x),) if self.infinite else ()  # a plate that knows no size cannot expand a prior
            z = pyro.sample("z", dist.Normal(x.new_zeros(*rows, self.weight.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight.mT, self.noise).to_event(1), obs=batch)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        precision = self.weight.mT @ self.weight + self.noise**2 * torch.eye(self.weight.shape[1]).to(x)
        covariance = self.noise**2 * torch.linalg.inv(precision)
        return x @ self.weight @ torch.linalg.inv(precision), covariance

    def guide(self, x: Tensor) -> None:
        mean, covariance = self.posterior(x)
        with self.plate(x) as index:
            chosen = mean if self.infinite else mean[index]
            pyro.sample("z", dist.MultivariateNormal(chosen, self.widen * covariance))

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) of each datum, in nats, shape (N,)."""
        covariance = self.weight @ self.weight.mT + self.noise**2 * torch.eye(self.weight.shape[0]).to(x)
        return dist.MultivariateNormal(x.new_zeros(self.weight.shape[0]), covariance).log_prob(x)

    def outside_log_prob(self) -> float:
        """Exact log-probability of the site outside the plate."""
        return -1.5 * math.log(2 * math.pi) - 0.5 * (0.09 + 1.0 + 4.0)

    def data(self, size: int) -> Tensor:
        """Draw data from the model itself."""
        generator = torch.Generator().manual_seed(11)
        z = torch.randn(size, self.weight.shape[1], generator=generator, dtype=torch.float64).to(self.weight)
        noise = torch.randn(size, self.weight.shape[0], generator=generator, dtype=torch.float64).to(self.weight)
        return (z @ self.weight.mT + self.noise * noise).detach()


class BernoulliLatent(nn.Module):
    """One hidden bit z ~ Bernoulli(a), x | z ~ N(z m, 1): every expectation is a sum of two terms."""

    def __init__(self) -> None:
        super().__init__()
        self.prior_logit = nn.Parameter(torch.tensor(-0.4, dtype=torch.float64))
        self.mean = nn.Parameter(torch.tensor(1.3, dtype=torch.float64))
        self.slope = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.subsample: int | None = None

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=self.subsample) as index:
            z = pyro.sample("z", dist.Bernoulli(logits=self.prior_logit))
            pyro.sample("x", dist.Normal(z * self.mean, 1.0), obs=x[index])

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=self.subsample) as index:
            pyro.sample("z", dist.Bernoulli(logits=self.slope * x[index]))

    def table(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-weights and log q of both values, each of shape (2, N)."""
        z = torch.tensor([[0.0], [1.0]], dtype=x.dtype)
        log_q = dist.Bernoulli(logits=self.slope * x).log_prob(z.expand(2, len(x)))
        log_p = dist.Bernoulli(logits=self.prior_logit).log_prob(z) + dist.Normal(z * self.mean, 1.0).log_prob(x)
        return log_p - log_q, log_q


def within(estimate: Tensor, exact: Tensor | float, errors: float = 5.0) -> bool:
    """Whether the mean of independent estimates (first dimension) is the exact value within 5 standard errors."""
    error = estimate.std(0) / math.sqrt(len(estimate))
    return bool(((estimate.mean(0) - exact).abs() <= errors * error + 1e-9).all())


def not_above(estimate: Tensor, exact: Tensor | float, errors: float = 5.0) -> bool:
    """Whether the mean of independent estimates exceeds the exact value by no more than 5 standard errors."""
    error = estimate.std(0) / math.sqrt(len(estimate))
    return bool((estimate.mean(0) <= exact + errors * error + 1e-9).all())


def gradients(
    bound: pyro.infer.ELBO,
    pair: Any,
    parameters: list[nn.Parameter],
    x: Tensor,
    *,
    copies: int = 400,
    rounds: int = 60,
    scale: float = 1.0,
) -> Tensor:
    """Independent estimates of the ascent direction, each the mean over copies of the data: shape (rounds, numbers)."""
    found = []
    for _ in range(rounds):
        loss = bound.differentiable_loss(pair.model, pair.guide, x.repeat(copies, *[1] * (x.dim() - 1)))
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, parts, strict=True)]
        found.append(-scale * torch.cat([part.flatten() for part in flat]) / copies)
    return torch.stack(found)


def agree(first: Tensor, second: Tensor, errors: float = 5.0) -> bool:
    """Whether two sets of independent estimates have one mean, within 5 standard errors of the difference."""
    error = (first.var(0) / len(first) + second.var(0) / len(second)).sqrt()
    return bool(((first.mean(0) - second.mean(0)).abs() <= errors * error + 1e-9).all())
