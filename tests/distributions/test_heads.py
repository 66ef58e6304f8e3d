# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What every posterior and every likelihood promises: raw numbers in, a valid distribution over one datum out."""

import copy
import pickle
from functools import partial

import pyro
import pytest
import torch

from tests.cases import LIKELIHOODS, POSTERIORS

SHAPE, LATENT = (2, 3), 4
HEADS = {name: partial(build, SHAPE) for name, build in LIKELIHOODS.items()}
HEADS |= {name: partial(build, LATENT) for name, build in POSTERIORS.items()}
DTYPES = [torch.float32, torch.float64]
LEADING = [(), (3,), (2, 3), (0,), (2, 0)]


def event_shape(head):
    return getattr(head, "shape", (LATENT,))


def reads_only(head):
    """Whether a head reads raw numbers as they come, without weights of its own: a posterior with a flow has some."""
    return not list(head.parameters())


@pytest.fixture(params=HEADS)
def head(request):
    torch.manual_seed(0)
    return HEADS[request.param]()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", LEADING, ids=str)
def test_any_leading_dimensions(head, batch, dtype, device):
    head = head.to(device, dtype)
    p = head(torch.randn(*batch, *head.in_shape, device=device, dtype=dtype))
    assert (p.batch_shape, p.event_shape) == (batch, event_shape(head))
    if 0 not in batch:
        x = p.sample()
        assert x.shape == batch + event_shape(head)
        assert p.log_prob(x).shape == batch
        assert (p.log_prob(x).dtype, x.device) == (dtype, p.log_prob(x).device)
        assert not reads_only(head) or p.mean.shape == x.shape


@pytest.mark.parametrize("name", [name for name, build in HEADS.items() if reads_only(build())])
def test_a_head_without_weights_needs_no_dtype(name):
    """Its raw numbers decide: a head in float32 takes float64."""
    head = HEADS[name]()
    raw = torch.randn(3, *head.in_shape, dtype=torch.float64)
    p = head(raw)
    assert p.log_prob(p.sample()).dtype == torch.float64


def test_elements_are_independent(head):
    raw = torch.randn(3, *head.in_shape)
    x = head(raw).sample()
    raw_2 = raw.clone()
    raw_2[0] += torch.randn(head.in_shape)
    first, second = head(raw).log_prob(x), head(raw_2).log_prob(x)
    assert torch.equal(first[1:], second[1:])
    assert first[0] != second[0]
    torch.testing.assert_close(torch.stack([head(r).log_prob(y) for r, y in zip(raw, x, strict=True)]), first)


def test_gradient_reaches_every_raw_number(head):
    raw = torch.randn(3, *head.in_shape, dtype=torch.float64, requires_grad=True)
    p = head.double()(raw)
    p.log_prob(p.sample()).sum().backward()
    assert raw.grad.isfinite().all()
    # One of 65536 logits, or a component far from the value, has a small gradient but not none.
    assert (raw.grad != 0).all()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize("size", [-1e3, -50.0, 0.0, 40.0])
def test_any_raw_number_gives_a_valid_distribution(head, size):
    """Numbers of an untrained or diverging network; validation of the parameters is on."""
    raw = torch.full((3, *head.in_shape), size, requires_grad=True)
    p = head(raw)
    log_prob = p.log_prob(p.sample())
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_raised_to_single(head, half):
    raw = torch.randn(3, *head.in_shape).to(half)
    p, q = head(raw), head(raw.float())
    x = q.sample()
    assert p.log_prob(x).dtype == torch.float32
    assert torch.equal(p.log_prob(x), q.log_prob(x))


def test_raw_numbers_of_another_shape_are_refused(head):
    who = type(head).__name__
    for shape in ((), (3, *head.in_shape[:-1]), (head.in_shape[0] + 1, *head.in_shape[1:])):
        with pytest.raises(ValueError, match=rf"{who} got raw parameters of shape.*must be \({head.in_shape[0]},"):
            head(torch.zeros(shape))


def test_copies_score_the_same(head):
    raw = torch.randn(3, *head.in_shape)
    x = head(raw).sample()
    other = copy.deepcopy(head)
    other.load_state_dict(head.state_dict())
    for same in (other, pickle.loads(pickle.dumps(head))):
        assert torch.equal(same(raw).log_prob(x), head(raw).log_prob(x))


def test_nothing_is_left_on_the_default_device(head):
    """A tensor that is made on the CPU on the way cannot be combined with one that has no storage."""
    with pyro.validation_enabled(False), torch.no_grad():  # a flow's solvers need numbers: its draw is remembered
        p = head.to("meta")(torch.empty(3, *head.in_shape, device="meta"))
        assert p.log_prob(p.sample()).is_meta
        assert not reads_only(head) or p.mean.is_meta
