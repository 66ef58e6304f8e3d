# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The inverse of a flow, as a flow: what was fast to sample is now fast to score, and the other way round."""

from collections.abc import Iterator

from torch import Tensor

from pyro_dgm.transforms.base import FlowTransform, Parameters


class Invert(FlowTransform):
    """Run a flow backwards. It is a module that keeps the flow's parameters, as the stock ``.inv`` does not.

    Args:
        flow: The flow to invert.

    Raises:
        ValueError: If it is no flow.

    Example:
        >>> from pyro_dgm.transforms import InverseAutoregressive
        >>> iaf = InverseAutoregressive(3)
        >>> x = torch.randn(2, 3)
        >>> torch.allclose(Invert(iaf)(iaf(x)), x, atol=1e-5)
        True
    """

    def __init__(self, flow: FlowTransform) -> None:
        if not isinstance(flow, FlowTransform):
            raise ValueError(f"Invert got a {type(flow).__name__}: it must be a flow, e.g. Planar(2).")
        super().__init__(flow.out_shape, out_shape=flow.shape, context_dim=flow.context_dim)
        self._cache_size = flow._cache_size
        self.flow = flow
        self.domain, self.codomain = flow.codomain, flow.domain

    @property
    def inv(self) -> FlowTransform:  # type: ignore[override]
        """The flow itself."""
        return self.flow

    def bind(self, context: Tensor | None) -> Parameters:
        """Compute the flow's parameters from a context; with None, give its own."""
        return self.flow.bind(context)

    def __call__(self, x: Tensor) -> Tensor:
        """Map x to the y that the flow maps to x; the flow remembers the pair."""
        return self.flow._inv_call(x)

    def _inv_call(self, y: Tensor) -> Tensor:
        return self.flow(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Give log|det dy/dx|."""
        return -self.flow.log_abs_det_jacobian(y, x)

    def clear_cache(self) -> None:
        """Make the flow forget its last pair."""
        self.flow.clear_cache()

    def with_cache(self, cache_size: int = 1) -> "Invert":
        """Give the inverse of the same flow, of the same parameters, with (1) or without (0) a memory."""
        return self if cache_size == self._cache_size else Invert(self.flow.with_cache(cache_size))

    def __repr__(self) -> str:
        return f"Invert({self.flow!r})"

    def _steps(self, parameters: Parameters, *, inverse: bool) -> Iterator[tuple[FlowTransform, Parameters, bool]]:
        yield from self.flow._steps(parameters, inverse=not inverse)

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return self.flow._inverse_and_logdet(x, parameters)

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        return self.flow._forward_and_logdet(y, parameters)
