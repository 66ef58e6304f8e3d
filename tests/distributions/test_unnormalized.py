# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A density known up to its normaliser is scored, never sampled, and lets an ELBO find the normaliser."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro.infer import MCMC, NUTS

from pyro_dgm.distributions import Unnormalized
from pyro_dgm.infer import ELBO, IWAE

NORMAL = dist.MultivariateNormal(torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 0.9], [0.9, 1.0]]))
LOG_Z = 3.0


def log_density(x):
    return NORMAL.log_prob(x) + LOG_Z


@given(st.lists(st.integers(1, 4), max_size=3), st.lists(st.integers(1, 3), min_size=1, max_size=2))
def test_it_scores_any_batch(batch, event):
    target = Unnormalized(lambda x: -x.square().sum(tuple(range(-len(event), 0))), event)
    x = torch.randn(*batch, *event)
    torch.testing.assert_close(target.log_prob(x), -x.square().flatten(len(batch)).sum(-1))
    assert (target.batch_shape, target.event_shape) == ((), tuple(event))


def test_a_plate_expands_it():
    target = Unnormalized(log_density, (2,)).expand((5, 3))
    assert target.batch_shape == (5, 3)
    x = torch.randn(3, 2)
    assert target.log_prob(x).shape == (5, 3)
    assert target.to_event(1).log_prob(x).shape == (5,)
    assert copy.deepcopy(target).event_shape == (2,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_device_and_dtype_are_those_of_the_value(dtype, device):
    x = torch.randn(4, 2, dtype=dtype, device=device, requires_grad=True)
    log_prob = Unnormalized(lambda x: -x.square().sum(-1), (2,)).log_prob(x)
    assert (log_prob.dtype, log_prob.device.type) == (dtype, device.type)
    log_prob.sum().backward()
    torch.testing.assert_close(x.grad, -2 * x.detach())


def test_no_number_is_read_back_on_the_way():
    target = Unnormalized(lambda x: -x.square().sum(-1), (2,), validate_args=False)
    assert target.log_prob(torch.randn(4, 2, device="meta")).device.type == "meta"


def test_an_elbo_with_the_exact_guide_is_the_normaliser():
    def model():
        pyro.sample("x", Unnormalized(log_density, (2,)))

    def guide():
        pyro.sample("x", NORMAL)

    for bound in (ELBO(), ELBO(4), IWAE(4)):
        assert bound.loss(model, guide).item() == pytest.approx(-LOG_Z, abs=1e-4)


def test_a_markov_chain_samples_it():
    target = Unnormalized(log_density, (2,))
    kernel = NUTS(potential_fn=lambda values: -target.log_prob(values["x"]))
    start = {"x": torch.zeros(2)}
    chain = MCMC(kernel, num_samples=100, warmup_steps=100, disable_progbar=True, initial_params=start)
    chain.run()
    assert (chain.get_samples()["x"].mean(0) - NORMAL.mean).abs().max() < 0.8


def test_sampling_is_refused_with_a_way_out():
    def model():
        pyro.sample("x", Unnormalized(log_density, (2,)))

    with pytest.raises(NotImplementedError, match="cannot be sampled, only scored.*guide"):
        Unnormalized(log_density, (2,)).sample()
    with pytest.raises(NotImplementedError, match="only scored"):
        model()


@pytest.mark.parametrize(
    ("make", "x", "message"),
    [
        (lambda: Unnormalized(log_density, (0,)), torch.zeros(1), "every size must be at least 1"),
        (lambda: Unnormalized(log_density, (2,), validate_args=False), torch.zeros(4, 3), r"of shape \(4, 3\)"),
        (lambda: Unnormalized(lambda x: -x, (2,)), torch.zeros(4, 2), r"\(4, 2\) for values.*must return one number"),
        (lambda: Unnormalized(lambda x: -x.sum(), (2,)), torch.zeros(4, 2), r"shape \(\) for values"),
        (lambda: Unnormalized(log_density, (2,), validate_args=True), torch.full((2,), torch.nan), "support"),
    ],
)
def test_what_cannot_be_scored_is_an_error(make, x, message):
    with pytest.raises(ValueError, match=message):
        make().log_prob(x)
