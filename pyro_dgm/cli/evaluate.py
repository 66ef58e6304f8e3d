# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The verb ``evaluate``: measure a trained run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pyro_dgm.cli.call import call

HELP = """usage: pyro-dgm evaluate RUN [options]

Measure the best weights of a run folder, always at beta = 1: NLL by importance sampling, -ELBO and
its parts, bits/dim, active units, with standard errors. Also written to RUN/results.json.

options:
  --split SPLIT       train, valid or test (default: test)
  --num_samples K     importance samples for each datum (default: 5000, as in tables; 0: no NLL)
  --elbo_samples K    samples for each datum's -ELBO (default: 1, as in tables)
  --num_data N        a random subset of so many data, the same for the same seed (default: all)
  --seed SEED         of the subset and of the samples (default: 0)
  --device DEVICE     auto, cpu or cuda (default: as in the run)

example:
  pyro-dgm evaluate runs/first --num_data 1000 --num_samples 500
"""


def run(args: Sequence[str]) -> int:
    """Run the verb."""
    return call(evaluate, args)


def evaluate(
    folder: Path,
    *,
    split: Literal["train", "valid", "test"] = "test",
    num_samples: int = 5000,
    elbo_samples: int = 1,
    num_data: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> int:
    """Measure a run, print the numbers and add them to its results."""
    from pyro_dgm.cli.assembly import trained
    from pyro_dgm.cli.measure import measure
    from pyro_dgm.cli.run_folder import RunFolder

    opened = RunFolder.open(folder)
    assembly = trained(opened, device=device)
    x = getattr(assembly.data, split).x
    measures = measure(
        assembly.program,
        x,
        num_samples=num_samples or None,
        elbo_samples=elbo_samples,
        num_data=num_data,
        seed=seed,
    )
    opened.add_results({split: measures.as_dict()})
    print(f"{folder}: {assembly.data.description.name}, {split} split")
    print(measures)
    return 0
