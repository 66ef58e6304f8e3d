# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A data set of one's own follows from its three splits: description, binarisation and batches."""

import pytest
import torch

from pyro_dgm.data import Dataset, Split, binarize

GREY = torch.arange(256, dtype=torch.uint8).repeat(40).reshape(40, 16, 16)


def grey(**options):
    options = {"binarization": "none", "grey_levels": 256, "test": Split(GREY[:2])} | options
    return Dataset(name="Grey", train=Split(GREY, torch.arange(40)), valid=Split(GREY[:3]), **options)


def test_the_description_is_taken_from_the_tensors():
    found = grey(licence="CC0", source="here", citation="me", note="!").description
    assert (found.name, found.shape, found.levels, found.grey_levels) == ("Grey", (16, 16), 256, 256)
    assert found.sizes == {"train": 40, "valid": 3, "test": 2}
    assert (found.binarization, found.licence, found.source, found.citation, found.note) == (
        "none",
        "CC0",
        "here",
        "me",
        "!",
    )


def test_without_binarisation_the_levels_stay():
    data = grey()
    for split in (data.train, data.valid, data.test):
        assert torch.equal(split.x, GREY[: len(split)])
    assert torch.cat(list(data.batches(batch_size=7))).unique().tolist() == list(range(256))


def test_dynamic_binarisation_leaves_the_training_data_grey():
    data, again = grey(binarization="dynamic"), grey(binarization="dynamic")
    assert (data.description.levels, data.description.grey_levels) == (2, 256)
    assert torch.equal(data.train.x, GREY)
    for split, same in ((data.valid, again.valid), (data.test, again.test)):
        assert split.x.unique().tolist() == [0, 1]
        assert torch.equal(split.x, same.x)
    assert not torch.equal(data.valid.x[:2], data.test.x)
    first, second = (torch.cat(list(data.batches(batch_size=40, seed=seed))) for seed in (0, 1))
    assert first.unique().tolist() == [0, 1]
    assert not torch.equal(first.sum(0), second.sum(0))


def test_static_binarisation_is_done_once():
    data = grey(binarization="static")
    assert data.train.x.unique().tolist() == [0, 1]
    assert torch.equal(data.train.x, grey(binarization="static").train.x)
    assert torch.equal(torch.cat(list(data.batches(batch_size=9))).sum(0), data.train.x.sum(0))
    assert torch.equal(data.train.labels, torch.arange(40))


def test_static_bits_stay_bits():
    bits = binarize(GREY, grey_levels=256, seed=0)
    data = Dataset(
        name="Bits", grey_levels=2, train=Split(bits), valid=Split(bits), test=Split(bits), binarization="static"
    )
    assert torch.equal(data.train.x, bits)
    assert data.description.levels == 2


def test_moving_gives_a_new_data_set(device):
    data = grey(binarization="dynamic")
    moved = data.to(device)
    assert type(moved) is Dataset
    assert moved.description is data.description
    assert {split.x.device.type for split in (moved.train, moved.valid, moved.test)} == {device.type}
    assert next(iter(moved.batches(batch_size=4))).device.type == device.type
    assert data.train.x.device.type == "cpu"


def test_it_prints_its_description():
    assert str(grey().description) in repr(grey())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": Split(GREY[:, :8])}, "different shapes"),
        ({"test": Split(GREY[:0])}, r"Grey\.test got data of shape \(0, 16, 16\)"),
        ({"grey_levels": 17}, r"Grey\.train got values from 0 to 255"),
        ({"grey_levels": 1}, "at least 2"),
        ({"grey_levels": 300, "binarization": "dynamic"}, "at most 256"),
        ({"grey_levels": 2, "binarization": "dynamic"}, "nothing to binarise anew"),
    ],
)
def test_what_is_no_data_set_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        grey(**options)


REAL = torch.linspace(-1, 1, 60).reshape(20, 3)


def real(**options):
    options = {"train": Split(REAL), "test": Split(REAL[:2])} | options
    return Dataset(name="Real", grey_levels=None, valid=Split(REAL[:3]), **options)


def test_real_numbers_have_no_levels():
    data = real(unit="metres")
    assert (data.description.levels, data.description.grey_levels, data.description.unit) == (None, None, "metres")
    assert "real numbers (metres), 20 train" in str(data.description)
    assert "in units of their own" in str(real().description)
    assert torch.equal(data.train.x, REAL)
    assert torch.cat(list(data.batches(batch_size=6))).sum(0).allclose(REAL.sum(0), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"binarization": "static"}, ValueError, "only grey levels have bits"),
        ({"test": Split(REAL.log())}, ValueError, r"Real\.test got NaN or infinite values in 10 of 20 rows: 0, 1, 2"),
        ({"train": Split(GREY)}, TypeError, r"Real\.train got torch.uint8 data where real numbers"),
        ({"test": Split(REAL[:, :2])}, ValueError, "different shapes"),
    ],
)
def test_what_are_no_real_numbers_is_an_error(options, error, message):
    with pytest.raises(error, match=message):
        real(**options)


def test_a_misspelt_policy_is_an_error():
    with pytest.raises((ValueError, TypeError), match="sometimes"):
        grey(binarization="sometimes")
