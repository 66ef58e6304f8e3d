# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What a flow says of a value that is not one of its events."""

import pytest
import torch

from pyro_dgm.transforms import Compose, FlowTransform, Invert, Squeeze


def test_messages_and_names_show_both_shapes_where_they_differ():
    flow = Invert(Squeeze((1, 4, 4)))
    assert repr(Compose([flow])) == "Compose([Invert(Squeeze((1, 4, 4) -> (4, 2, 2)))])"
    for x in (torch.randn(5, 3), torch.randn(5, 1, 4, 4)):
        with pytest.raises(ValueError, match=r"Invert\(\(4, 2, 2\) -> \(1, 4, 4\)\) got a .*: its last sizes must be"):
            flow.forward_and_logdet(x)
    flat = Flat(16, out_shape=(1, 4, 4), context_dim=3)
    assert repr(flat) == "Flat(16 -> (1, 4, 4), context_dim=3)"
    name = r"Flat\(16 -> \(1, 4, 4\)"
    with pytest.raises(ValueError, match=rf"{name}, context_dim=3\) takes its parameters from a context"):
        flat(torch.randn(5, 16))
    with pytest.raises(ValueError, match=rf"{name}, context_dim=3\) got a context of shape \(5, 4\)"):
        flat.condition(torch.randn(5, 4))
    with pytest.raises(ValueError, match=rf"{name}\) got a value of shape \(5, 64\): its last sizes must be \(1"):
        flat.condition(torch.randn(3)).inverse_and_logdet(torch.randn(5, 64))
    with pytest.raises(ValueError, match=rf"{name}\) got a value of shape \(5, 64\): its last size must be 16\.$"):
        flat.condition(torch.randn(3)).forward_and_logdet(torch.randn(5, 64))
    with pytest.raises(ValueError, match=rf"{name}\) got a value or a distribution of shape \(5, 64\)"):
        flat.forward_shape((5, 64))


class Flat(FlowTransform):
    """Noise without shape for an image."""

    def bind(self, context):
        return ()

    def _forward_and_logdet(self, x, parameters):
        return x.unflatten(-1, self.out_shape), x.new_zeros(x.shape[:-1])

    def _inverse_and_logdet(self, y, parameters):
        return y.flatten(-3), y.new_zeros(y.shape[:-3])
