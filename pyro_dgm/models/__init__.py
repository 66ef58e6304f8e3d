# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Stories: each model is a Pyro program with its guide."""

from pyro_dgm.models.flow_model import FlowModel
from pyro_dgm.models.hierarchical_vae import HierarchicalVAE
from pyro_dgm.models.vae import VAE

__all__ = ["FlowModel", "HierarchicalVAE", "VAE"]
