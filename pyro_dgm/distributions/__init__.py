# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Things that can be sampled and scored, and the heads that make them from the raw output of a network.

Distributions are Pyro distributions, with log-densities in nats. Heads are modules whose call returns one: a
posterior (``posterior(raw)``), a prior (``prior()``) or a likelihood (``likelihood(raw)``).
"""

from pyro_dgm.distributions.bernoulli import Bernoulli
from pyro_dgm.distributions.bernoulli_likelihood import BernoulliLikelihood
from pyro_dgm.distributions.categorical_levels import CategoricalLevels
from pyro_dgm.distributions.categorical_likelihood import CategoricalLikelihood
from pyro_dgm.distributions.dequantizer import Dequantizer
from pyro_dgm.distributions.diagonal_normal import DiagonalNormal
from pyro_dgm.distributions.discretized_logistic import DiscretizedLogistic
from pyro_dgm.distributions.discretized_logistic_likelihood import DiscretizedLogisticLikelihood
from pyro_dgm.distributions.discretized_logistic_mixture import DiscretizedLogisticMixture
from pyro_dgm.distributions.discretized_logistic_mixture_likelihood import DiscretizedLogisticMixtureLikelihood
from pyro_dgm.distributions.flow_posterior import FlowPosterior
from pyro_dgm.distributions.flow_prior import FlowPrior
from pyro_dgm.distributions.head import Head
from pyro_dgm.distributions.level_distribution import LevelDistribution
from pyro_dgm.distributions.likelihood import Likelihood
from pyro_dgm.distributions.normal import Normal
from pyro_dgm.distributions.normal_mixture import NormalMixture
from pyro_dgm.distributions.potential import Potential
from pyro_dgm.distributions.standard_normal import StandardNormal
from pyro_dgm.distributions.uniform_dequantizer import UniformDequantizer
from pyro_dgm.distributions.unnormalized import Unnormalized
from pyro_dgm.distributions.variational_dequantizer import VariationalDequantizer

__all__ = [
    "Bernoulli",
    "BernoulliLikelihood",
    "CategoricalLevels",
    "CategoricalLikelihood",
    "Dequantizer",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixture",
    "DiscretizedLogisticMixtureLikelihood",
    "FlowPosterior",
    "FlowPrior",
    "Head",
    "LevelDistribution",
    "Likelihood",
    "Normal",
    "NormalMixture",
    "Potential",
    "StandardNormal",
    "UniformDequantizer",
    "Unnormalized",
    "VariationalDequantizer",
]
