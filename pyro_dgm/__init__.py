# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Deep generative models as Pyro programs.

Importing this package changes nothing and loads nothing: each room is imported by its name, as in
``from pyro_dgm.models import VAE``.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
