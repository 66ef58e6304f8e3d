# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Model and guide in, a step out: log-weights, bounds on log p(x), and what optimises them."""

from pyro_dgm.infer.auto_flow import AutoFlow
from pyro_dgm.infer.bound import Bound
from pyro_dgm.infer.bounds import elbo, iwae
from pyro_dgm.infer.gradient_step import GradientStep
from pyro_dgm.infer.local_parameters import local_parameters
from pyro_dgm.infer.log_weights import LogWeights, log_weights
from pyro_dgm.infer.objective import Objective
from pyro_dgm.infer.objectives import ELBO, IWAE

__all__ = [
    "AutoFlow",
    "Bound",
    "ELBO",
    "GradientStep",
    "IWAE",
    "LogWeights",
    "Objective",
    "elbo",
    "iwae",
    "local_parameters",
    "log_weights",
]
