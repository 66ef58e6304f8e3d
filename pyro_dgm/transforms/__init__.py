# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Invertible maps that know their volume change: normalizing flows.

This room is still empty. A flow will be one class per family, learned or amortised, each with an exact inverse, and
the formula of each a pure function that returns the value together with ``log|det J|``.
"""

__all__: list[str] = []
