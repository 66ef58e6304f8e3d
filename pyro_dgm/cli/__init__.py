# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The command line: words that a person types become calls into the other rooms.

``pyro-dgm fit | evaluate | sample | reproduce | list``; `main` is its entry point.
"""

from pyro_dgm.cli.main import main

__all__ = ["main"]
