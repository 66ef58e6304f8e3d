# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Model and guide in, a step out: log-weights, bounds on log p(x), and what optimises them."""

from pyro_dgm.infer.auto_flow import AutoFlow
from pyro_dgm.infer.bound import Bound
from pyro_dgm.infer.bounds import ciwae, cubo, elbo, iwae, miwae, renyi
from pyro_dgm.infer.capacity import Capacity
from pyro_dgm.infer.compiled import Compiled, compiled
from pyro_dgm.infer.coordinate import CoordinateAscent, coordinate_ascent
from pyro_dgm.infer.data_set_objective import DataSetObjective
from pyro_dgm.infer.divergence_bounds import CUBO, Renyi
from pyro_dgm.infer.enumerated_em import EnumeratedEM
from pyro_dgm.infer.enumerated_objective import EnumeratedObjective
from pyro_dgm.infer.expectation_maximization import EM, em
from pyro_dgm.infer.free_bits import FreeBits
from pyro_dgm.infer.gradient_step import GradientStep
from pyro_dgm.infer.kl_balance import KLBalance
from pyro_dgm.infer.kl_control import KLControl
from pyro_dgm.infer.kl_terms import kl_terms
from pyro_dgm.infer.local_parameters import local_parameters
from pyro_dgm.infer.log_weights import LogWeights, log_weights
from pyro_dgm.infer.mean_field import MeanField
from pyro_dgm.infer.no_u_turn import nuts
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
    "Compiled",
    "CoordinateAscent",
    "DataSetObjective",
    "ELBO",
    "EM",
    "EnumeratedEM",
    "EnumeratedObjective",
    "FreeBits",
    "GradientStep",
    "IWAE",
    "KLBalance",
    "KLControl",
    "LogWeights",
    "MIWAE",
    "MeanField",
    "Objective",
    "PIWAE",
    "Renyi",
    "ReweightedWakeSleep",
    "SiteWeights",
    "ciwae",
    "compiled",
    "coordinate_ascent",
    "cubo",
    "elbo",
    "em",
    "iwae",
    "kl_terms",
    "local_parameters",
    "log_weights",
    "miwae",
    "nuts",
    "observed",
    "renyi",
]
