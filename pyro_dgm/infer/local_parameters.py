# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Parameters belong to their modules: run Pyro programs without the global parameter store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import nn

Program = Callable[..., Any]


def owners(*programs: Program) -> list[nn.Module]:
    """List the modules that the programs are, or are methods of, each once."""
    found = [program if isinstance(program, nn.Module) else getattr(program, "__self__", None) for program in programs]
    return list({id(module): module for module in found if isinstance(module, nn.Module)}.values())


@contextmanager
def local_parameters(*programs: Program) -> Iterator[None]:
    """Run programs with every parameter in its own module, as ``module_local_params`` does.

    Two models of one class then never share weights by accident, and a `PyroModule` may have been built before the
    setting was made (Pyro prepares its context at construction only; it is prepared here). The setting is restored.

    Args:
        *programs: Models and guides: modules, or methods of modules. Plain functions have nothing to prepare.
    """
    _prepare(programs)
    with pyro.settings.context(module_local_params=True):
        yield


def _prepare(programs: tuple[Program, ...]) -> None:
    for owner in owners(*programs):
        if isinstance(owner, PyroModule) and hasattr(owner._pyro_context, "param_state"):
            continue  # a module is prepared with all its parts, so the first tells
        for module in owner.modules():
            if isinstance(module, PyroModule) and not hasattr(module._pyro_context, "param_state"):
                module._pyro_context.param_state = {"params": {}, "constraints": {}}


def without_statements(program: Program) -> Program:
    """Take the parameter statements out of a method that needs none: the same program, in half the time.

    A `pyro_method` announces each parameter to all effect handlers whenever it touches a submodule. That is how stock
    `SVI` finds them; whoever takes them from ``module.parameters()`` need not pay for it. Modules with a `PyroSample`
    or a nested `PyroModule` keep their statements, for there they name random variables.
    """
    owner, method = getattr(program, "__self__", None), getattr(program, "__func__", None)
    plain = getattr(method, "__wrapped__", None)
    if plain is None or not isinstance(owner, PyroModule):
        return program
    inner = [module for module in owner.modules() if isinstance(module, PyroModule)]
    if len(inner) > 1 or owner._pyro_samples:
        return program
    return MethodType(plain, owner)
