# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A mean without a closed form is that of as many samples as were asked for, however many are drawn at once."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.evaluate.posterior_means import MAX_ELEMENTS, posterior_means


class Counted(dist.TransformedDistribution):
    """A distribution without a mean, which writes down how many samples it is asked for."""

    def __init__(self, size: int, units: int) -> None:
        base = dist.Normal(torch.zeros(size, units), 1.0).to_event(1)
        super().__init__(base, [dist.transforms.AffineTransform(1.0, 2.0, event_dim=1)])
        self.asked: list[int] = []

    def sample(self, sample_shape=()):
        self.asked.append(torch.Size(sample_shape).numel())
        return super().sample(sample_shape)


def mean(q: Counted, num_samples: int) -> torch.Tensor:
    x = torch.zeros(q.batch_shape)
    return posterior_means(lambda x: pyro.sample("z", q), x, num_samples=num_samples)["z"]


@pytest.mark.parametrize("num_samples", [1, 2, 100])
def test_it_is_that_of_one_sample_after_the_other(num_samples):
    q = Counted(8, 2)
    torch.manual_seed(0)
    found = mean(q, num_samples)
    torch.manual_seed(0)
    q.sample()  # the guide's own
    torch.testing.assert_close(found, torch.stack([q.sample() for _ in range(num_samples)]).mean(0))


def test_samples_at_once_are_as_many_as_fit_into_bounded_memory():
    few, many = Counted(8, 2), Counted(MAX_ELEMENTS // 16, 40)
    mean(few, 1000)
    assert sum(few.asked) == 1000
    assert len(few.asked) == 2
    mean(many, 5)
    assert max(many.asked) == 1
