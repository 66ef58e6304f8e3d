# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Colours that stay apart for colour-blind eyes and in print."""

# Ten colours optimised for colour-vision deficiency. Source: Petroff (2021), arXiv:2107.02270.
TEN = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)

# One number, one meaning, in every figure.
TRAIN, VALID, EXACT, SHADE = TEN[0], TEN[2], "#333333", "#eeeeee"
