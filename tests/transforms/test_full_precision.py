# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Flows under automatic mixed precision: their formulas compute what they compute without it."""

import pytest
import torch

from pyro_dgm.transforms import AffineCoupling, Compose, HouseholderSylvester, InverseAutoregressive, LULinear, Planar
from pyro_dgm.transforms.conditioned import Conditioned
from tests.transforms.random_flows import conditioned, every_flow_of_anything, jacobian, random_flow


def leaves(parameters):
    return [leaf for part in parameters for leaf in (leaves(part) if isinstance(part, tuple) else [part])]


def without_autocast(inside):
    """The same flow with the parameters that the context had under autocast."""
    if not isinstance(inside.transform, Conditioned):
        return inside
    outside = conditioned(inside.flow, inside.context)
    outside.transform.parameters = inside.transform.parameters
    return outside


@every_flow_of_anything
def test_mixed_precision_does_not_reach_a_formula(case, device):
    torch.manual_seed(0)
    flow = random_flow(case, (5,), dtype=torch.float32, device=device)
    x = torch.randn(5, *flow.shape, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = flow if flow.context is None else conditioned(flow.flow, flow.context)
        found = inside.forward(x.clone())
        back = inside.inverse(found[0].detach().clone())
        z, volume = inside.forward(x.bfloat16())
    assert z.dtype == volume.dtype == torch.float32
    flow = without_autocast(inside)
    torch.testing.assert_close(found, flow.forward(x), rtol=0, atol=0)
    torch.testing.assert_close(back, flow.inverse(found[0].detach().clone()), rtol=0, atol=0)


@every_flow_of_anything
def test_a_network_that_sees_a_context_gives_single_precision(case, device):
    torch.manual_seed(0)
    flow = random_flow(case, (5,), dtype=torch.float32, device=device)
    if flow.context is None:
        return
    with torch.autocast(device.type, dtype=torch.bfloat16):
        for context in (flow.context, flow.context.bfloat16()):
            found = leaves(flow.flow.condition(context).parameters)
            assert {part.dtype for part in found if torch.is_tensor(part) and part.is_floating_point()} <= {
                torch.float32
            }


AMORTISED = {
    "HouseholderSylvester": lambda: HouseholderSylvester(4, depth=2, reflections=2, context_dim=30),
    "InverseAutoregressive": lambda: InverseAutoregressive(4, context_dim=30),
    "LULinear": lambda: LULinear(4, context_dim=30),
    "Planar": lambda: Planar(4, depth=3, context_dim=30),
}


@pytest.mark.parametrize("name", AMORTISED)
def test_a_context_is_seen_in_half_precision_and_the_flow_stays_a_flow(name, device):
    """The network is asked once for both directions: they undo each other, and the volume is that of the map."""
    torch.manual_seed(0)
    flow, context = AMORTISED[name]().to(device), torch.randn(5, 30, device=device)
    x = torch.randn(5, 4, device=device)
    plain = flow.condition(context).forward_and_logdet(x)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        transform = flow.condition(context)
        y, logdet = transform.forward_and_logdet(x)
        again, back = transform.inverse_and_logdet(y.detach().clone())
    slopes = jacobian(lambda part: transform.forward_and_logdet(part)[0], x)
    assert not torch.equal(y, plain[0])
    torch.testing.assert_close((y, logdet), plain, rtol=0, atol=0.1)
    torch.testing.assert_close((again, -back), (x, logdet), rtol=0, atol=1e-4)
    torch.testing.assert_close(logdet, torch.linalg.slogdet(slopes)[1], rtol=0, atol=1e-4)


def test_a_chain_of_couplings_is_undone_exactly(device):
    """What a coupling's network sees comes back up to rounding only: in half precision it would give other numbers."""
    torch.manual_seed(0)
    flow = Compose([AffineCoupling(64, swap=bool(turn % 2)) for turn in range(8)]).to(device)
    for coupling in flow.parts:
        torch.nn.init.normal_(coupling.net.layers[-1].weight, std=200**-0.5)
    x = torch.randn(1000, 64, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16), torch.no_grad():
        again = flow.inverse_and_logdet(flow.forward_and_logdet(x)[0])[0]
    assert (again - x).abs().max() < 1e-5
