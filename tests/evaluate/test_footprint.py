# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The footprint is the largest tensor per datum, whatever the weights' size."""

import torch
from torch import nn

from pyro_dgm.evaluate.footprint import footprint


def test_the_widest_layer_counts():
    net = nn.Sequential(nn.Linear(5, 70), nn.ReLU(), nn.Linear(70, 2))
    assert footprint(net, torch.zeros(9, 5)) == 70


def test_channels_count():
    net = nn.Conv2d(1, 32, 3, padding=1)
    assert footprint(lambda x: net(x.unsqueeze(1)), torch.zeros(1, 8, 8)) == 32 * 64


def test_weights_do_not_count():
    weight = torch.zeros(1000, 1000)
    assert footprint(lambda x: x @ (2 * weight)[:5, :7], torch.zeros(9, 5)) == 7


def test_never_below_the_datum():
    assert footprint(lambda x: None, torch.zeros(3, 8, 8)) == 64


def test_a_program_that_branches_is_taken_whole():
    assert footprint(lambda x: x.exp() if len(x) == 1 else x.exp().repeat(1, 4).exp(), torch.zeros(3, 8)) == 32


def test_weights_do_not_count_in_a_program_that_branches():
    weight = torch.zeros(1000, 1000)
    assert (
        footprint(
            lambda x: (x @ (2 * weight)[:5, :7]).exp() if len(x) == 1 else x @ (2 * weight)[:5, :7], torch.zeros(9, 5)
        )
        == 7
    )


def test_views_do_not_count():
    assert footprint(lambda x: x.unsqueeze(-1).expand(*x.shape, 1000), torch.zeros(9, 5)) == 5
