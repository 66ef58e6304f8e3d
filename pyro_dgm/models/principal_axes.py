# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The directions in which data vary most, with their variances: what PCA keeps."""

import torch
from torch import Tensor

_ROWS = 4096  # at once in double precision: 25 MB of 784 dimensions


def principal_axes(x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Decompose the covariance of data, with 1 / B and not 1 / (B - 1), in double precision.

    .. math:: \frac{1}{B} \sum_b (x_b - \bar x)(x_b - \bar x)^\top = \sum_i \lambda_i\, u_i u_i^\top

    Fewer data than dimensions have only so many axes with variance; the others are orthogonal to these.

    Args:
        x: Data of shape ``(B, D)``.
        count: How many axes L.

    Returns:
        The mean ``(D,)``, the L largest variances in falling order ``(L,)``, their axes as columns ``(D, L)``, and the
        variances of the D coordinates ``(D,)``, all in float64.

    Raises:
        ValueError: If there are no data, or values that are not finite.

    Source: Bishop (2006), Pattern Recognition and Machine Learning, section 12.1, and 12.1.4 for few data.

    >>> mean, variances, axes, each = principal_axes(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), 1)
    >>> variances, axes.square().squeeze(-1)
    (tensor([2.0000], dtype=torch.float64), tensor([0.5000, 0.5000], dtype=torch.float64))
    """
    size, dim = x.shape
    if size == 0:
        raise ValueError("principal_axes got no data: it needs at least one row of x.")
    if bad := int((~x.isfinite()).any(1).sum()):
        raise ValueError(f"principal_axes got NaN or infinite values in {bad} of {size} rows of x: leave them out.")
    mean = x.new_zeros(dim, dtype=torch.float64)
    for part in x.split(_ROWS):
        mean += part.double().sum(0) / size
    if size <= dim:
        rows = (x.double() - mean) / size**0.5
        axes, lengths, _ = torch.linalg.svd(rows.T, full_matrices=True)  # (D, D), (B,)
        variances = torch.cat([lengths.square(), mean.new_zeros(dim - size)])
        return mean, variances[:count], axes[:, :count], rows.square().sum(0)
    covariance = mean.new_zeros(dim, dim)
    for part in x.split(_ROWS):
        rows = part.double() - mean
        covariance += rows.T @ rows / size
    variances, axes = torch.linalg.eigh(covariance)  # in rising order
    return mean, variances.flip(0)[:count].clamp(min=0.0), axes.flip(1)[:, :count], covariance.diagonal()
