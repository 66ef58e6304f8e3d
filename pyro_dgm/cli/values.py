# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The values of single data behind a run's means, kept so that rows of a table can be compared datum by datum."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pyro_dgm.evaluate import Estimate
from pyro_dgm.train.durable import replace_file

FILE = "values.json"
COMPARED = ("nll", "negative_elbo")
"""Measures that have a difference to the baseline."""

KEPT = ("name", "method", "unit", "noun", "density")
"""What is kept of an estimate beside its values."""

Estimates = Mapping[str, Estimate]


def write(folder: Path, estimates: Estimates) -> None:
    """Keep the values of every estimate in a run folder."""
    kept = {
        key: {**{name: getattr(estimate, name) for name in KEPT}, "values": estimate.values.tolist()}
        for key, estimate in estimates.items()
    }
    replace_file(folder / FILE, json.dumps(kept).encode())


def read(folder: Path) -> dict[str, Estimate]:
    """Read what was kept in a run folder."""
    kept = json.loads((folder / FILE).read_text())
    return {
        key: Estimate(**{**parts, "values": torch.tensor(parts["values"], dtype=torch.float64)})
        for key, parts in kept.items()
    }


def pooled(parts: Sequence[Estimates]) -> dict[str, Estimate]:
    """Put the estimates of several runs together, all data of all runs as one."""
    return {
        key: replace(first, values=torch.cat([part[key].values for part in parts]), ess=None, k_hat=None)
        for key, first in parts[0].items()
    }


def summary(estimates: Estimates) -> dict[str, Any]:
    """Each estimate's mean and error for a JSON file."""
    return {key: estimate.as_dict() for key, estimate in estimates.items()}


def joined(results: Sequence[Mapping[str, Any]], estimates: Estimates) -> dict[str, Any]:
    """Make one result of those of several runs: their estimates pooled, their seconds added, their epochs averaged."""
    if len(results) == 1:
        return dict(results[0])
    seconds = {key: sum(result["seconds"][key] for result in results) for key in results[0]["seconds"]}
    return {
        "data": "; ".join(result["data"] for result in results),
        "epochs": round(sum(result["epochs"] for result in results) / len(results)),
        "seconds": seconds,
        "test": summary(estimates),
        "runs": list(results),
    }


def differences(own: Estimates, baseline: Estimates) -> dict[str, Estimate]:
    """Take the baseline's value from each datum's: what both find hard to explain about the datum cancels.

    >>> one, other = (Estimate("NLL <=", torch.tensor(v), method="IS, 5 samples") for v in ([81.0, 92.0], [82.0, 92.5]))
    >>> print(differences({"nll": one}, {"nll": other})["nll_difference"])
    difference = -0.75 +- 0.25 nats (IS, 5 samples, 2 data)
    """
    return {
        f"{key}_difference": replace(
            own[key],
            name="difference =",
            values=own[key].values - baseline[key].values,
            ess=None,
            k_hat=None,
        )
        for key in COMPARED
        if key in own and key in baseline and len(own[key].values) == len(baseline[key].values)
    }
