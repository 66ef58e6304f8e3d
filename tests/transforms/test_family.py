# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What every public flow promises, learned and amortised, at random parameters far from where it starts."""

import copy
import math
import pickle

import pytest
import torch

from tests.cases import IMAGE_TRANSFORMS, TRANSFORMS, TRANSFORMS_OF_WHOLE_BATCHES
from tests.transforms.random_flows import (
    build,
    class_of,
    conditioned,
    every_amortised_flow_of_anything,
    every_flow,
    every_flow_of_anything,
    jacobian,
    noise,
    random_flow,
    randomise,
    standard,
)

close = torch.testing.assert_close
BATCHES = [(), (3,), (2, 3)]
OF_FLOWS = ("Compose", "Invert", "MultiScale", "Reversible")  # made of other flows


@every_flow_of_anything
def test_the_inverse_undoes_the_map_and_the_map_the_inverse(case):
    flow = random_flow(case, (20,))
    x, y = 2 * noise(20, *flow.shape), 2 * noise(20, *flow.out_shape)
    there, logdet = flow.forward(x)
    back, inverse_logdet = flow.inverse(there)
    close(back, x, rtol=1e-6, atol=1e-6)
    close(inverse_logdet, -logdet, rtol=1e-6, atol=1e-6)
    back, logdet = flow.inverse(y)
    there, forward_logdet = flow.forward(back)
    close(there, y, rtol=1e-6, atol=1e-6)
    close(forward_logdet, -logdet, rtol=1e-6, atol=1e-6)


@every_flow_of_anything
def test_log_determinants_are_those_of_the_jacobian(case):
    flow = random_flow(case, (10,))
    for function, shape, _ in flow.directions:
        x = 2 * noise(10, *shape)
        exact = jacobian(lambda v, function=function: function(v)[0], x, batch=1).slogdet()[1]
        close(function(x)[1], exact, rtol=1e-6, atol=1e-6)


@every_flow_of_anything
def test_the_answer_is_far_from_that_of_a_new_flow(case):
    """Otherwise the tests above would look at the identity."""
    flow = random_flow(case, (10,))
    y, logdet = flow.forward(x := noise(10, *flow.shape))
    assert (y.flatten(1) - x.flatten(1)).abs().mean() > 0.03
    keeps_volume = ("AdditiveCoupling", "Householder", "Permute", "Squeeze")
    assert logdet.abs().mean() > 0.03 or class_of(case[0]) in keeps_volume


@every_flow_of_anything
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_rows_and_their_contexts_are_independent(case, batch):
    flow = random_flow(case, batch[-1:])
    contexts = [None] * math.prod(batch)
    if flow.context is not None:
        wide = flow.context.expand(*batch, *flow.flow.context_shape)
        contexts = wide.reshape(-1, *flow.flow.context_shape)
    for direction, (_, shape, out) in zip(("forward", "inverse"), flow.directions, strict=True):
        x = noise(*batch, *shape)
        value, logdet = getattr(flow, direction)(x)
        assert (value.shape, logdet.shape) == ((*batch, *out), batch)
        rows = zip(contexts, x.reshape(-1, *shape), strict=True)
        one_by_one = [getattr(conditioned(flow.flow, h), direction)(row) for h, row in rows]
        close(value.reshape(-1, *out), torch.stack([y for y, _ in one_by_one]), rtol=1e-8, atol=1e-8)
        close(logdet.reshape(-1), torch.stack([logdet for _, logdet in one_by_one]), rtol=1e-8, atol=1e-8)


@every_flow_of_anything
@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
def test_nothing_in_nothing_out(case, batch):
    flow = random_flow(case, batch[-1:])
    for function, shape, out in flow.directions:
        value, logdet = function(noise(*batch, *shape))
        assert (value.shape, logdet.shape) == ((*batch, *out), batch)


@every_amortised_flow_of_anything
def test_one_value_meets_many_contexts_and_one_context_many_values(case):
    flow = random_flow(case, (3,))
    for function, shape in (("forward_and_logdet", flow.shape), ("inverse_and_logdet", flow.out_shape)):
        x = noise(2, 3, *shape)
        wide, logdet = getattr(flow.transform, function)(x[0, 0])
        for h, y, part in zip(flow.context, wide, logdet, strict=True):
            close(getattr(flow.flow.condition(h), function)(x[0, 0]), (y, part), rtol=1e-8, atol=1e-8)
        shared = getattr(flow.flow.condition(flow.context[0]), function)(x)
        repeated = getattr(flow.flow.condition(flow.context[:1].expand(3, *flow.flow.context_shape)), function)(x)
        close(shared, repeated, rtol=1e-8, atol=1e-8)


@every_flow_of_anything
def test_single_and_double_precision(case, device):
    double = random_flow(case, (5,), device=device, scale=0.7)
    single_flow = copy.deepcopy(double.flow).float()
    single = conditioned(single_flow, None if double.context is None else double.context.float())
    for (there, shape, _), (here, _, _) in zip(double.directions, single.directions, strict=True):
        x = noise(5, *shape, device=device)
        value, logdet = here(x.float())
        assert value.dtype == logdet.dtype == torch.float32
        assert value.device == logdet.device == x.device
        close((value.double(), logdet.double()), there(x), rtol=1e-3, atol=1e-3)
        value, logdet = there(x)
        assert value.dtype == logdet.dtype == torch.float64


@every_flow_of_anything
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_training_and_evaluation_agree(case, direction):
    if direction == "inverse" and class_of(case[0]) in TRANSFORMS_OF_WHOLE_BATCHES:
        return  # they differ, as the flow says
    flow = random_flow(case, (6,))
    x = noise(6, *(flow.shape if direction == "forward" else flow.out_shape))
    flow.flow.train()
    flow.inverse(noise(6, *flow.out_shape))  # what is initialised by data, is
    trained = getattr(flow, direction)(x)
    flow.flow.eval()
    close(getattr(flow, direction)(x), trained)


@every_flow_of_anything
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_are_finite_and_reach_everything(case, direction, mode):
    flow = random_flow(case, (6,))
    getattr(flow.flow, mode)()
    x = noise(6, *(flow.shape if direction == "forward" else flow.out_shape)).requires_grad_()
    context = None if flow.context is None else flow.context.requires_grad_()
    value, logdet = getattr(conditioned(flow.flow, context), direction)(x)
    ((value * noise(*value.shape)).sum() + (logdet * noise(6)).sum()).backward()
    reached = [*flow.flow.named_parameters(), ("x", x), *([("context", context)] if case[1] else [])]
    for name, tensor in reached:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().sum() > 0, name


@every_flow_of_anything
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_are_those_of_finite_differences(case, direction):
    """Along a random direction in all parameters, the context and the input at once."""
    flow = random_flow(case, (3,), scale=0.5)
    x = noise(3, *(flow.shape if direction == "forward" else flow.out_shape))
    tensors = [x, *([] if flow.context is None else [flow.context]), *flow.flow.parameters()]
    tensors = [tensor.detach().clone() for tensor in tensors]
    weights, ways = noise(3, math.prod(flow.shape) + 1), [noise(*tensor.shape) for tensor in tensors]
    names = [name for name, _ in flow.flow.named_parameters()]

    def loss(step):
        moved = [tensor + step * way for tensor, way in zip(tensors, ways, strict=True)]
        x, *rest = moved
        context = rest.pop(0) if case[1] else None
        with torch.no_grad() if not isinstance(step, torch.Tensor) else torch.enable_grad():
            return torch.func.functional_call(_Loss(flow.flow, direction), _named(names, rest), (x, context, weights))

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    loss(step).backward()
    h = 1e-5
    close(step.grad, (loss(h) - loss(-h)) / (2 * h), rtol=1e-4, atol=1e-5)


class _Loss(torch.nn.Module):
    """A weighted sum of the value and the log-determinant."""

    def __init__(self, flow, direction):
        super().__init__()
        self.flow, self.direction = flow, direction

    def forward(self, x, context, weights):
        value, logdet = getattr(conditioned(self.flow, context), self.direction)(x)
        return (torch.cat([value.flatten(1), logdet.unsqueeze(-1)], -1) * weights).sum()


def _named(names, tensors):
    return {f"flow.{name}": tensor for name, tensor in zip(names, tensors, strict=True)}


# As a module and as a transform.


@every_flow_of_anything
def test_copies_are_equal_and_independent(case):
    flow = random_flow(case, (3,))
    x = noise(3, *flow.shape)
    y = flow.transform(x)
    fresh = build(case).double().eval()
    fresh.load_state_dict(flow.flow.state_dict())
    copies = [copy.deepcopy(flow.flow), pickle.loads(pickle.dumps(flow.flow)), fresh, flow.flow.with_cache(0)]
    randomise(shared := flow.flow.with_cache(0))
    has_parameters = any(True for _ in flow.flow.parameters())
    for same in copies[:3]:
        assert torch.equal(conditioned(same, flow.context).transform(x), y)
    assert has_parameters != torch.equal(conditioned(flow.flow, flow.context).transform(x), y)
    for same in (copies[3], shared):
        assert torch.equal(conditioned(same, flow.context).transform(x), conditioned(*flow[:2]).transform(x))


@every_flow_of_anything
def test_a_sample_is_scored_by_the_parameters_of_now(case):
    flow = random_flow(case, (3,), scale=0.5)
    base = standard(flow.shape, noise(1))
    y = flow.over(base).rsample((3,) if flow.context is None else ())
    with torch.no_grad():
        for parameter in flow.flow.parameters():
            parameter.add_(0.1)
    now = conditioned(flow.flow, flow.context)
    x, logdet = now.inverse(y)
    close(now.over(base).log_prob(y), base.log_prob(x) + logdet)


@every_flow_of_anything
@pytest.mark.parametrize("base", [(), (5,)], ids=str)
def test_it_makes_a_distribution(case, base):
    flow = random_flow(case, (5,))
    d = flow.over(standard(flow.shape, noise(1)).expand(base))
    batch = (5,) if case[1] else base
    assert (d.batch_shape, d.event_shape) == (batch, flow.out_shape)
    for sample_shape in ((), (2, 3)):
        y = d.rsample(sample_shape)
        assert y.shape == (*sample_shape, *batch, *flow.out_shape)
        score = d.log_prob(y)
        assert score.shape == (*sample_shape, *batch)
        close(score, d.log_prob(y.clone()), rtol=1e-6, atol=1e-6)


@every_flow_of_anything
def test_nothing_is_left_on_the_default_device(case):
    flow = build(case).to("meta")
    context = torch.randn(3, *flow.context_shape, device="meta") if case[1] else None
    value, logdet = conditioned(flow, context).forward(torch.randn(2, 3, *flow.shape, device="meta"))
    assert value.is_meta
    assert logdet.is_meta
    assert (value.shape, logdet.shape) == ((2, 3, *flow.out_shape), (2, 3))


@every_flow
def test_its_density_integrates_to_one(case):
    flow = random_flow(case, dim=2, scale=0.4)
    d = flow.over(standard(2, noise(1)))
    sample = d.sample((2000,))
    low, high = sample.amin(0) - 2 * sample.std(0), sample.amax(0) + 2 * sample.std(0)
    grid = torch.linspace(0, 1, 301, dtype=torch.float64)
    with torch.no_grad():
        density = d.log_prob(low + (high - low) * torch.cartesian_prod(grid, grid)).exp()
    assert density.sum() * ((high - low) / 300).prod() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if class_of(name) not in (*OF_FLOWS, "Permute")])
def test_sizes_must_be_positive(name):
    for dim in (0, -1):
        with pytest.raises(ValueError, match=r"(dim=|got a mask)"):
            type(build((name, False)))(dim)


@pytest.mark.parametrize("name", [name for name in IMAGE_TRANSFORMS if class_of(name) not in OF_FLOWS])
def test_sizes_of_images_must_be_positive(name):
    for shape in ((0, 4, 4), (2, -2, 4), (2, 4, 0)):
        with pytest.raises(ValueError, match=class_of(name)):
            type(build((name, False)))(shape)
