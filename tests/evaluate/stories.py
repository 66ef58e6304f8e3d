# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A small model of 8 x 8 digits with a known KL term, and digits to show it."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, pyro_method
from sklearn.datasets import load_digits
from torch import Tensor, nn

LEVELS = 17


class Story(PyroModule):
    """z ~ N(0, I); x | z ~ Binomial(16, sigmoid(decoder(z))): random networks, one of them with dropout.

    The third unit of z is what its prior says, whatever x is. ``flow`` gives the posterior a push-forward without a
    mean, and ``scale`` weighs the whole model, as a user who anneals or subsamples does.
    """

    def __init__(self, *, flow: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2, bias=False))
        self.decoder = nn.Sequential(nn.Linear(3, 300), nn.Tanh(), nn.Linear(300, 64), nn.Unflatten(-1, (8, 8)))
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) / 20
        self.flow, self.scale = flow, scale

    def posterior(self, x: Tensor) -> dist.Normal:
        loc = self.encoder(x.to(torch.float32))  # (B, 2)
        return dist.Normal(nn.functional.pad(loc, (0, 1)), loc.new_tensor([0.5, 0.5, 1.0]))

    @pyro_method
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        zeros = self.decoder[0].weight.new_zeros(3)
        with pyro.plate("data", size if x is None else len(x)), pyro.poutine.scale(scale=self.scale):
            z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))  # (B, 3)
            return pyro.sample("x", dist.Binomial(LEVELS - 1, logits=self.decoder(z)).to_event(2), obs=x)

    @pyro_method
    def guide(self, x: Tensor) -> Tensor:
        q = self.posterior(x)
        if self.flow:
            q = dist.TransformedDistribution(q, [dist.transforms.AffineTransform(0.0, 1.0)])
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=self.scale):
            return pyro.sample("z", q.to_event(1))  # (B, 3)


def digits(size: int = 40) -> tuple[Tensor, Tensor]:
    """Real digits of scikit-learn: integers 0 ... 16 of shape (size, 8, 8), and their labels."""
    data = load_digits()
    return torch.as_tensor(data.images[:size]).long(), torch.as_tensor(data.target[:size]).long()
