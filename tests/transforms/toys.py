# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A flow that is small, counts its passes and watches its activations, for the tests of what every flow inherits."""

import weakref
from collections import Counter

import torch

from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.flow_parameters import FlowParameters


class Bend(FlowTransform):
    """y = sinh(exp(a) asinh(x) + b): skews and bends every element, everywhere and invertibly.

    Its log-determinant is computed from both x and y, so that its graph holds on to both.
    """

    def __init__(self, dim, *, context_dim=None):
        super().__init__(dim, context_dim=context_dim)
        self.values = FlowParameters({"a": 0.3 * torch.randn(dim), "b": 0.5 * torch.randn(dim)}, context_dim)
        self.passes = Counter()
        self.watched = []

    def __getstate__(self):
        return {**super().__getstate__(), "watched": []}

    def alive(self):
        """How many of the tensors of all passes are still there."""
        return sum(seen() is not None for seen in self.watched)

    def bind(self, context):
        self.passes["bind"] += 1
        return self.values(context)

    def _forward_and_logdet(self, x, parameters):
        self.passes["forward"] += 1
        a, b = parameters
        y = torch.sinh(a.exp() * torch.asinh(x) + b)
        return self._watch(y, a.expand_as(y) + (y.square().log1p() - x.square().log1p()) / 2)

    def _inverse_and_logdet(self, y, parameters):
        self.passes["inverse"] += 1
        a, b = parameters
        x = torch.sinh((torch.asinh(y) - b) * (-a).exp())
        return self._watch(x, (x.square().log1p() - y.square().log1p()) / 2 - a)

    def _watch(self, value, logdet):
        self.watched += [weakref.ref(value), weakref.ref(logdet)]
        return value, logdet.sum(-1)


class Turn(FlowTransform):
    """y_i = x_{i+1} exp(s_i): mixes the elements, so that rows of Jacobians are not diagonal."""

    def __init__(self, dim, *, context_dim=None):
        super().__init__(dim, context_dim=context_dim)
        self.values = FlowParameters({"s": torch.randn(dim)}, context_dim)

    def bind(self, context):
        return self.values(context)

    def _forward_and_logdet(self, x, parameters):
        (s,) = parameters
        return x.roll(-1, -1) * s.exp(), s.sum(-1).expand(x.shape[:-1])

    def _inverse_and_logdet(self, y, parameters):
        (s,) = parameters
        return (y * (-s).exp()).roll(1, -1), -s.sum(-1).expand(y.shape[:-1])


def normal(dim, **to):
    """The standard normal of vectors."""
    return torch.distributions.Independent(torch.distributions.Normal(torch.zeros(dim, **to), torch.ones(dim, **to)), 1)
