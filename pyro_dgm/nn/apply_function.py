# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Apply a function with a gradient of its own to tensors of any kind."""

from typing import Any

import torch
from torch.overrides import handle_torch_function, has_torch_function


def apply_function(function: type[torch.autograd.Function], *args: Any) -> Any:  # noqa: ANN401 -- what the function has
    """Call ``function.apply``, which by itself does not see that a tensor is more than a tensor.

    Pyro's `TraceGraph_ELBO` marks what depends on which variable by a subclass of tensors. A bare ``apply`` takes such
    a tensor for one without a history, and gives a result without gradient and without mark.

    Args:
        function: A subclass of `torch.autograd.Function`.
        *args: Its arguments, tensors or not.

    Returns:
        What it gives, with the marks of its arguments.
    """
    tensors = tuple(argument for argument in args if isinstance(argument, torch.Tensor))
    if has_torch_function(tensors):
        return handle_torch_function(apply_function, tensors, function, *args)
    return function.apply(*args)
