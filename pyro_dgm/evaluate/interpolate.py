# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Pictures between two pictures, on a path through the noise that a flow makes pictures of."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_dgm.evaluate.frozen import frozen


@runtime_checkable
class Codec(Protocol):
    """A model with a code for each datum, such as `pyro_dgm.models.ImageFlow`."""

    def encode(self, x: Tensor) -> Tensor:
        """Give the code of each datum, shape ``(B, *code)``."""

    def decode(self, noise: Tensor) -> Tensor:
        """Give the data of codes, shape ``(B, *shape)``."""


def interpolate(model: Codec, first: Tensor, second: Tensor, *, steps: int = 9, seed: int = 0) -> Tensor:
    r"""Decode codes on the arc between those of two data.

    .. math:: z_t = \frac{\sin((1 - t)\,\omega)}{\sin \omega}\, z_0 + \frac{\sin(t\,\omega)}{\sin \omega}\, z_1,
              \qquad \cos \omega = \frac{z_0^\top z_1}{\lVert z_0 \rVert\, \lVert z_1 \rVert}

    In D dimensions standard normal noise has a length near :math:`\sqrt D`, and so has all of the arc; the middle of a
    straight line is shorter by a factor of about :math:`\sqrt 2`, which is like a lower temperature.

    Args:
        model: A model with ``encode`` and ``decode``.
        first: Data where paths start, shape ``(B, *shape)``.
        second: Data where they end, of the same shape.
        steps: Data on each path, with both ends, at least 2.
        seed: Seed of what is drawn, if the model draws anything.

    Returns:
        Data of shape ``(B, steps, *shape)``, as `pyro_dgm.plots.traversal` takes them.

    Raises:
        ValueError: If there are not as many ends as starts, or fewer than two steps.

    Source: White, Sampling Generative Networks (2016), arXiv:1609.04468, section 2.1.
    """
    if first.shape != second.shape or steps < 2:
        raise ValueError(
            f"interpolate got data of shape {tuple(first.shape)} and {tuple(second.shape)}, and steps={steps}: both "
            f"ends need one shape (B, ...), and a path at least 2 steps."
        )
    with frozen(model.encode, model.decode, seed=seed):
        start, end = model.encode(first), model.encode(second)
        codes = torch.stack([_between(start, end, t) for t in torch.linspace(0, 1, steps).tolist()], 1)
        return model.decode(codes.flatten(0, 1)).unflatten(0, (len(first), steps))


def _between(start: Tensor, end: Tensor, t: int | float) -> Tensor:
    """The point at a share t of the arc; where both ends have nearly one direction, of the line."""
    a, b = start.flatten(1), end.flatten(1)
    omega = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1).acos().unsqueeze(1)
    sine = omega.sin()
    flat = sine < 1e-3
    safe = torch.where(flat, 1.0, sine)
    weights = [torch.where(flat, share, (share * omega).sin() / safe) for share in (1 - t, t)]
    return (weights[0] * a + weights[1] * b).reshape(start.shape)
