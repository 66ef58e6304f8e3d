# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What every flow inherits: one pass, contexts, shapes, copies, inverses, composition and messages."""

import copy
import pickle

import pytest
import torch
from jaxtyping import TypeCheckError
from pyro.distributions import ConditionalTransformedDistribution, TransformedDistribution
from pyro.distributions.torch_transform import ComposeTransformModule
from torch import nn
from torch.distributions.transforms import ComposeTransform
from torch.func import jacrev, vmap

from pyro_dgm.transforms import Compose, Invert
from tests.transforms.toys import Bend, Turn, normal

close = torch.testing.assert_close


def amortised(dim=2, context_dim=3):
    """Two that take a context around one that takes none."""
    return Compose([Bend(dim, context_dim=context_dim), Turn(dim), Bend(dim, context_dim=context_dim)])


def passes(flow):
    """How often each part was run, by what."""
    return [dict(part.passes) for part in flow.modules() if isinstance(part, Bend)]


# One pass.


def test_a_sample_is_scored_without_another_pass():
    flow = Bend(2)
    d = TransformedDistribution(normal(2), flow)
    y = d.rsample((5,))
    score = d.log_prob(y)
    close(d.log_prob(y), score)
    assert passes(flow) == [{"bind": 1, "forward": 1}]
    close(score, d.log_prob(y.clone()))


def test_data_are_scored_in_one_pass():
    flow = Bend(2)
    TransformedDistribution(normal(2), flow).log_prob(torch.randn(5, 2))
    assert passes(flow) == [{"bind": 1, "inverse": 1}]


def test_inverted_flows_exchange_the_passes():
    flow = Invert(Bend(2))
    d = TransformedDistribution(normal(2), flow)
    d.log_prob(d.rsample((5,)))
    assert passes(flow) == [{"bind": 1, "inverse": 1}]
    d.log_prob(torch.randn(5, 2))
    assert passes(flow) == [{"bind": 2, "inverse": 1, "forward": 1}]


@pytest.mark.parametrize("wrap", [Compose, lambda flows: Compose([Compose(flows[:1]), Compose(flows[1:])])])
def test_every_part_of_a_composition_runs_once(wrap):
    flow = wrap([Bend(2), Turn(2), Bend(2)])
    d = TransformedDistribution(normal(2), flow)
    d.log_prob(d.rsample((5,)))
    assert passes(flow) == [{"bind": 1, "forward": 1}] * 2
    d.log_prob(torch.randn(5, 2))
    assert passes(flow) == [{"bind": 2, "forward": 1, "inverse": 1}] * 2


def test_a_context_is_looked_at_once():
    flow = amortised()
    seen = []
    for part in flow.flows:
        if part.context_dim is not None:
            part.values.net.register_forward_hook(lambda *_: seen.append(1))
    d = ConditionalTransformedDistribution(normal(2), [flow]).condition(torch.randn(5, 3))
    assert len(seen) == 2
    d.log_prob(d.rsample((4,)))
    d.log_prob(d.rsample())
    d.log_prob(torch.randn(5, 2))
    assert len(seen) == 2
    assert passes(flow) == [{"bind": 1, "forward": 2, "inverse": 1}] * 2


def test_without_a_memory_the_answers_are_the_same():
    for flow in (amortised(), Invert(amortised())):
        forgetful, context, noise = flow.with_cache(0), torch.randn(5, 3), torch.randn(5, 2)
        with_memory, without = flow.condition(context), forgetful.condition(context)
        y = with_memory(noise)
        close(without(noise), y)
        close(without.log_abs_det_jacobian(noise, y), with_memory.log_abs_det_jacobian(noise, y))
        close(without.inv(y), noise, rtol=1e-4, atol=1e-4)
        assert with_memory.inv(y) is noise
        assert without.inv(y) is not noise
        assert with_memory.with_cache(0).inv(y) is not noise


@pytest.mark.parametrize("make", [lambda: Bend(2), lambda: Invert(Bend(2)), lambda: Compose([Bend(2)])])
def test_with_cache_shares_the_parameters(make):
    flow = make()
    other = flow.with_cache(0)
    assert flow.with_cache(1) is flow
    assert other.with_cache(0) is other
    assert [id(p) for p in other.parameters()] == [id(p) for p in flow.parameters()]
    x = torch.randn(5, 2)
    for remembering in (flow, other.with_cache(1)):
        y = remembering(x)
        assert remembering.inv(y) is x
    y = other(x)
    assert other.inv(y) is not x
    with pytest.raises(ValueError, match="cache_size=2: it must be 0 or 1"):
        flow.with_cache(2)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_who_maps_twice_has_two_graphs(direction):
    """Gradients of several passes may be added up before an optimiser steps."""
    flow, x = Compose([Bend(2), Turn(2)]), torch.randn(5, 2)
    transform = flow if direction == "forward" else flow.inv
    for _ in range(3):
        y = transform(x)  # the y of the pass before is still here when this one begins
        (y.sum() + transform.log_abs_det_jacobian(x, y).sum()).backward()


def test_nothing_is_remembered_under_functorch():
    flow, x = Compose([Bend(2), Turn(2)]), torch.randn(5, 2)
    expected = torch.stack([torch.autograd.functional.jacobian(flow._call, row) for row in x])
    close(vmap(jacrev(flow))(x), expected)
    close(jacrev(flow)(x[0]), expected[0])
    close(flow(x), flow.forward_and_logdet(x)[0])
    y = flow(x)
    close(vmap(flow)(x), y)
    close(vmap(lambda row: flow.log_abs_det_jacobian(row, flow(row)))(x), expected.det().abs().log())


# Copies.


@pytest.mark.parametrize("make", [lambda: Bend(2), lambda: Invert(Bend(2)), lambda: Compose([Bend(2), Turn(2)])])
def test_a_used_flow_can_be_copied(make):
    flow, x = make(), torch.randn(5, 2)
    y = flow(x)
    flow.inv(y)
    for same in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow)), copy.copy(flow)):
        close(same(x), y)
        close(same.log_abs_det_jacobian(x, same(x)), flow.log_abs_det_jacobian(x, y))
    other = copy.deepcopy(flow)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert not torch.allclose(other(x), y)
    assert torch.equal(flow(x), y)


def test_a_used_distribution_can_be_deep_copied():
    d = TransformedDistribution(normal(2), [Bend(2), Turn(2)])
    y = d.sample((5,))
    score = d.log_prob(y)
    close(copy.deepcopy(d).log_prob(y), score)


# Inverses.


def test_the_inverse_is_a_module_with_the_parameters():
    flow = Bend(2)
    assert isinstance(flow.inv, Invert)
    assert flow.inv.inv is flow
    close(Invert(Invert(flow))(x := torch.randn(2)), flow(x))
    assert list(flow.inv.parameters()) == list(flow.parameters())
    assert len(list(ComposeTransformModule([flow.inv, Turn(2)]).parameters())) == 3
    assert len(nn.ModuleList([flow.inv]).state_dict()) == 2
    assert repr(flow.inv) == "Invert(Bend(2))"
    with pytest.raises((ValueError, TypeCheckError), match=r"Linear"):  # the second while annotations are checked
        Invert(nn.Linear(2, 2))


def test_an_amortised_flow_is_inverted_before_or_after_its_context():
    flow, context, x = amortised(), torch.randn(5, 3), torch.randn(5, 2)
    conditioned = flow.condition(context)
    y = conditioned(x)
    for inverse in (conditioned.inv, Invert(flow).condition(context), flow.inv.condition(context)):
        close(inverse(y), x, rtol=1e-4, atol=1e-4)
        close(inverse.log_abs_det_jacobian(y, x), -conditioned.log_abs_det_jacobian(x, y), rtol=1e-4, atol=1e-4)
        close(inverse.inv(x), y, rtol=1e-4, atol=1e-4)
    assert conditioned.inv.inv is conditioned


# Composition.


def test_a_composition_is_its_parts_in_their_order():
    parts = [Bend(2), Turn(2), Bend(2)]
    flow, stock, x = Compose(parts), ComposeTransform(parts), torch.randn(5, 2)
    close(flow(x), parts[2](parts[1](parts[0](x))))
    close(flow(x), stock(x))
    close(flow.log_abs_det_jacobian(x, flow(x)), stock.log_abs_det_jacobian(x, stock(x)))
    close(flow.inv(x), stock.inv(x))
    assert len(list(flow.parameters())) == 5
    assert repr(flow) == "Compose([Bend(2), Turn(2), Bend(2)])"
    assert (flow.dim, flow.context_dim, amortised().context_dim) == (2, None, 3)


def test_what_does_not_fit_together_is_not_composed():
    with pytest.raises(ValueError, match="Compose got nothing: it needs a list of flows"):
        Compose([])
    with pytest.raises((ValueError, TypeCheckError), match="ExpTransform"):
        Compose([Bend(2), torch.distributions.ExpTransform()])
    with pytest.raises(ValueError, match=r"Compose got flows \[Bend\(2\), Bend\(3\)\]: each must take the shape"):
        Compose([Bend(2), Bend(3)])
    with pytest.raises(ValueError, match=r"Compose got flows .*context_dim=4.*one context_dim or none"):
        Compose([Bend(2, context_dim=3), Bend(2, context_dim=4)])


# Shapes.


@pytest.mark.parametrize("base", [(), (5,), (4, 5), (4, 1)], ids=str)
@pytest.mark.parametrize("context", [(), (5,), (1,), (4, 5), (3,)], ids=str)
def test_the_base_expands_to_the_batch_of_the_context(base, context):
    try:
        batch = torch.broadcast_shapes(base, context)
    except RuntimeError:
        with pytest.raises(ValueError, match="conditioned on a context of batch shape"):
            amortised().condition(torch.randn(*context, 3))(torch.randn(*base, 2))
        return
    d = ConditionalTransformedDistribution(normal(2).expand(base), [amortised()]).condition(torch.randn(*context, 3))
    assert (d.batch_shape, d.event_shape) == (batch, (2,))
    for sample_shape in ((), (6,), (2, 3)):
        y = d.rsample(sample_shape)
        assert y.shape == (*sample_shape, *batch, 2)
        assert d.log_prob(y).shape == (*sample_shape, *batch)
    wide = d.expand((7, *batch))
    assert wide.rsample().shape == (7, *batch, 2)
    assert wide.log_prob(torch.randn(2)).shape == (7, *batch)


def test_a_shared_value_is_scored_under_every_context():
    flow, contexts, y = amortised(), torch.randn(5, 3), torch.randn(2)
    d = ConditionalTransformedDistribution(normal(2), [flow])
    one_by_one = [d.condition(context).log_prob(y) for context in contexts]
    close(d.condition(contexts).log_prob(y), torch.stack(one_by_one))
    many = d.condition(contexts).log_prob(torch.randn(4, 5, 2))
    assert many.shape == (4, 5)


# Messages.


@pytest.mark.parametrize("run", [lambda flow, x: flow(x), lambda flow, x: flow.inv(x)])
def test_values_of_the_wrong_kind_are_refused(run):
    for flow in (Bend(2), Compose([Bend(2)]), Bend(2, context_dim=3).condition(torch.randn(3))):
        for shape in [(3,), (), (2, 3)]:
            with pytest.raises(ValueError, match=r"\(dim=2\) got a value of shape .*its last size must be 2"):
                run(flow, torch.zeros(shape))
        with pytest.raises(ValueError, match=r"got a value of dtype torch.int64: .*floating point.*dequantisation"):
            run(flow, torch.zeros(5, 2, dtype=torch.int64))


def test_learned_and_amortised_are_not_confused():
    with pytest.raises(ValueError, match=r"Bend\(dim=2\) has its own parameters and takes no context.*context_dim=3"):
        Bend(2).condition(torch.randn(5, 3))
    with pytest.raises(ValueError, match="takes no context"):
        Bend(2).condition(torch.tensor(1.0))
    flow = Bend(2, context_dim=3)
    for run in (flow, flow.inv, lambda x: flow.log_abs_det_jacobian(x, x)):
        with pytest.raises(ValueError, match=r"Bend\(dim=2, context_dim=3\) takes its parameters from a context: use"):
            run(torch.randn(5, 2))


def test_contexts_of_the_wrong_kind_are_refused():
    flow = Bend(2, context_dim=3)
    for context in (torch.randn(5, 2), torch.randn(()), torch.zeros(5, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"context_dim=3\) got a context of shape .*last size 3"):
            flow.condition(context)
    with pytest.raises(ValueError, match=r"context of batch shape \(5,\), and got a value of shape \(4, 2\)"):
        flow.condition(torch.randn(5, 3))(torch.randn(4, 2))
    with pytest.raises(ValueError, match=r"context of batch shape \(5,\)"):
        ConditionalTransformedDistribution(normal(2).expand((4,)), [flow]).condition(torch.randn(5, 3))


def test_sizes_must_be_positive():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=rf"Bend got dim=\({wrong},\)"):
            Bend(wrong)
        with pytest.raises(ValueError, match=rf"Bend got context_dim=\({wrong},\)"):
            Bend(2, context_dim=wrong)


def test_a_value_of_another_precision_is_an_error():
    with pytest.raises(ValueError, match=r"Bend has parameters of dtype torch.float32 .* use x.to\(torch.float32\)"):
        Bend(2)(torch.randn(3, 2, dtype=torch.float64))
