# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Finds where numbers stopped being finite: at which sample sites, or in which parameter."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def blame(values: Mapping[str, int | float], module: nn.Module) -> str:
    """Name the terms of a step that are NaN or infinite, and the first parameter that is, or whose gradient is.

    Args:
        values: What the step returned, ``log_p.<site>`` and ``log_q.<site>`` among it.
        module: The module that was trained.

    Returns:
        E.g. ``"log_p.x (inf), gradient of model.decoder.0.weight"``.
    """
    terms = {name: value for name, value in values.items() if name.startswith(("log_p.", "log_q."))}
    found = [f"{name} ({value})" for name, value in terms.items() if not math.isfinite(value)]
    named = list(module.named_parameters())
    tensors = {f"gradient of {name}": p.grad for name, p in named} | {f"parameter {name}": p for name, p in named}
    found += first_non_finite({name: tensor for name, tensor in tensors.items() if tensor is not None})
    return ", ".join(found) or "no sample site (its terms are finite or unknown)"


def first_non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """List the name of the first tensor with a NaN or an infinity in it, or nothing."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    if not floats:
        return []
    finite = torch.stack([tensor.detach().isfinite().all().cpu() for tensor in floats.values()])
    return [name for name, good in zip(floats, finite.tolist(), strict=True) if not good][:1]
