# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Refuse to run in several processes at once, for methods that sum over all data and would see only a share each."""

from torch import distributed


def require_one_process(who: str) -> None:
    """Raise if `torch.distributed` runs several processes.

    Args:
        who: The class or function that asks, for the message.

    Raises:
        ValueError: If there are several processes.

    >>> require_one_process("EM")
    """
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise ValueError(
            f"{who} runs in one process, and there are {distributed.get_world_size()}: each would see its share of "
            f"the data only. Start one process."
        )
