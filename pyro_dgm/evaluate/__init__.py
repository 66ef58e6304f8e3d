# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Numbers that judge a trained model, each with its unit, its estimator and its error bar.

All works for any Pyro model and guide with a data plate; nothing here trains or disturbs the caller's random stream.
"""

from pyro_dgm.evaluate.active_units import ActiveUnits, active_units
from pyro_dgm.evaluate.aggregate_posterior import aggregate_posterior
from pyro_dgm.evaluate.annealed import Annealed, ais
from pyro_dgm.evaluate.bits_per_dim import bits_per_dim
from pyro_dgm.evaluate.bound_curve import bound_curve
from pyro_dgm.evaluate.collapse import Collapse, collapse
from pyro_dgm.evaluate.decode import decode
from pyro_dgm.evaluate.dream import dream
from pyro_dgm.evaluate.elbo_surgery import ElboSurgery, elbo_surgery
from pyro_dgm.evaluate.elbo_terms import ElboTerms, elbo_terms
from pyro_dgm.evaluate.embed import embed
from pyro_dgm.evaluate.estimate import Estimate
from pyro_dgm.evaluate.gap_split import GapSplit, gap_split
from pyro_dgm.evaluate.interpolate import interpolate
from pyro_dgm.evaluate.log_likelihood import log_likelihood
from pyro_dgm.evaluate.matching import match_components
from pyro_dgm.evaluate.pareto import pareto_k, psis
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.evaluate.reconstruct import reconstruct
from pyro_dgm.evaluate.report import Report, judge
from pyro_dgm.evaluate.sandwich import Sandwich, bdmc, sandwich
from pyro_dgm.evaluate.traverse import traverse

__all__ = [
    "ActiveUnits",
    "Annealed",
    "Collapse",
    "ElboSurgery",
    "ElboTerms",
    "Estimate",
    "GapSplit",
    "Report",
    "Sandwich",
    "active_units",
    "aggregate_posterior",
    "ais",
    "bdmc",
    "bits_per_dim",
    "bound_curve",
    "collapse",
    "decode",
    "dream",
    "elbo_surgery",
    "elbo_terms",
    "embed",
    "gap_split",
    "interpolate",
    "judge",
    "log_likelihood",
    "match_components",
    "pareto_k",
    "psis",
    "random_subset",
    "reconstruct",
    "sandwich",
    "traverse",
]
