# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Let ``python -m pyro_dgm.cli`` be the command ``pyro-dgm``."""

import sys

from pyro_dgm.cli.main import main

sys.exit(main())
