# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Every flow and every composition of flows, of any dimension, depth, shape and parameters, is what it says."""

from typing import NamedTuple

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.distributions import TransformedDistribution

from pyro_dgm.transforms import Compose, Invert
from tests.cases import TRANSFORMS, TRANSFORMS_OF_FREE_SCALE
from tests.transforms.random_flows import (
    AMORTISED,
    CONTEXT,
    LEARNED,
    class_of,
    conditioned,
    jacobian,
    noise,
    random_flow,
    standard,
)

close = torch.testing.assert_close
NEEDS_TWO = {name for name in TRANSFORMS if "oupling" in name or name in ("Compose", "Invert")}
examples = settings(max_examples=3 * settings().max_examples)

dims = st.integers(1, 6)
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.01, 0.3, 1.0, 2.0])
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


class Plan(NamedTuple):
    """Which flow, of how many elements, how large its parameters are; and how many data and contexts there are."""

    case: tuple[str, bool]
    dim: int
    scale: float
    batch: tuple[int, ...]
    dims_of_context: int
    seed: int

    def carry_out(self):
        torch.manual_seed(self.seed)
        context = self.batch[len(self.batch) - min(self.dims_of_context, len(self.batch)) :]
        free = class_of(self.case[0]) in TRANSFORMS_OF_FREE_SCALE  # at 2, conditions of 1e12 eat up all digits
        flow = random_flow(self.case, context, dim=self.dim, scale=min(self.scale, 1.0) if free else self.scale)
        return flow, 2 * noise(*self.batch, self.dim)


plans = st.builds(Plan, st.sampled_from(LEARNED + AMORTISED), dims, scales, shapes, st.integers(0, 3), seeds).filter(
    lambda plan: plan.dim > 1 or plan.case[0] not in NEEDS_TWO
)


def assert_bijective(flow, x, tolerance=1e-5):
    y, logdet = flow.forward(x)
    back, inverse_logdet = flow.inverse(y)
    assert (y.shape, logdet.shape) == (x.shape, x.shape[:-1])
    close(back, x, rtol=tolerance, atol=tolerance)
    close(inverse_logdet, -logdet, rtol=tolerance, atol=tolerance)
    close(flow.forward(flow.inverse(x)[0])[0], x, rtol=tolerance, atol=tolerance)


@examples
@given(plans)
def test_a_flow_is_bijective(plan):
    assert_bijective(*plan.carry_out())


@examples
@given(plans)
def test_a_flow_knows_its_jacobian(plan):
    assume(0 not in plan.batch)
    flow, x = plan.carry_out()
    for function in (flow.forward, flow.inverse):
        exact = jacobian(lambda v, function=function: function(v)[0], x).slogdet()[1]
        close(function(x)[1], exact, rtol=1e-5, atol=1e-5)


@examples
@given(plans)
def test_rows_stay_rows_in_any_order(plan):
    """Exchanging data, with their contexts, exchanges the answers."""
    flow, x = plan.carry_out()
    x = x.reshape(-1, x.shape[-1])
    order = torch.randperm(len(x))
    context = None if flow.context is None else noise(len(x), CONTEXT)
    here = conditioned(flow.flow, context)
    there = conditioned(flow.flow, None if context is None else context[order])
    for direction in ("forward", "inverse"):
        value, logdet = getattr(here, direction)(x)
        close(getattr(there, direction)(x[order]), (value[order], logdet[order]), rtol=1e-8, atol=1e-8)


parts = st.lists(st.tuples(st.sampled_from(LEARNED + AMORTISED), st.booleans()), min_size=1, max_size=4)


@examples
@given(parts, st.integers(2, 5), seeds)
def test_a_composition_is_a_flow_whose_log_determinants_add(cases, dim, seed):
    """Some of them backwards, each learned or amortised."""
    torch.manual_seed(seed)
    flows = [(random_flow(case, dim=dim, scale=0.5).flow, backwards) for case, backwards in cases]
    flows = [Invert(flow) if backwards else flow for flow, backwards in flows]
    context = noise(3, CONTEXT) if any(case[1] for case, _ in cases) else None
    flow, x = conditioned(Compose(flows), context), 2 * noise(3, dim)
    assert_bijective(flow, x)
    y, total = x, 0
    for part in flows:
        y, logdet = conditioned(part, None if part.context_dim is None else context).forward(y)
        total = total + logdet
    close(flow.forward(x), (y, total), rtol=1e-8, atol=1e-8)
    nested = conditioned(Compose([Compose(flows[:1]), *([Compose(flows[1:])] if flows[1:] else [])]), context)
    close(nested.forward(x), (y, total), rtol=1e-8, atol=1e-8)


@examples
@given(plans, shapes)
def test_a_sample_is_scored_as_data_are(plan, sample_shape):
    assume(0 not in sample_shape + plan.batch)
    flow, x = plan.carry_out()
    base = standard(x.shape[-1], x)
    d = TransformedDistribution(base, [flow.transform])
    y = d.rsample(sample_shape)
    behind, logdet = flow.inverse(y.clone())
    close(d.log_prob(y), base.log_prob(behind) + logdet, rtol=1e-5, atol=1e-5)


def test_every_class_takes_part():
    assert {class_of(name) for name, _ in LEARNED} >= {class_of(name) for name in TRANSFORMS}
