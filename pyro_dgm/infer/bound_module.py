# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A bound with its model and guide, as a module: what ``bound(model, guide)`` gives, for torch's optimisers."""

from typing import TYPE_CHECKING, Any

from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyro_dgm.infer.local_parameters import Program, local_parameters, owners, without_statements

if TYPE_CHECKING:
    from pyro_dgm.infer.bound import Bound
    from pyro_dgm.infer.compiled import Compiled


class BoundModule(ELBOModule):
    """A bound with its model and guide, which may be methods of modules."""

    def __init__(self, model: Program, guide: Program, bound: "Bound | Compiled") -> None:
        super().__init__(model, guide, bound)  # type: ignore[arg-type]  # Pyro keeps any callable
        self.bound = bound
        self.owners = nn.ModuleList(
            owner for owner in owners(model, guide) if owner is not model and owner is not guide
        )
        self._pair = (without_statements(model), without_statements(guide))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Give the bound's `differentiable_loss` for these data."""
        with local_parameters(self.model, self.guide):
            return self.bound.differentiable_loss(*self._pair, *args, **kwargs)
