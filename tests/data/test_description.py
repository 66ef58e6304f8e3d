# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A description cannot be changed, can be stored, and says on one line what matters."""

import copy
import dataclasses
import pickle

import pytest

from pyro_dgm.data.description import Description, Sizes

BITS = Description(
    name="Bits",
    shape=(3, 8, 8),
    levels=2,
    grey_levels=256,
    sizes=Sizes(train=8, valid=1, test=2),
    binarization="dynamic",
    licence="CC0",
    source="a coin",
    citation="Laplace 1812",
    note="a sample",
)


def test_the_line_says_what_matters():
    line = str(BITS)
    assert "\n" not in line
    for part in (
        "Bits",
        "3x8x8",
        "2 levels",
        "256 grey",
        "anew in every epoch",
        "8 train",
        "CC0",
        "a coin",
        "a sample",
    ):
        assert part in line


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BITS.levels = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        BITS.sizes.train = 3
    with pytest.raises(TypeError):
        BITS.sizes["train"] = 3


def test_sizes_are_a_mapping():
    assert dict(BITS.sizes) == {"train": 8, "valid": 1, "test": 2} == BITS.sizes
    assert BITS.sizes.valid == BITS.sizes["valid"] == 1
    with pytest.raises(KeyError, match="train, valid and test"):
        BITS.sizes["all"]


def test_it_can_be_copied_pickled_hashed_and_turned_into_a_dict():
    assert copy.deepcopy(BITS) == BITS == pickle.loads(pickle.dumps(BITS))
    assert len({BITS, copy.deepcopy(BITS)}) == 1
    assert dataclasses.asdict(BITS)["sizes"] == {"train": 8, "valid": 1, "test": 2}
