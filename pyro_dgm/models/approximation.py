# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A flow fitted to a density that is known up to its normaliser: the density is the model, the flow is the guide."""

from functools import partial

import pyro
from pyro.nn import pyro_method
from torch import Tensor, nn

from pyro_dgm.distributions.unnormalized import LogDensity, Unnormalized
from pyro_dgm.models.push_forward import PushForward
from pyro_dgm.transforms.base import FlowTransform


class Approximation(PushForward):
    r"""What ``flow_model.approximation(log_density)`` gives: two programs that share the flow model's parts.

    .. math:: \mathrm{ELBO} = \log Z - \mathrm{KL}(q \,\|\, p), \qquad \log p(x) = \log \tilde p(x) - \log Z

    The ELBO is negative reverse KL divergence but for a constant, and IWAE rises to :math:`\log Z`. There are no data:
    both programs are called with how many points to draw, as a number or as any tensor of that length, so that a
    `pyro_dgm.infer.GradientStep` or a `pyro_dgm.train.Trainer` can be fed with ``torch.empty(size)``. Each point stands
    for a datum: per-datum bounds are independent estimates of one number.

    Whatever parameters the log-density has are not trained (that would raise it everywhere) and not moved.

    Args:
        base: Call it for the distribution of the noise.
        flow: Maps noise to points.
        shape: Shape of a point.
        log_density: Maps ``(*batch, *shape)`` to ``(*batch)``, in nats.
    """

    def __init__(self, base: nn.Module, flow: FlowTransform, shape: tuple[int, ...], log_density: LogDensity) -> None:
        super().__init__(base, flow, shape)
        self._log_density = partial(log_density)  # a module in here is no part of this one

    @pyro_method
    def model(self, points: Tensor | int = 1) -> Tensor:
        """Score points by the unnormalised log-density; without a guide's values it cannot run.

        Args:
            points: How many, or anything of that length.

        Returns:
            The points, shape ``(B, *shape)``.
        """
        with pyro.plate("data", _size(points)):
            return pyro.sample("x", Unnormalized(self._log_density, self.shape))

    @pyro_method
    def guide(self, points: Tensor | int = 1) -> Tensor:
        """Draw points from the flow.

        Args:
            points: How many, or anything of that length.

        Returns:
            The points, shape ``(B, *shape)``.
        """
        with pyro.plate("data", _size(points)):
            return pyro.sample("x", self.distribution())  # type: ignore[arg-type]


def _size(points: Tensor | int) -> int:
    return points if isinstance(points, int) else len(points)
