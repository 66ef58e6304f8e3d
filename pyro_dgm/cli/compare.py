# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The verb ``compare``: EM, gradients, amortised and mean-field inference and NUTS on one model and one data set."""

import inspect
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_dgm.cli.call import call
from pyro_dgm.cli.errors import UsageError, nearest

if TYPE_CHECKING:
    from pyro_dgm.data import Dataset
    from pyro_dgm.train import MixtureFit

HELP = """usage: pyro-dgm compare MODEL [options]

Fit one model to one data set by several methods from one start (mean_field has its own; neither is
counted in the cost), and print one table: objective, held-out log p(x), distance of the means and
agreement of the assignments with EM's, cost. Says on stderr when a method begins and ends. Writes
table.md, table.json, curves.png, ellipses.png and a run folder for each method.

MODEL is `gmm`, a mixture of normals with full covariances. Data are centred, scaled (images by one
scale for all pixels, tables column by column) and projected on their first principal components.
METHODS (default: all) are
  em          expectation maximisation             svi        log p(x) by gradients (TraceEnum_ELBO)
  amortised   ELBO by gradients, q(z | x) a net    mean_field coordinate ascent, Bayesian mixture
  nuts        draws from its posterior             k_means    the limit of small, equal spheres

options:
  --data DATA         a data set, whose grey levels are taken as numbers (default: Digits)
  --methods M,M       some of the methods          --components K    (default: 10)
  --dim D             principal components (10)    --sweeps N        through the data (default: 100)
  --batch_size N      of gradient methods (100)    --lr LR           of gradient methods (0.01)
  --warmup N          steps of NUTS (100)          --samples N       that it keeps (default: 50)
  --seed SEED         (default: 0)                 --device DEVICE   auto, cpu, cuda (default: cpu)
  --folder FOLDER     where to write (default: runs/compare-DATA-TIME)

example:
  pyro-dgm compare gmm --data Digits --methods em,svi,amortised,mean_field,k_means
"""


def run(args: Sequence[str]) -> int:
    """Run the verb."""
    return call(compare, args)


def compare(
    model: str,
    *,
    data: str = "Digits",
    methods: str | None = None,
    components: int = 10,
    dim: int = 10,
    sweeps: int = 100,
    batch_size: int = 100,
    lr: float = 0.01,
    warmup: int = 100,
    samples: int = 50,
    seed: int = 0,
    device: str = "cpu",
    folder: Path | None = None,
) -> int:
    """Compare, and print the table."""
    if model != "gmm":
        raise UsageError(f"there is no comparison of {model!r}.{nearest(model, ['gmm'])} There is one: gmm.")
    counts = {"components": components, "sweeps": sweeps, "batch_size": batch_size, "samples": samples}
    if wrong := [name for name, value in counts.items() if value < 1]:
        raise UsageError(f"--{wrong[0]} {counts[wrong[0]]}: at least 1 is needed.")
    from rich.console import Console

    from pyro_dgm.cli.assembly import choose_device
    from pyro_dgm.cli.comparison import compare_gmm
    from pyro_dgm.train.comparison import ALL

    chosen = _chosen(methods, ALL)
    target, found, told = choose_device(device), _data(data), _Progress(chosen)
    where = _new(folder, found)

    settings = {**counts, "lr": lr, "warmup": warmup, "seed": seed, "methods": chosen}
    table = compare_gmm(found, folder=where, dim=dim, device=target, say=told.begins, found=told.ends, **settings)
    console = Console() if Console().is_terminal else Console(width=160)
    table.print(console)
    console.print(f"table:    {where / 'table.md'}\npictures: {where}/*.png", soft_wrap=True)
    return 0


class _Progress:
    """Say on stderr which method begins and which has ended."""

    def __init__(self, methods: Sequence[str]) -> None:
        self.methods = methods

    def begins(self, name: str, more: str = "") -> None:
        print(f"[{self.methods.index(name) + 1}/{len(self.methods)}] {name}{more}", file=sys.stderr)

    def ends(self, fit: "MixtureFit") -> None:
        sweeps, seconds, objective = (part[-1] for part in (fit.curve.sweeps, fit.curve.seconds, fit.curve.objectives))
        self.begins(fit.method, f": done, {sweeps:g} sweeps in {seconds:.2f} s, {fit.objective} {objective:.3f} nats")


def _chosen(methods: str | None, known: Sequence[str]) -> list[str]:
    """Split a list of methods; all of them if it is empty."""
    chosen = [name for name in (methods or "").split(",") if name] or list(known)
    if unknown := [name for name in chosen if name not in known]:
        raise UsageError(f"there is no method {unknown[0]!r}.{nearest(unknown[0], known)} Methods: {', '.join(known)}.")
    return chosen


def _new(folder: Path | None, data: "Dataset") -> Path:
    """Choose where to write; nothing is overwritten."""
    folder = folder or Path("runs") / f"compare-{type(data).__name__.lower()}-{datetime.now():%Y%m%d-%H%M%S}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already, and nothing is overwritten. Give another --folder.")
    return folder


def _data(name: str) -> "Dataset":
    """Make a data set by its short name, whatever its case, or its import path; grey levels stay what they are."""
    from pyro_dgm.cli.names import ROOMS, find, members

    short = {key.lower(): key for key in members(ROOMS["data"])}
    cls = find(short.get(name.lower(), name), ROOMS["data"], option="data")
    grey = {"binarization": "none"} if "binarization" in inspect.signature(cls).parameters else {}
    try:
        return cls(**grey)
    except TypeError as error:
        raise UsageError(f"--data {name}: {error}. Only data sets that need no options can be compared on.") from error
