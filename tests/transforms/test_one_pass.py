# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A transform that is no module, and is made anew in every call, waits for no collector of cycles."""

import gc
import weakref

import pytest
import torch
from pyro.distributions import TransformedDistribution

from pyro_dgm.transforms.one_pass import OnePass
from tests.transforms.toys import normal


class Move(OnePass):
    """Adds a number; a transform with no parameters and no module, as those are that are made anew in every call."""

    def __init__(self, by):
        super().__init__(cache_size=1)
        self.by = by

    def forward_and_logdet(self, x):
        return x + self.by, x.new_zeros(x.shape[:-1])

    def inverse_and_logdet(self, y):
        return y - self.by, y.new_zeros(y.shape[:-1])

    def tensors(self):
        return (self.by,)

    def modes(self):
        return ()


USES = {
    "map back": lambda d, transform: transform.inv(torch.randn(5, 2)),
    "sample": lambda d, transform: d.rsample((5,)),
    "sample and score": lambda d, transform: d.log_prob(d.rsample((5,))),
    "score": lambda d, transform: d.log_prob(torch.randn(5, 2)),
}


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("use", USES)
def test_a_transform_that_is_no_module_dies_with_its_last_user(use):
    transform = Move(torch.randn(2, requires_grad=True))
    gone = [weakref.ref(transform), weakref.ref(transform.by)]
    USES[use](TransformedDistribution(normal(2), transform), transform)
    del transform
    assert [seen() for seen in gone] == [None, None]
