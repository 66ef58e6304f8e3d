# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Judging a model must not change it: no gradients, evaluation mode, and a random stream of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
import torch
from torch import nn

from pyro_dgm.infer.local_parameters import local_parameters, owners


@contextmanager
def frozen(*programs: Callable[..., Any], seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Run programs as finished models: evaluation mode, no gradients, seeded.

    On leaving, the training flag of every submodule, the random streams of the CPU and of ``device``, and the names in
    Pyro's parameter store are as before. A module's parameters are its own, whatever the store holds under their names.
    Modules are found when a program is a module, a bound method of one, or a `functools.partial` (as are Pyro's
    handlers) around either; a module that hides in a closure keeps its mode.

    Args:
        *programs: Models and guides.
        seed: Seed of the random stream inside.
        device: Where the random numbers are drawn; by default where the programs' weights are.
    """
    found = owners(*programs)
    if device is None:
        weights = (weight for owner in found for weight in [*owner.parameters(), *owner.buffers()])
        device = next((weight.device for weight in weights), torch.device("cpu"))
    with ExitStack() as stack:
        stack.enter_context(_seeded(seed, device))
        stack.enter_context(_evaluation_mode(found))
        stack.enter_context(_same_parameter_store())
        stack.enter_context(local_parameters(*found))
        stack.enter_context(torch.no_grad())
        yield


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Fork and seed the streams of the CPU and of this device; no other device is touched or woken up."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            accelerator = torch.get_device_module(device)
            stack.enter_context(torch.random.fork_rng(devices=[device], device_type=device.type))
            stack.enter_context(accelerator.device(device))
            accelerator.manual_seed(seed)
        yield


@contextmanager
def _evaluation_mode(found: list[nn.Module]) -> Iterator[None]:
    training = [module for owner in found for module in owner.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _same_parameter_store() -> Iterator[None]:
    """Take out the parameters that a run registers: left there, a later model of the same names would train them."""
    store = pyro.get_param_store()
    before = set(store.keys())
    try:
        yield
    finally:
        for name in set(store.keys()) - before:
            del store[name]
