# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Numbers become pictures: tensors in, a matplotlib figure out, and no window or global state touched.

Save a figure with ``figure.savefig("samples.png")``; it needs no display.
"""

from pyro_dgm.plots.bound_vs_particles import bound_vs_particles
from pyro_dgm.plots.comparison_curves import comparison_curves
from pyro_dgm.plots.ellipses import ellipses
from pyro_dgm.plots.latent_scatter import latent_scatter
from pyro_dgm.plots.learning_curve import learning_curve
from pyro_dgm.plots.part_bars import part_bars
from pyro_dgm.plots.reconstructions import reconstructions
from pyro_dgm.plots.samples import samples
from pyro_dgm.plots.traversal import traversal

__all__ = [
    "bound_vs_particles",
    "comparison_curves",
    "ellipses",
    "latent_scatter",
    "learning_curve",
    "part_bars",
    "reconstructions",
    "samples",
    "traversal",
]
