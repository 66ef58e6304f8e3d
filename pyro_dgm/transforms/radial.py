# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Radial flow: push space away from a point or pull it in, or do so around one point after the other."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.flow_parameters import ContextNet, FlowParameters


class Radial(FlowTransform):
    r"""Move along the ray from a centre, the more the nearer it is.

    .. math::

        y = x + \beta \frac{x - x_0}{\alpha + r}, \quad r = |x - x_0|, \quad \alpha > 0, \; \gamma = \alpha + \beta > 0,

        \log|\det J| = (D - 1) \log \frac{\gamma + r}{\alpha + r}
            + \log\Big(p \frac{\gamma}{\alpha + r} + 1 - p^2\Big), \quad p = \frac{\alpha}{\alpha + r}

    Both :math:`\alpha` and :math:`\gamma` are softplus of a free number, so that the map is invertible and zeros make
    it the identity; eps is added to them, so that no logarithm is infinite. The determinant is the paper's eq. 14,
    written as sums of positives. ``depth`` such maps in a row have stacked parameters.

    The inverse has a closed form: r solves :math:`r^2 + (\gamma - R) r - \alpha R = 0` with :math:`R = |y - x_0|`.

    Args:
        dim: Size D of a datum.
        context_dim: Size of a context; None for parameters of its own.
        depth: Number of maps K.
        context_net: Makes the network that gives all K (D + 2) parameters.

    Raises:
        ValueError: If a size is not positive.

    Source: Rezende & Mohamed (ICML 2015), arXiv:1505.05770, eq. 14 and appendix A.2, where gamma is softplus too.

    Example:
        >>> flow = Radial(3, depth=4)
        >>> x = torch.randn(5, 3)
        >>> torch.allclose(flow.inv(flow(x)), x, atol=1e-5)
        True
    """

    def __init__(
        self, dim: int, *, context_dim: int | None = None, depth: int = 1, context_net: ContextNet = nn.Linear
    ) -> None:
        super().__init__(dim, context_dim=context_dim)
        (depth,) = positive_shape(self, "depth", (depth,))
        bound = dim**-0.5  # so that a centre is nearer to 0 than the data, and the map near the identity
        initial = {
            "center": torch.empty(depth, dim).uniform_(-bound, bound),
            "alpha": torch.empty(depth).uniform_(-bound, bound),
            "gamma": torch.empty(depth).uniform_(-bound, bound),
        }
        self.values = FlowParameters(initial, context_dim, context_net)

    def bind(self, context: Tensor | None) -> Parameters:
        """Give the centres, shape ``(*batch, K, D)``, alpha and gamma, shape ``(*batch, K)``."""
        center, alpha, gamma = self.values(context)
        eps = torch.finfo(alpha.dtype).eps
        return center, softplus(alpha) + eps, softplus(gamma) + eps

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        center, alpha, gamma = parameters
        radii = []
        for k in range(alpha.shape[-1]):
            ray = x - center[..., k, :]
            r = torch.linalg.vector_norm(ray, dim=-1)
            x = x + ((gamma[..., k] - alpha[..., k]) / (alpha[..., k] + r)).unsqueeze(-1) * ray
            radii.append(r)
        return x, _logdet(torch.stack(radii, -1), alpha, gamma, self.dim)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        center, alpha, gamma = parameters
        radii = []
        for k in reversed(range(alpha.shape[-1])):
            ray = y - center[..., k, :]
            r = _radius(torch.linalg.vector_norm(ray, dim=-1), alpha[..., k], gamma[..., k])
            y = y - ((gamma[..., k] - alpha[..., k]) / (gamma[..., k] + r)).unsqueeze(-1) * ray
            radii.append(r)
        return y, -_logdet(torch.stack(radii[::-1], -1), alpha, gamma, self.dim)


def _logdet(r: Tensor, alpha: Tensor, gamma: Tensor, dim: int) -> Tensor:
    """Sum over the K maps; r is of shape ``(*batch, K)``."""
    outer = alpha + r
    p = alpha / outer
    radial = (p * gamma / outer + (1 - p) * (1 + p)).log()
    return (radial + (dim - 1) * ((gamma + r) / outer).log()).sum(-1)


def _radius(image: Tensor, alpha: Tensor, gamma: Tensor) -> Tensor:
    """Give r > 0 with ``r (gamma + r) / (alpha + r) = image``; the larger root is found first, without cancellation."""
    b = gamma - image
    large = (torch.where(b > 0, b, -b) + (b * b + 4 * alpha * image).sqrt()) / 2
    return torch.where(b > 0, alpha * image / large, large)
