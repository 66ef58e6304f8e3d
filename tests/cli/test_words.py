# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Words are sorted, nested and laid over one another as a person would expect."""

import pytest

from pyro_dgm.cli.errors import UsageError, nearest, type_error
from pyro_dgm.cli.layers import merge, tree
from pyro_dgm.cli.words import check, split


def test_equals_and_dashes_are_a_matter_of_taste():
    assert split(["--batch-size=3"]).options == split(["--batch_size", "3"]).options == [("batch_size", "3")]


def test_a_negative_number_is_a_value():
    assert split(["--shift", "-3"]).options == [("shift", "-3")]


@pytest.mark.parametrize("words", [["--lr"], ["--lr", "--seed", "1"]])
def test_an_option_without_a_value_is_refused(words):
    with pytest.raises(UsageError, match="--lr needs a value"):
        split(words)


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="unknown option --sede. Did you mean --seed?"):
        check(split(["--sede", "1"]), ["seed", "split"], names=0)


def test_a_word_too_many_is_refused():
    with pytest.raises(UsageError, match="got 'a b', but takes 1 word"):
        check(split(["a", "b"]), [], names=1)


def test_the_order_of_a_class_and_its_options_does_not_matter():
    options = [("model.encoder.hidden", "[3]"), ("model.encoder", "GatedMLP"), ("model", "VAE")]
    assert tree(options) == tree(options[::-1])


def test_the_long_form_of_an_option_means_the_same():
    long = [("model.class_path", "VAE"), ("model.init_args.latent", "3")]
    assert tree(long) == tree([("model", "VAE"), ("model.latent", "3")])


def test_a_new_class_starts_from_its_own_options():
    base = {"encoder": {"class_path": "MLP", "init_args": {"hidden": [200, 200]}}}
    assert merge(base, {"encoder": "GatedMLP"}) == {"encoder": "GatedMLP"}
    other = {"class_path": "GatedMLP", "init_args": {"hidden": [3]}}
    assert merge(base, {"encoder": other}) == {"encoder": other}


def test_the_same_class_keeps_its_options():
    base = {"model": {"class_path": "pyro_dgm.models.VAE", "init_args": {"latent": 2, "prior": "A"}}}
    over = {"model": {"class_path": "VAE", "init_args": {"latent": 3}}}
    assert merge(base, over)["model"]["init_args"] == {"latent": 3, "prior": "A"}
    assert merge(base, {"model": "VAE"}) == base


def test_classes_of_one_name_in_two_packages_are_two_classes():
    base = {"model": {"class_path": "one.VAE", "init_args": {"latent": 2}}}
    assert merge(base, {"model": "two.VAE"}) == {"model": "two.VAE"}


def test_options_go_to_the_class_below():
    assert merge({"model": "VAE"}, {"model": {"init_args": {"latent": 3}}}) == {
        "model": {"class_path": "VAE", "init_args": {"latent": 3}}
    }


def test_groups_and_values_are_laid_over_too():
    base = {"trainer": {"epochs": 1, "ema": 0.9}, "optimizer": {"class_path": "Adam"}, "seed": 1}
    over = {"trainer": {"epochs": 2}, "optimizer": None, "seed": 2}
    assert merge(base, over) == {"trainer": {"epochs": 2, "ema": 0.9}, "optimizer": None, "seed": 2}


def test_nothing_is_near_to_nonsense():
    assert nearest("zzz", ["epochs", "seed"]) == ""


def test_a_message_without_an_option_stays_as_it_is():
    assert type_error("something else") == "something else"
