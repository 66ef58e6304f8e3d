# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Keep a program that is recorded from looking at numbers, and from writing to the tensors that it finds."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

READS = "it looks at numbers in a tensor (if, while, .item(), int(...)), and while it is recorded there are none"


class NotCapturable(RuntimeError):
    """A program is no fixed graph of tensor operations; the message says what in it is not."""


class HandsOff(TorchDispatchMode):
    """Refuses to read a number, and takes back what is written to tensors with numbers.

    A tensor that the program finds has numbers, also while it is recorded; an operation of such alone is done, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if func is torch.ops.aten._local_scalar_dense.default:
            raise NotCapturable(READS)
        if func._schema.is_mutable:
            self._keep(func, args)
        return func(*args, **(kwargs or {}))

    def _keep(self, func: Any, args: Any) -> None:  # noqa: ANN401
        from torch._subclasses.fake_tensor import is_fake

        for argument, value in zip(func._schema.arguments, args, strict=False):
            writes = argument.alias_info is not None and argument.alias_info.is_write
            for tensor in (value if isinstance(value, (list, tuple)) else [value]) if writes else ():
                if isinstance(tensor, Tensor) and not is_fake(tensor) and id(tensor) not in self.written:
                    with _disable_current_modes():
                        self.written[id(tensor)] = tensor, tensor.detach().clone()

    @torch.no_grad()
    def take_back(self) -> None:
        """Restore the tensors that were written to."""
        for tensor, before in self.written.values():
            if not torch.equal(tensor, before):
                tensor.copy_(before)
