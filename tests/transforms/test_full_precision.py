# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Flows under automatic mixed precision: they compute what they compute without it."""

import torch

from tests.transforms.random_flows import conditioned, every_flow_of_anything, random_flow


@every_flow_of_anything
def test_mixed_precision_does_not_reach_a_flow(case, device):
    torch.manual_seed(0)
    flow = random_flow(case, (5,), dtype=torch.float32, device=device)
    x = torch.randn(5, *flow.shape, device=device)
    y, logdet = flow.forward(x)
    x_again, back = flow.inverse(y.detach().clone())
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = flow if flow.context is None else conditioned(flow.flow, flow.context)
        torch.testing.assert_close(inside.forward(x.clone()), (y, logdet), rtol=0, atol=0)
        torch.testing.assert_close(inside.inverse(y.detach().clone()), (x_again, back), rtol=0, atol=0)
        z, volume = inside.forward(x.bfloat16())
    assert z.dtype == volume.dtype == torch.float32
