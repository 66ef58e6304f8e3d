# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Whether a module does the same when it is called a second time with the same input."""

from torch import nn

from pyro_dgm.transforms.batch_norm import BatchNorm


def why_not_repeatable(module: nn.Module) -> str | None:
    """Say why a module, without those inside it, would not do the same a second time; None if it would.

    What draws torch's random numbers does, once these are put back to where they were.
    """
    if isinstance(module, BatchNorm | nn.modules.batchnorm._BatchNorm):
        return "normalises data by their batch"
    if isinstance(module, nn.RNNBase) and module.dropout:
        return "draws anew each time, where nobody can put its random numbers back"
    if getattr(module, "_pyro_samples", None):
        return "has weights that are drawn anew each time"
    hooks = module._forward_pre_hooks  # the older of torch's two ways to normalise a spectrum is a hook
    spectral = hooks and any(type(hook).__name__ == "SpectralNorm" for hook in hooks.values())
    changes = spectral or type(module).__name__ == "_SpectralNorm"
    return "changes its estimate each time" if changes else None
