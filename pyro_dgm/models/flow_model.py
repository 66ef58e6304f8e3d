# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A density model: noise that a flow bends into data, with an exact likelihood and nothing latent."""

import math
from collections.abc import Callable

import pyro
from pyro.infer.util import is_validation_enabled
from pyro.nn import pyro_method
from torch import Tensor, nn

from pyro_dgm.distributions import StandardNormal
from pyro_dgm.distributions.unnormalized import LogDensity
from pyro_dgm.models.approximation import Approximation
from pyro_dgm.models.push_forward import PushForward
from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.make_flow import make_flow
from pyro_dgm.transforms.spline_autoregressive import SplineAutoregressive

Shape = tuple[int, ...]


class FlowModel(PushForward):
    r"""A flow f from noise u to real-valued data x.

    .. math:: \log p(x) = \log p_u(f^{-1}(x)) + \log |\det \partial f^{-1} / \partial x|

    Nothing is latent, so an ELBO of it is the log-likelihood itself, and to maximise it is to minimise the forward KL
    divergence from the data's distribution. Training runs the flow's inverse and dreaming runs it forward: take a flow
    whose inverse is fast, a masked autoregressive one or a coupling. For the reverse KL divergence, to a density that
    can be scored and not sampled, see :meth:`approximation`; there the forward direction is the one to be fast.

    >>> from functools import partial
    >>> from pyro_dgm.transforms import AffineCoupling, Stack
    >>> flow = FlowModel(shape=(3,), flow=partial(Stack, flow=AffineCoupling, between="random"))
    >>> flow.model(size=5).shape, flow.distribution().log_prob(torch.randn(7, 3)).shape
    (torch.Size([5, 3]), torch.Size([7]))

    Args:
        shape: Shape of one datum, e.g. ``(30,)`` for rows of a table. The elements of other shapes are put in a row.
        flow: Makes the flow from the number D of elements: a class, or `functools.partial` of one to set its options,
            e.g. ``partial(Stack, flow=MaskedAutoregressive, depth=5)``.
        base: Makes from D a module whose call gives the distribution of the noise.

    Attributes:
        flow: The flow, noise to data.
        base: Call it for the distribution of the noise.

    Raises:
        ValueError: If there is no size or one is not positive, or the flow is none, of another dimension, or needs a
            context.

    Source: Dinh, Krueger & Bengio (2014), arXiv:1410.8516, section 2; Papamakarios, Pavlakou & Murray (NeurIPS 2017),
    arXiv:1705.07057, section 3.
    """

    def __init__(
        self,
        *,
        shape: Shape,
        flow: Callable[[int], FlowTransform] = SplineAutoregressive,
        base: Callable[[int], nn.Module] = StandardNormal,
    ) -> None:
        dim = math.prod(positive_shape(self, "shape", shape))
        if not shape:
            raise ValueError("FlowModel got shape=(): it needs at least one size, as in shape=(2,).")
        super().__init__(base(dim), make_flow(self, flow, dim), tuple(shape))

    @pyro_method
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(x): score ``x``, or dream ``size`` data without it.

        Args:
            x: Real numbers, shape ``(B, *shape)``, or nothing.
            size: How many to dream.

        Returns:
            ``x``, or real numbers of shape ``(size, *shape)``.

        Raises:
            ValueError: If x is not floating point or has another shape; with Pyro's validation, if a row of it is not
                finite.
        """
        if x is not None:
            self._check(x)
        with pyro.plate("data", size if x is None else len(x)):
            return pyro.sample("x", self.distribution(), obs=x)  # type: ignore[arg-type]  # (B, *shape)

    @pyro_method
    def guide(self, x: Tensor) -> None:
        """Guess nothing, for nothing is latent."""

    def approximation(self, log_density: LogDensity) -> Approximation:
        """Use the flow to approximate a density that is known up to its normaliser Z, by reverse KL divergence.

        >>> from pyro_dgm.infer import IWAE
        >>> from pyro_dgm.transforms import Planar
        >>> fit = FlowModel(shape=(2,), flow=Planar).approximation(lambda x: -(x.norm(dim=-1) - 2).square())
        >>> IWAE(100).per_datum(fit.model, fit.guide, 5).shape  # five estimates of log Z, in expectation below it
        torch.Size([5])

        Args:
            log_density: Maps ``(*batch, *shape)`` to log-densities up to a constant, ``(*batch)``, in nats.

        Returns:
            A module with ``model`` and ``guide`` for any bound: its ELBO is log Z less the divergence. It has this
            model's flow: what is fitted is this model's ``distribution()``.
        """
        return Approximation(self.base, self.flow, self.shape, log_density)

    def _check(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise ValueError(
                f"FlowModel got x of dtype {x.dtype}: a density is of real numbers, and would grow without end on "
                f"integers. Dequantise them, as ImageFlow does with images, or by x + torch.rand(x.shape); the density "
                f"then bounds their log-probability from below."
            )
        if x.dim() != len(self.shape) + 1 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"FlowModel(shape={self.shape}) got x of shape {tuple(x.shape)}: it needs "
                f"(B, {', '.join(map(str, self.shape))}). A single datum goes in as x.unsqueeze(0)."
            )
        weight = next(self.parameters(), x)
        if weight.dtype != x.dtype:
            raise ValueError(
                f"FlowModel has weights of dtype {weight.dtype} and got x of dtype {x.dtype}: use x.to({weight.dtype})."
            )
        if is_validation_enabled() and not x.isfinite().all():
            rows = (~x.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
            raise ValueError(
                f"FlowModel got NaN or infinite values in {len(rows)} of {len(x)} rows of x, the first of them "
                f"{', '.join(map(str, rows[:5]))}. Leave them out, or fill in what is missing first."
            )
