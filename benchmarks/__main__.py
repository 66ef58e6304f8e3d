# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Run every benchmark, one after the other, with its default settings."""

from benchmarks import vae_step

if __name__ == "__main__":
    vae_step.main()
