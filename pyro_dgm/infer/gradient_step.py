# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A gradient step makes one batch into one update of the weights; training repeats it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_dgm.infer.capacity import Capacity
from pyro_dgm.infer.captured import Captured
from pyro_dgm.infer.whole_step import WholeStep


class GradientStep:
    r"""Lower a loss by one step of an optimiser: ``step(batch) -> dict[str, Tensor]``.

    The step of a compiled `Objective` on a GPU is one CUDA graph, with all that the optimiser does, if that is one that
    can be captured, as Adam; the tensors that it returns are then the same at each step.

    Args:
        objective: A module that maps a batch to scalars, ``loss`` among them, e.g. an `Objective`.
        optimizer: An optimiser over its parameters.
        clip_norm: Largest Euclidean norm of the whole gradient; larger ones are scaled down to it.
        scheduler: A learning-rate schedule, stepped by `epoch_end`.
        backward: What to call on the loss, e.g. Lightning Fabric's ``backward``.
        module: The module whose weights are saved and averaged, if not ``objective`` itself (it may be wrapped).

    Raises:
        ValueError: If ``clip_norm`` is not positive, or nothing is to be trained.
    """

    def __init__(
        self,
        objective: nn.Module,
        optimizer: Optimizer,
        *,
        clip_norm: int | float | None = None,
        scheduler: LRScheduler | None = None,
        backward: Callable[[Tensor], Any] = torch.Tensor.backward,
        module: nn.Module | None = None,
    ) -> None:
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"GradientStep got clip_norm={clip_norm}: it must be positive, or None for no clipping.")
        self.objective = objective
        self.module = objective if module is None else module
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.scheduler = scheduler
        self.backward = backward
        self.parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ValueError(
                "GradientStep found no parameter to train. Are model and guide methods of one nn.Module (or modules "
                "themselves), and are its networks attributes of it rather than items of a plain list?"
            )
        captured = getattr(self.module, "captured", None)
        alone = not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1)
        self.whole: WholeStep | None = None
        if isinstance(captured, Captured) and alone:  # of several processes the gradients have to meet
            self.whole = WholeStep(captured, optimizer, self.parameters, clip_norm=clip_norm)

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        """Take one step.

        Args:
            batch: Whatever the objective takes, usually ``(B, *event)`` integers.

        Returns:
            The objective's scalars, detached, and ``grad_norm`` (before clipping) if gradients are clipped.
        """
        if self.whole is not None and (whole := self.whole(batch)) is not None:
            return whole
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.objective(batch)
        self.backward(terms["loss"])
        terms["loss"] = terms["loss"].detach()
        if self.clip_norm is not None:
            terms["grad_norm"] = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return terms

    @property
    def beta(self) -> Tensor:
        """The weight of the KL terms, a 0-dim tensor to be changed in place."""
        beta = getattr(getattr(self.module, "bound", None), "beta", None)
        if beta is None:
            raise AttributeError(f"{type(self.module).__name__} has no bound with a beta, so its KL cannot be weighed.")
        return beta

    @property
    def capacity(self) -> Tensor:
        """The target of the KL, a 0-dim tensor to be changed in place."""
        control = getattr(getattr(self.module, "bound", None), "kl", None)
        if not isinstance(control, Capacity):
            raise AttributeError(f"{type(self.module).__name__} has no bound with kl=Capacity(...), so no capacity.")
        return control.nats

    @property
    def lr(self) -> float:
        """The first parameter group's learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def epoch_end(self) -> None:
        """Move the learning-rate schedule on."""
        if self.scheduler is not None:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Collect what besides the weights is needed to continue: optimiser and schedule."""
        state = {"optimizer": self.optimizer.state_dict()}
        if self.scheduler is not None:
            state["scheduler"] = self.scheduler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.whole is not None:
            self.whole.prepare()
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
