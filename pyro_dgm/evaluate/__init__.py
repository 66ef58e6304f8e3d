# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Numbers that judge a trained model, each with its unit, its estimator and its error bar.

All of it works for any Pyro model and guide with a data plate; nothing here trains, and nothing disturbs the caller's
random stream.
"""

from pyro_dgm.evaluate.active_units import ActiveUnits, active_units
from pyro_dgm.evaluate.bits_per_dim import bits_per_dim
from pyro_dgm.evaluate.bound_curve import bound_curve
from pyro_dgm.evaluate.decode import decode
from pyro_dgm.evaluate.dream import dream
from pyro_dgm.evaluate.elbo_terms import ElboTerms, elbo_terms
from pyro_dgm.evaluate.embed import embed
from pyro_dgm.evaluate.estimate import Estimate
from pyro_dgm.evaluate.log_likelihood import log_likelihood
from pyro_dgm.evaluate.random_subset import random_subset
from pyro_dgm.evaluate.reconstruct import reconstruct
from pyro_dgm.evaluate.traverse import traverse

__all__ = [
    "ActiveUnits",
    "ElboTerms",
    "Estimate",
    "active_units",
    "bits_per_dim",
    "bound_curve",
    "decode",
    "dream",
    "elbo_terms",
    "embed",
    "log_likelihood",
    "random_subset",
    "reconstruct",
    "traverse",
]
