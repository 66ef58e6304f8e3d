# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A density known up to its normaliser: it can be scored and not sampled, and a guide can be fitted to it."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

LogDensity = Callable[[Tensor], Tensor]


class Unnormalized(dist.TorchDistribution):
    r"""Score events by a function that is a log-density up to a constant.

    .. math:: \texttt{log\_prob}(x) = \log \tilde p(x) = \log p(x) + \log Z

    As a site of a model it is a target for variational inference: a guide q then has

    .. math:: \mathrm{ELBO} = \log Z - \mathrm{KL}(q \,\|\, p),

    and importance-weighted bounds rise to :math:`\log Z`.

    Args:
        log_density: Maps events ``(*batch, *event_shape)`` to log-densities ``(*batch)``, in nats.
        event_shape: Shape of one event.

    Raises:
        ValueError: If a size is not positive, or at call if x or what the function returned has the wrong shape.

    Source: Rezende & Mohamed (ICML 2015), arXiv:1505.05770, section 6.1.

    Example:
        >>> ring = Unnormalized(lambda x: -(x.norm(dim=-1) - 2).square(), event_shape=(2,))
        >>> ring.log_prob(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        tensor([-0., -1.])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(
        self, log_density: LogDensity, event_shape: Sequence[int], *, validate_args: bool | None = None
    ) -> None:
        shape = torch.Size(event_shape)
        if any(size < 1 for size in shape):
            raise ValueError(f"{type(self).__name__} got event_shape={tuple(shape)}: every size must be at least 1.")
        self.log_density = log_density
        super().__init__(torch.Size(), shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """All of space."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Score ``value``, shape ``(*batch, *event_shape)``: log-densities up to a constant, in nats, ``(*batch)``."""
        if self._validate_args:
            self._validate_sample(value)
        event = len(self.event_shape)
        if value.shape[value.dim() - event :] != self.event_shape:
            raise ValueError(
                f"{type(self).__name__}(event_shape={tuple(self.event_shape)}) got a value of shape "
                f"{tuple(value.shape)}: its last sizes must be the event's."
            )
        batch = value.shape[: value.dim() - event]
        found = self.log_density(value)
        if found.shape != batch:
            raise ValueError(
                f"{type(self).__name__} got a log-density of shape {tuple(found.shape)} for values of shape "
                f"{tuple(value.shape)}: the function must return one number for each event, shape {tuple(batch)}. Sum "
                f"over the event's dimensions only."
            )
        return found.expand(torch.broadcast_shapes(batch, self.batch_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Unnormalized":  # noqa: ANN401 -- torch's
        """Return the same density for a batch of events."""
        new = copy.copy(self)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:  # noqa: ANN401 -- torch.Size or anything like it
        """Refuse: nobody knows how to sample it.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot be sampled, only scored. As a site of a model it needs a guide that "
            f"samples it, or a value by pyro.condition. A Markov chain takes potential_fn and initial_params instead."
        )
