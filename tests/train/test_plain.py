# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""State survives being written as JSON and tensors, to the bit and with its types."""

import json
import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pyro_dgm.train.plain import pack, unpack

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
keys = st.integers() | st.text(max_size=5) | st.tuples(st.integers(), st.text(max_size=3)) | st.just("__kind__")
states = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def typed(value: Any) -> Any:
    """The value with the type of everything in it, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return type(value), [(typed(key), typed(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [typed(item) for item in value]
    return type(value), repr(value)


@given(states)
def test_plain_data_come_back_with_their_types(state):
    assert typed(unpack(*pack(state))) == typed(state)


@given(st.floats(allow_nan=True))
def test_floats_come_back_to_the_bit(value):
    back = unpack(*pack(value))
    assert back == value or (math.isnan(back) and math.isnan(value))
    assert math.copysign(1, back) == math.copysign(1, value) or math.isnan(value)


def test_tensors_are_kept_apart_whatever_the_keys_are():
    state = {"a.b": {"c": torch.zeros(1)}, "a": {"b.c": torch.ones(2), 0: torch.tensor(3)}, "0": torch.tensor(True)}
    back = unpack(*pack(state))
    assert back["a"]["b.c"] is state["a"]["b.c"]
    assert back["a"][0] is state["a"][0]
    assert back["a.b"]["c"] is state["a.b"]["c"]


def test_what_optimisers_and_schedules_keep_comes_back():
    parameters = [nn.Parameter(torch.zeros(2))]
    optimizer = torch.optim.Adam(parameters)
    parameters[0].grad = torch.ones(2)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2, 2])
    back = unpack(*pack({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}))
    assert list(back["optimizer"]["state"]) == [0]
    assert back["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert isinstance(back["scheduler"]["milestones"], Counter)
    assert back["scheduler"] == scheduler.state_dict()


def test_what_has_no_plain_form_is_refused_with_its_place():
    with pytest.raises(TypeError, match=r"state\.a\.1 is a .*Linear, which a checkpoint cannot hold"):
        pack({"a": [1, nn.Linear(1, 1)]})


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind 'object'"):
        unpack(json.dumps({"__kind__": "object"}), {})
