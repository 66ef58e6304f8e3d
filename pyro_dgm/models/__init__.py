# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Stories: each model is a Pyro program with its guide."""

from pyro_dgm.models.amortised_mixture import AmortisedMixture
from pyro_dgm.models.bayesian_mixture import BayesianMixture
from pyro_dgm.models.bayesian_vae import BayesianVAE
from pyro_dgm.models.bayesian_weights import BayesianWeights
from pyro_dgm.models.bernoulli_mixture import BernoulliMixture
from pyro_dgm.models.factor_analysis import FactorAnalysis
from pyro_dgm.models.flow_model import FlowModel
from pyro_dgm.models.gaussian_mixture import GaussianMixture
from pyro_dgm.models.gaussian_mixture_prior import GaussianMixturePrior
from pyro_dgm.models.hierarchical_vae import HierarchicalVAE
from pyro_dgm.models.image_flow import ImageFlow
from pyro_dgm.models.k_means import KMeans
from pyro_dgm.models.marginal_mixture import MarginalMixture
from pyro_dgm.models.ppca import PPCA
from pyro_dgm.models.vae import VAE

__all__ = [
    "AmortisedMixture",
    "BayesianMixture",
    "BayesianVAE",
    "BayesianWeights",
    "BernoulliMixture",
    "FactorAnalysis",
    "FlowModel",
    "GaussianMixture",
    "GaussianMixturePrior",
    "HierarchicalVAE",
    "ImageFlow",
    "KMeans",
    "MarginalMixture",
    "PPCA",
    "VAE",
]
