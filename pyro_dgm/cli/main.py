# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The command ``pyro-dgm``: find the verb, run it, turn mistakes into one line and an exit code."""

import importlib
import sys
import traceback
from collections.abc import Sequence

from pyro_dgm import __version__
from pyro_dgm.cli.errors import UsageError, is_mistake, nearest, wants_traceback

VERBS = {
    "fit": "train a model on data; writes a run folder",
    "evaluate": "measure a run: NLL by importance sampling, -ELBO, bits/dim, active units, and more",
    "compare": "EM, gradients, amortised, mean-field, NUTS, k-means on one mixture: one table",
    "sample": "let a run dream: a picture and the numbers behind it",
    "reproduce": "run a recipe: published numbers beside measured ones",
    "list": "models, data, nets, flows, priors, posteriors, likelihoods, bounds, controls, recipes",
}
HELP = f"""usage: pyro-dgm VERB ...

Deep generative models as Pyro programs.

verbs:
{chr(10).join(f"  {verb:<10} {about}" for verb, about in VERBS.items())}

examples:
  pyro-dgm reproduce digits
  pyro-dgm fit --data StaticMNIST --model.latent 64 --trainer.epochs 20 --folder runs/first
  pyro-dgm evaluate runs/first --num_data 1000

`pyro-dgm VERB --help` says more. PYRO_DGM_TRACEBACK=1 shows the whole traceback of an error.
"""
USAGE, INTERRUPTED = 2, 130
"""Exit codes, as shells have them: words that make no sense, and stopped by Ctrl-C."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: The words after ``pyro-dgm``; those of this process if None.

    Returns:
        The exit code: 0 done, 2 a mistake in what was asked (one line on stderr), 130 stopped by Ctrl-C.
    """
    verb, *words = list(sys.argv[1:] if args is None else args) or ["--help"]
    if verb in {"-h", "--help", "help"}:
        print(HELP)
        return 0
    if verb == "--version":
        print(f"pyro-dgm {__version__}")
        return 0
    if verb not in VERBS:
        hint = nearest(verb, VERBS) or f" Verbs: {', '.join(VERBS)}."
        return _fail("pyro-dgm", UsageError(f"there is no verb {verb!r}.{hint}"))
    return _run(verb, words)


def _run(verb: str, words: list[str]) -> int:
    """Run one verb, whose room is imported only now: ``--help`` answers at once."""
    module = importlib.import_module(f"pyro_dgm.cli.{verb}")
    if {"-h", "--help"} & set(words):
        print(module.HELP)
        return 0
    try:
        return module.run(words)
    except KeyboardInterrupt as interruption:  # the trainer's Interrupted is one; it has saved by now
        print(f"pyro-dgm {verb}: interrupted. {interruption}".rstrip(), file=sys.stderr)
        return getattr(interruption, "exit_code", INTERRUPTED)
    except Exception as error:
        if not is_mistake(error):
            raise
        return _fail(f"pyro-dgm {verb}", error)


def _fail(who: str, error: Exception) -> int:
    """Print one line about a mistake; the traceback only for a person who asked for it."""
    if wants_traceback():
        traceback.print_exception(error)
    hint = "" if isinstance(error, UsageError) or wants_traceback() else " (PYRO_DGM_TRACEBACK=1 shows where.)"
    print(f"{who}: error: {error}{hint}", file=sys.stderr)
    return USAGE
