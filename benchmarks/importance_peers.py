# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""One IWAE, 784-200-200-50 and back with tanh, in plain PyTorch, in stock Pyro, in pythae and here."""

import contextlib
import io
import math
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_dgm.distributions import DiagonalNormal
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP

SHAPE, HIDDEN, LATENT = (28, 28), 200, 50


def ink(count: int, device: str = "cpu") -> Tensor:
    """Draw black and white pictures with about as much ink as MNIST has."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, *SHAPE, generator=generator) < 0.13).long().to(device)


def ours(device: str = "cpu") -> VAE:
    """The model as a Pyro program."""
    net = partial(MLP, hidden=(HIDDEN, HIDDEN), activation=nn.Tanh)
    posterior = partial(DiagonalNormal, scale="exp")
    vae = VAE(shape=SHAPE, levels=2, latent=LATENT, encoder=net, decoder=net, posterior=posterior)
    return vae.to(device)


class Plain(nn.Module):
    """The model as anyone would write it in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(784, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2 * LATENT)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 784)
        )

    def log_weights(self, x: Tensor, particles: int) -> Tensor:
        """Give log p(x, z) - log q(z | x), shape ``(K, B)``."""
        x = x.flatten(1).float()
        loc, log_scale = self.encoder(x).chunk(2, -1)
        noise = torch.randn(particles, *loc.shape, device=x.device)
        z = torch.addcmul(loc, noise, log_scale.exp())
        log_q = (-0.5 * noise.square() - log_scale).sum(-1)
        log_p = (-0.5 * z.square()).sum(-1)
        logits = self.decoder(z)
        log_px = -nn.functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        return log_px + log_p - log_q

    def forward(self, x: Tensor, particles: int) -> Tensor:
        """Give the negative bound of K particles, averaged over the data."""
        return -(self.log_weights(x, particles).logsumexp(0) - math.log(particles)).mean()


class Stock(Plain):
    """The model as a program of Pyro alone: its plates, its distributions."""

    def model(self, x: Tensor) -> None:
        """Sample z from N(0, 1) and score the pictures."""
        pyro.module("decoder", self.decoder)
        x = x.flatten(1).float()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        """Sample z as the encoder says."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x.flatten(1).float()).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def of_pythae(particles: int, device: str = "cpu") -> Any:  # noqa: ANN401 -- it has no types
    """The model as pythae has it, with networks of ours of the same sizes."""
    with contextlib.redirect_stderr(io.StringIO()):
        from pythae.models import IWAE, IWAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder

    plain = Plain()

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            BaseEncoder.__init__(self)
            self.net = plain.encoder

        def forward(self, x: Tensor) -> ModelOutput:
            loc, log_scale = self.net(x.flatten(1)).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            BaseDecoder.__init__(self)
            self.net = plain.decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z).sigmoid().reshape(-1, 1, *SHAPE))

    config = IWAEConfig(input_dim=(1, *SHAPE), latent_dim=LATENT, reconstruction_loss="bce", number_samples=particles)
    return IWAE(config, encoder=Encoder(), decoder=Decoder()).to(device)
