# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Run every benchmark, one after the other, with its default settings, each in a process of its own."""

import subprocess
import sys

BENCHMARKS = (
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

if __name__ == "__main__":
    for name in BENCHMARKS:  # importing zuko switches validation off for all of a process
        print(f"\n{name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
