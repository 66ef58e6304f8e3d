# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Run every benchmark, one after the other, each in a process of its own, and write the page of figures."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

BENCHMARKS = (
    "compiled_step",
    "growth",
    "vae_step",
    "iwae_step",
    "importance_sampling",
    "flows",
    "image_flows",
    "autoregressive_inversion",
    "potentials",
    "density_estimation",
    "em",
    "eight_schools",
)
ON_THE_PAGE = ("compiled_step", "growth", "importance_sampling", "flows")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run benchmarks and write benchmarks/README.md.")
    parser.add_argument("--folder", type=Path, help="where to leave the figures; a temporary one if not given")
    parser.add_argument("--page", action="store_true", help="only those that the page shows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ON_THE_PAGE if options.page else BENCHMARKS:  # importing zuko switches validation off in a process
            print(f"\n{name}", flush=True)
            extra = ["--json", str(folder / f"{name}.json")] if name in ON_THE_PAGE else []
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *extra], check=True)
        subprocess.run([sys.executable, "-m", "benchmarks.page", str(folder)], check=True)
