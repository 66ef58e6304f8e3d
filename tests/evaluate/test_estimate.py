# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A number prints with its unit, its estimator, its number of data and its standard error."""

import json
import math

import pytest
import torch

from pyro_dgm.evaluate import Estimate, bits_per_dim


def estimate(size=10_000, **changes):
    spread = torch.linspace(-1, 1, size, dtype=torch.float64)
    values = 82.14 + 7.0 * spread / spread.std()
    options = {"method": "IS, 5000 samples", "noun": "image", "ess": torch.full((size,), 20.0)} | changes
    return Estimate("NLL <=", values, **options)


def test_prints_as_tables_do():
    assert str(estimate()) == "NLL <= 82.14 +- 0.07 nats (IS, 5000 samples, 10000 images)"


def test_prints_data_that_are_not_images():
    assert str(estimate(noun="datum")).endswith("10000 data)")


def test_a_small_error_does_not_print_as_zero():
    tight = Estimate("NLL <=", torch.tensor([3.1234, 3.1254, 3.1244], dtype=torch.float64), method="IS, 10 samples")
    assert str(tight) == "NLL <= 3.1244 +- 0.0006 nats (IS, 10 samples, 3 data)"


def test_one_datum_has_no_known_error():
    one = Estimate("NLL <=", torch.tensor([3.0]), method="IS, 1 sample", noun="image")
    assert math.isnan(one.standard_error)
    assert str(one) == "NLL <= 3.00 +- nan nats (IS, 1 sample, 1 image)"
    assert one.as_dict()["standard_error"] is None


def test_equal_values_have_error_zero():
    assert str(Estimate("NLL <=", torch.ones(3), method="IS, 1 sample")).startswith("NLL <= 1.00 +- 0.00 nats")


def test_statistics():
    values = torch.tensor([1.0, 2.0, 4.0, 9.0])
    found = Estimate("NLL <=", values, method="")
    assert found.mean == pytest.approx(4.0)
    assert found.standard_error == pytest.approx(values.std().item() / 2)


def test_bits_per_dim_of_an_estimate():
    found = estimate().to_bits_per_dim((28, 20))
    assert found.mean == pytest.approx(82.14 / (560 * math.log(2)))
    assert found.unit == "bits/dim"
    assert str(found) == "NLL <= 0.2116 +- 0.0002 bits/dim (IS, 5000 samples, 10000 images)"
    with pytest.raises(ValueError, match="is in bits/dim already"):
        found.to_bits_per_dim((28, 20))


def test_bits_per_dim_of_uniform_bytes():
    log_prob = torch.full((2, 3), -12 * math.log(256), dtype=torch.float64)
    torch.testing.assert_close(bits_per_dim(log_prob, (3, 2, 2)), torch.full((2, 3), 8.0, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least 1"):
        bits_per_dim(log_prob, (3, 0))


def test_goes_into_json():
    found = json.loads(json.dumps(estimate(size=100).as_dict(), allow_nan=False))
    assert found["num_data"] == 100
    assert found["name"] == "NLL"
    assert found["ess_min"] == 20.0
    assert found["mean"] == pytest.approx(82.14)


def test_an_impossible_datum_goes_into_json_too():
    impossible = Estimate("NLL <=", torch.tensor([1.0, math.inf]), "IS, 5 samples")
    assert json.loads(json.dumps(impossible.as_dict(), allow_nan=False))["mean"] is None


@pytest.mark.parametrize("values", [torch.ones(()), torch.ones(0), torch.ones(2, 2)])
def test_refuses_what_is_not_one_value_per_datum(values):
    with pytest.raises(ValueError, match="one value for each"):
        Estimate("NLL <=", values, method="IS, 1 sample")
