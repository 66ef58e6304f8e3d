# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Model and guide in, a step out: log-weights, bounds on log p(x), and what optimises them."""

from pyro_dgm.infer.auto_flow import AutoFlow
from pyro_dgm.infer.bound import Bound
from pyro_dgm.infer.bounds import ciwae, cubo, elbo, iwae, miwae, renyi
from pyro_dgm.infer.capacity import Capacity
from pyro_dgm.infer.divergence_bounds import CUBO, Renyi
from pyro_dgm.infer.free_bits import FreeBits
from pyro_dgm.infer.gradient_step import GradientStep
from pyro_dgm.infer.kl_balance import KLBalance
from pyro_dgm.infer.kl_control import KLControl
from pyro_dgm.infer.kl_terms import kl_terms
from pyro_dgm.infer.local_parameters import local_parameters
from pyro_dgm.infer.log_weights import LogWeights, log_weights
from pyro_dgm.infer.objective import Objective
from pyro_dgm.infer.objectives import ELBO, IWAE
from pyro_dgm.infer.partial import observed
from pyro_dgm.infer.particle_groups import CIWAE, MIWAE, PIWAE
from pyro_dgm.infer.reweighted_wake_sleep import ReweightedWakeSleep
from pyro_dgm.infer.site_weights import SiteWeights

__all__ = [
    "AutoFlow",
    "Bound",
    "CIWAE",
    "CUBO",
    "Capacity",
    "ELBO",
    "FreeBits",
    "GradientStep",
    "IWAE",
    "KLBalance",
    "KLControl",
    "LogWeights",
    "MIWAE",
    "Objective",
    "PIWAE",
    "Renyi",
    "ReweightedWakeSleep",
    "SiteWeights",
    "ciwae",
    "cubo",
    "elbo",
    "iwae",
    "kl_terms",
    "local_parameters",
    "log_weights",
    "miwae",
    "observed",
    "renyi",
]
