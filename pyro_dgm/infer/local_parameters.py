# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Parameters belong to their modules: run Pyro programs without the global parameter store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import pyro
from pyro.nn import PyroModule, PyroSample, pyro_method
from torch import nn

Program = Callable[..., Any]

_PYRO_METHOD = pyro_method(lambda self: None).__code__


def owners(*programs: Program) -> list[nn.Module]:
    """List the modules that the programs are, or are methods of, each once.

    Pyro's handlers around them are seen through; a module that hides in a closure is not found.
    """
    found = [owner for program in programs for owner in _owners(program)]
    return list({id(module): module for module in found}.values())


def _owners(program: object) -> Iterator[nn.Module]:
    if isinstance(program, nn.Module):
        yield program
    elif isinstance(program, partial):  # a handler such as poutine.scale(program, ...) is one
        for part in (program.func, *program.args, *program.keywords.values()):
            yield from _owners(part)
    elif isinstance(owner := getattr(program, "__self__", None), nn.Module):
        yield owner


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
    """Take the parameter statements out of a method that needs none: the same program, sooner.

    A `pyro_method` announces each parameter to all effect handlers whenever it touches a submodule. That is how stock
    `SVI` finds them; whoever takes them from ``module.parameters()`` need not pay for it. Modules with a `PyroSample`
    or a nested `PyroModule` keep their statements, for there they name random variables.
    """
    owner, method = getattr(program, "__self__", None), getattr(program, "__func__", None)
    plain = getattr(method, "__wrapped__", None)
    if plain is None or not isinstance(owner, PyroModule) or getattr(method, "__code__", None) is not _PYRO_METHOD:
        return program  # it is not Pyro's decorator alone that would be taken off
    inner = [module for module in owner.modules() if isinstance(module, PyroModule)]
    lazy = [item for base in type(owner).__mro__ for item in vars(base).values() if isinstance(item, PyroSample)]
    if len(inner) > 1 or owner._pyro_samples or lazy:
        return program
    return MethodType(plain, owner)
