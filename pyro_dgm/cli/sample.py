# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The verb ``sample``: let a trained run dream."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyro_dgm.cli.call import call
from pyro_dgm.cli.errors import UsageError

HELP = """usage: pyro-dgm sample RUN [options]

Draw from the prior and decode, with the best weights of a run folder. Writes
RUN/samples/seed-SEED.png (the means of p(x | z), if data are images) and
RUN/samples/seed-SEED.safetensors: `x`, data drawn from p(x | z), and `mean`, their means where
p(x | z) has one (a flow has none). With --temperature T, seed-SEED-temperature-T.

options:
  --size N            how many (default: 64)
  --seed SEED         other seed, other dreams (default: 0)
  --temperature T     standard deviation of the noise of an ImageFlow (default: 1; 0.7 in papers)
  --out STEM          write STEM.png and STEM.safetensors instead
  --device DEVICE     auto, cpu or cuda (default: as in the run)

example:
  pyro-dgm sample runs/first --size 100 --seed 1
"""


def run(args: Sequence[str]) -> int:
    """Run the verb."""
    return call(sample, args)


def sample(
    folder: Path,
    *,
    size: int = 64,
    seed: int = 0,
    temperature: float | None = None,
    out: Path | None = None,
    device: str | None = None,
) -> int:
    """Draw samples of a run and write them."""
    if size < 1:
        raise UsageError(f"--size {size}: at least 1 is needed.")
    from safetensors.torch import save

    from pyro_dgm.cli.assembly import trained
    from pyro_dgm.cli.figures import is_image, samples_sheet
    from pyro_dgm.cli.run_folder import RunFolder
    from pyro_dgm.evaluate import dream
    from pyro_dgm.train.durable import replace_file

    assembly = trained(RunFolder.open(folder), device=device)
    program = _at_temperature(assembly.program, temperature)
    model = program.model
    at = "" if temperature is None else f"-temperature-{temperature:g}"
    stem = out or folder / "samples" / f"seed-{seed}{at}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    drawn = {"x": dream(model, size, mean=False, seed=seed)}
    try:
        drawn["mean"] = dream(model, size, seed=seed)
    except ValueError as error:
        print(f"no means: {error}", file=sys.stderr)
    numbers = stem.with_name(f"{stem.name}.safetensors")
    replace_file(numbers, save({name: value.cpu().contiguous() for name, value in drawn.items()}))
    print(numbers)
    description = assembly.data.description
    if is_image(description.shape) and description.levels is not None and "mean" in drawn:
        picture = stem.with_name(f"{stem.name}.png")
        samples_sheet(program, description.levels, size=size, seed=seed).savefig(picture, dpi=150)
        print(picture)
    return 0


def _at_temperature(program: Any, temperature: float | None) -> Any:  # noqa: ANN401 -- whatever class a run is of
    """Change the noise of a model that has a temperature."""
    if temperature is None:
        return program
    if not hasattr(program, "at_temperature"):
        raise UsageError(
            f"--temperature {temperature}: {type(program).__name__} has none; pyro_dgm.models.ImageFlow has."
        )
    if not temperature > 0:
        raise UsageError(f"--temperature {temperature}: it must be positive, e.g. 0.7.")
    return program.at_temperature(temperature)
