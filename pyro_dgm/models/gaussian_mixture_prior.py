# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A prior on the parameters of a mixture of normals, with which no component can collapse onto a datum."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GaussianMixturePrior:
    r"""Dirichlet on the weights, inverse-Wishart on the covariances; all means are alike.

    .. math:: \pi \sim \text{Dirichlet}(\alpha, \dots, \alpha), \qquad
              \Sigma_k \sim \text{IW}(\nu, S), \quad S = \operatorname{diag}(s_1, \dots, s_D)

    A variance of its own (``covariance="diagonal"`` or ``"spherical"``) has the prior in one dimension, IW(nu, s_j), a
    spherical one with the mean of the s_j.

    Args:
        concentration: alpha, at least 1; 1 is uniform.
        dof: nu, above p - 1; None for p + 2, the least whole number with a finite mean, which is then S. p is D for
            matrices, and 1 for variances.
        scale: All s_j; None to take the data's variances over K^(1/D) when the model is started: the determinant of
            each S is then one K-th of that of all data.

    Raises:
        ValueError: If a number is out of its range.

    Source: Murphy, Machine Learning (2012), section 11.4.2.8, with kappa_0 = 0 (his 1 in the mode's denominator, which
    comes from the prior of the mean, is not there).
    """

    concentration: int | float = 1
    dof: int | float | None = None
    scale: int | float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers without a mode."""
        if self.concentration < 1 or (self.scale is not None and not self.scale > 0):
            raise ValueError(
                f"{self} has no mode to find: concentration must be at least 1, and scale positive (or None)."
            )
