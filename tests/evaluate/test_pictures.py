# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Reconstructions, dreams, decoded codes, embeddings and traversals of a model of digits."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.evaluate import decode, dream, embed, reconstruct, traverse
from tests.evaluate.stories import LEVELS, Story, digits


def test_reconstructions_are_means_in_levels(device):
    story, x = Story().to(device), digits(25)[0].to(device)
    found = reconstruct(story.model, story.guide, x, batch_size=10)
    assert found.shape == x.shape
    assert found.device == x.device
    assert found.min() >= 0
    assert found.max() <= LEVELS - 1
    assert not found.requires_grad
    assert torch.equal(found, reconstruct(story.model, story.guide, x, batch_size=10))
    drawn = reconstruct(story.model, story.guide, x, mean=False)
    assert torch.equal(drawn, drawn.round())
    assert story.training


def test_reconstructions_do_not_see_the_data_they_show():
    """Only z passes from guide to model: an exact copy of x in the guide's z decodes into that copy."""

    def model(x=None, *, size=1):
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(2 * z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x + 1).to_event(1))

    x = torch.randn(7, 4)
    torch.testing.assert_close(reconstruct(model, guide, x), 2 * (x + 1))
    torch.testing.assert_close(embed(guide, x), x + 1)


def test_dreams_depend_on_the_seed_alone(device):
    story = Story().to(device)
    first = dream(story.model, 13, batch_size=5)
    assert first.shape == (13, 8, 8)
    assert first.device.type == device.type
    torch.rand(3)
    assert torch.equal(first, dream(story.model, 13, batch_size=5))
    assert not torch.equal(first, dream(story.model, 13, seed=1, batch_size=5))
    drawn = dream(story.model, 3, mean=False)
    assert torch.equal(drawn, drawn.round())


def test_decode_is_the_decoder(device):
    story = Story().to(device)
    z = torch.randn(11, 3, device=device)
    expected = (LEVELS - 1) * story.decoder(z).sigmoid()
    torch.testing.assert_close(decode(story.model, z, batch_size=4), expected.detach())


def test_embed_is_the_posterior_mean(device):
    story, x = Story().to(device), digits(25)[0].to(device)
    found = embed(story.guide, x, batch_size=7)
    torch.testing.assert_close(found, story.eval().posterior(x).mean.detach())
    flow = embed(Story(flow=True).to(device).guide, x, num_samples=400)
    assert (flow - found).abs().max() < 5 / 20


def test_traversal_moves_one_coordinate():
    story = Story()
    z = torch.tensor([0.3, -0.2, 0.1])
    grid = traverse(story.model, z, dims=[2, 0], values=[-1.0, 0.5], batch_size=3)
    assert grid.shape == (2, 2, 8, 8)
    torch.testing.assert_close(grid[0, 1], decode(story.model, torch.tensor([[0.3, -0.2, 0.5]]))[0])
    torch.testing.assert_close(grid[1, 0], decode(story.model, torch.tensor([[-1.0, -0.2, 0.1]]))[0])
    assert traverse(story.model, z).shape == (3, 7, 8, 8)


def test_a_distribution_without_a_mean_asks_for_samples():
    def model(x=None, *, size=1):
        with pyro.plate("data", size):
            flow = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0), [dist.transforms.ExpTransform()])
            return pyro.sample("x", flow.to_event(1))

    with pytest.raises(ValueError, match="mean=False"):
        dream(model, 3)
    assert dream(model, 3, mean=False).shape == (3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, x: dream(s.model, 0), "size=0"),
        (lambda s, x: dream(s.model, 2, site="picture"), r"'picture'.*\['x', 'z'\]"),
        (lambda s, x: decode(s.model, torch.zeros(2, 3), latent="y"), "codes for site 'y'"),
        (lambda s, x: decode(s.model, torch.zeros(0, 3)), "empty"),
        (lambda s, x: embed(s.guide, x, site="y"), r"'y' and the guide has \['z'\]"),
        (lambda s, x: embed(s.guide, x[:0]), "x is empty"),
        (lambda s, x: reconstruct(s.model, s.guide, x[:0]), "x is empty"),
        (lambda s, x: traverse(s.model, torch.zeros(2, 3)), "one code"),
        (lambda s, x: traverse(s.model, torch.zeros(3), dims=[3]), "from 0 to 2"),
        (lambda s, x: traverse(s.model, torch.zeros(3), values=[]), "at least one"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(Story(), digits(3)[0])
