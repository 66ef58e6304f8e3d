# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Pyro's TraceGraph_ELBO marks tensors by what they depend on: flows keep the marks, the values and the gradients."""

import torch
from pyro.ops.provenance import get_provenance, track_provenance

from tests.transforms.random_flows import conditioned, every_flow_of_anything, noise, random_flow


def gradients(flow, value):
    """Those of all parameters, with zeros for what takes no part."""
    wanted = list(flow.flow.parameters())
    if not wanted:
        return []
    return torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True, materialize_grads=True)


@every_flow_of_anything
def test_marks_and_gradients_stay(case):
    torch.manual_seed(0)
    flow = random_flow(case, (5,))
    marked = frozenset({"z"})
    for function, shape, _ in flow.directions:
        x = noise(5, *shape)
        plain, tracked = function(x.clone()), function(track_provenance(x.clone(), marked))
        assert get_provenance(tracked) == marked
        for one, other in zip(plain, tracked, strict=True):
            torch.testing.assert_close(other.as_subclass(torch.Tensor), one)
        if plain[0].requires_grad:
            totals = [sum((part * part).sum() for part in pair) for pair in (plain, tracked)]
            torch.testing.assert_close(gradients(flow, totals[1]._t), gradients(flow, totals[0]))


@every_flow_of_anything
def test_a_context_hands_its_mark_on(case):
    torch.manual_seed(0)
    flow = random_flow(case, (5,))
    if flow.context is None:
        return
    again = conditioned(flow.flow, track_provenance(flow.context.clone(), frozenset({"h"})))
    x, y = noise(5, *flow.shape), noise(5, *flow.out_shape)
    assert get_provenance(again.forward(x)) == get_provenance(again.inverse(y)) == frozenset({"h"})
