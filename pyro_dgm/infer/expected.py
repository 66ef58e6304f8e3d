# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The E-step of a Pyro program: what a batch leaves for the M-step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_dgm.infer.data_plates import count_data
from pyro_dgm.infer.enumeration import enumerate_program, expected_log_joint, posterior_weights
from pyro_dgm.infer.local_parameters import Program
from pyro_dgm.infer.program_parameters import ProgramShape


@dataclass
class Expected:
    """A batch under the posterior of its hidden variables at the parameters of the E-step.

    Attributes:
        args: The program's arguments.
        kwargs: Those by keyword.
        indices: What its subsampling plates drew.
        weights: The posterior probability of every entry of every site's table; see `posterior_weights`.
        log_likelihood: log p(x) of the batch, 0-dim, in nats.
        log_prior: Log-density of what belongs to no datum, such as the prior of global variables, 0-dim, in nats.
        shared: The sites that this is of.
        count: The number of data: the entries of the plates over data.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    indices: dict[str, Tensor]
    weights: dict[str, Tensor]
    log_likelihood: Tensor
    log_prior: Tensor
    shared: list[str]
    count: int

    @classmethod
    def of(cls, model: Program, program: ProgramShape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Expected":
        """Make the E-step of a batch."""
        values = program.values()
        with torch.no_grad():
            trace = enumerate_program(model, args, kwargs, nesting=program.nesting, values=values, indices={})
        weights, likelihood, plain = posterior_weights(trace, program.plates)
        log_prior = torch.stack([likelihood.new_zeros(()), *plain.values()]).sum()
        observed = [site for name, site in trace.sites.items() if site["is_observed"] and name not in values]
        count = count_data(observed, program.plates)
        return cls(args, kwargs, trace.indices, weights, likelihood, log_prior, list(plain), count)

    def expectation(self, model: Program, program: ProgramShape, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Give the expected log-density at other parameters, with its graph, and the sum of its absolute terms."""
        trace = enumerate_program(
            model, self.args, self.kwargs, nesting=program.nesting, values=values, indices=self.indices
        )
        return expected_log_joint(trace, self.weights)

    def without_shared(self) -> dict[str, Tensor]:
        """Give the weights of what belongs to the data alone: the rest counts once in a sweep of several batches."""
        return {name: weight for name, weight in self.weights.items() if name not in self.shared}

    def state_dict(self) -> dict[str, Any]:
        """Give all that is plain numbers, tensors and lists of such."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> "Expected":
        """Make it again, on a device."""
        return cls(**_to(state, device))


def _to(state: Any, device: torch.device) -> Any:
    """Move all tensors of a nested state."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {name: _to(value, device) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_to(value, device) for value in state)
    return state
