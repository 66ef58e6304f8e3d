# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Speed as ratios: this package beside its peers, in one run."""
