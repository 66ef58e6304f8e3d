# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A stack is what its factory makes, in a row, with the elements in another order before each."""

from collections.abc import Callable
from functools import partial

import pyro.distributions as dist
import pytest
import torch
import yaml
from jaxtyping import TypeCheckError
from jsonargparse import ArgumentParser
from torch import nn

from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.batch_norm import BatchNorm
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.inverse_autoregressive import InverseAutoregressive
from pyro_dgm.transforms.lu_linear import LULinear
from pyro_dgm.transforms.masked_autoregressive import MaskedAutoregressive
from pyro_dgm.transforms.permute import Permute
from pyro_dgm.transforms.planar import Planar
from pyro_dgm.transforms.stack import Stack

FLOWS = [InverseAutoregressive, MaskedAutoregressive, AffineCoupling, Planar]
BETWEEN = {"reverse": Permute, "random": Permute, "lu": LULinear}


def away_from_the_start(flow):
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow.double()


@pytest.mark.parametrize("between", [*BETWEEN, None])
@pytest.mark.parametrize("flow", FLOWS)
def test_flows_and_what_is_between(flow, between):
    if flow is AffineCoupling and between is None:
        with pytest.raises(ValueError, match=r"never changes the elements \[0, 1\]"):
            Stack(4, flow=flow, depth=3, between=None)
        return
    stack = away_from_the_start(Stack(4, flow=flow, depth=3, between=between))
    kinds = [type(part) for part in stack.flows]
    expected = [flow, flow, flow] if between is None else [flow, BETWEEN[between], flow, BETWEEN[between], flow]
    assert kinds == expected
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    y, logdet = stack.forward_and_logdet(x)
    back, logdet_back = stack.inverse_and_logdet(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(logdet_back, -logdet)
    jacobian = torch.autograd.functional.jacobian(lambda x: stack.forward_and_logdet(x)[0], x[0, 0])
    torch.testing.assert_close(logdet[0, 0], torch.linalg.slogdet(jacobian).logabsdet)
    same = Compose(list(stack.flows)).forward_and_logdet(x)
    torch.testing.assert_close(same, (y, logdet))


@pytest.mark.parametrize("between", [*BETWEEN, None])
def test_a_context_goes_to_every_flow(between):
    stack = away_from_the_start(Stack(3, flow=MaskedAutoregressive, depth=2, between=between, context_dim=2))
    assert [part.context_dim for part in stack.flows] == ([2, 2] if between is None else [2, None, 2])
    h, x = torch.randn(5, 2, dtype=torch.float64), torch.randn(7, 5, 3, dtype=torch.float64)
    y, logdet = stack.condition(h).forward_and_logdet(x)
    for i in range(5):
        one, logdet_one = stack.condition(h[i]).forward_and_logdet(x[:, i])
        torch.testing.assert_close(one, y[:, i])
        torch.testing.assert_close(logdet_one, logdet[:, i])
    torch.testing.assert_close(stack.condition(h).inverse_and_logdet(y)[0], x)


def test_it_is_a_posterior():
    stack = Stack(3, depth=2, context_dim=2)
    q = dist.ConditionalTransformedDistribution(dist.Normal(torch.zeros(3), 1.0).to_event(1), [stack])
    q = q.condition(torch.randn(5, 2))
    z = q.rsample((4,))
    assert z.shape == (4, 5, 3)
    assert q.log_prob(z).shape == (4, 5)


def test_random_permutations_differ_and_are_in_the_state_dict():
    stack, other = (Stack(8, depth=4, between="random") for _ in range(2))
    x = torch.randn(3, 8)
    orders = {tuple(part.order.tolist()) for part in stack.flows if isinstance(part, Permute)}
    assert len(orders) == 3
    assert not torch.allclose(stack(x), other(x))
    other.load_state_dict(stack.state_dict())
    assert torch.equal(stack(x), other(x))
    assert torch.equal(stack.inv(x), other.inv(x))


def test_defaults_and_one_flow():
    assert [type(part).__name__ for part in Stack(3).flows] == ["InverseAutoregressive", "Permute"] * 3 + [
        "InverseAutoregressive"
    ]
    assert len(Stack(3, flow=AffineCoupling, depth=1).flows) == 1


@pytest.mark.parametrize("dim", [2, 3, 4, 5])
def test_couplings_change_every_element_or_are_refused(dim):
    every_other = partial(AffineCoupling, mask=[i % 2 == 0 for i in range(dim)])
    if dim % 2:
        with pytest.raises(ValueError, match=rf"Stack\(dim={dim}\) with between='reverse'.*between='random' or 'lu'"):
            Stack(dim, flow=every_other)
    stacks = [Stack(dim, flow=every_other, between="lu"), Stack(dim, flow=every_other, between="random", depth=12)]
    stacks += [] if dim % 2 else [Stack(dim, flow=every_other, depth=2)]
    for stack in (*stacks, Stack(dim, flow=AffineCoupling, depth=2)):
        x = torch.randn(dim, dtype=torch.float64)
        away_from_the_start(stack)
        jacobian = torch.autograd.functional.jacobian(lambda x, stack=stack: stack.forward_and_logdet(x)[0], x)
        assert ((jacobian != 0) & (jacobian != 1)).any(0).all()
    mixed = Stack(dim, flow=lambda dim: Compose([AffineCoupling(dim), LULinear(dim)]), between=None)
    assert len(mixed.flows) == 4


class Owner:
    """Takes a factory of flows, as a posterior does."""

    def __init__(self, flow: Callable[[int], FlowTransform] = Stack) -> None:
        self.flow = flow(3, context_dim=5)  # type: ignore[call-arg]


YAML = """
flow:
  class_path: pyro_dgm.transforms.Stack
  init_args:
    depth: 3
    between: random
    flow:
      class_path: pyro_dgm.transforms.MaskedAutoregressive
      init_args: {hidden: [7], activation: torch.nn.Tanh}
"""


def test_it_is_described_in_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Owner, "owner")
    stack = parser.instantiate(parser.parse_object({"owner": yaml.safe_load(YAML)})).owner.flow
    assert [type(part) for part in stack.flows] == [MaskedAutoregressive, Permute] * 2 + [MaskedAutoregressive]
    assert stack.context_dim == 5
    assert stack.flows[0].net.widths[0] == 7
    assert isinstance(stack.flows[0].net.activation, nn.Tanh)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, r"Stack got depth=\(0,\)"),
        ({"flow": lambda dim: nn.Linear(dim, dim)}, "Stack got a flow= that makes Linear"),
        (
            {"flow": lambda dim: BatchNorm(dim + 1)},
            r"Stack got a flow= that makes BatchNorm\(4\): its dimension must be 3",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Stack(3, **options)


def test_an_unknown_between():
    with pytest.raises((ValueError, TypeCheckError), match="shuffle"):  # the second while annotations are checked
        Stack(3, between="shuffle")  # type: ignore[arg-type]
