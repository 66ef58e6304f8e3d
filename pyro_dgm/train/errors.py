# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The ways a training run can end before its last epoch, or refuse to start."""

from pathlib import Path


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C or a termination signal, after its state was saved.

    Args:
        signum: The signal's number.
        step: The last finished step.
        checkpoint: Where the state was saved.

    Attributes:
        exit_code: What a command line should exit with: 130 after Ctrl-C, 143 after a termination signal.
    """

    def __init__(self, signum: int, *, step: int, checkpoint: Path) -> None:
        super().__init__(f"Training was interrupted after step {step}. Its state is saved in {checkpoint}.")
        self.step, self.checkpoint = step, checkpoint
        self.exit_code = 128 + signum


class NonFiniteLoss(ArithmeticError):
    """A loss or a weight became NaN or infinite.

    Args:
        what: What is not finite, e.g. ``"the loss is nan"``.
        step: The first bad step, counted from 1.
        site: Where it shows: sample sites by their terms, or a parameter.
        checkpoint: The last good checkpoint.
    """

    def __init__(self, what: str, *, step: int, site: str, checkpoint: Path | None) -> None:
        kept = f"The last good checkpoint is {checkpoint}." if checkpoint else "There is no checkpoint yet."
        super().__init__(
            f"Step {step}: {what}, at {site}. {kept} Try a smaller learning rate, gradient clipping (clip_norm), or a "
            f"lower bound on the scales of the distribution at that site."
        )
        self.step, self.site, self.checkpoint = step, site, checkpoint


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used: it is damaged, or of another model or version. The message says which."""
