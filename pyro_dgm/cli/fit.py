# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The verb ``fit``: train a model on data, from words and YAML, into a run folder."""

from collections.abc import Sequence
from pathlib import Path

from pyro_dgm.cli.errors import UsageError, resumable
from pyro_dgm.cli.words import Words, check, split

HELP = """usage: pyro-dgm fit --data DATA [options]
       pyro-dgm fit --config FILE.yaml [options]
       pyro-dgm fit --resume RUN [--trainer.epochs N]

Train a model and write a run folder: config.yaml (resolved), metrics.csv and TensorBoard events,
checkpoints/, figures/, results.json. Ctrl-C saves, and --resume continues to the bit.
A model that has start(x, *, seed), as mixtures have, starts from the training data.

a class is a short name (`pyro-dgm list`) or the import path of your own (my_package.MyVAE);
defaults are in brackets:
  --data DATA            a data set                         --data.OPTION VALUE
  --model MODEL          has model and guide (VAE)          --model.OPTION VALUE
  --bound BOUND          what to maximise (ELBO)            --bound.num_particles K
  --bound.kl CONTROL     of the ELBO's KL (none)            --bound.kl.OPTION VALUE
  --optimizer NAME       of torch.optim (Adam)              --optimizer.lr LR (0.001)
  --scheduler NAME       of torch.optim.lr_scheduler        --scheduler.OPTION VALUE
  --model.help CLASS     the options of a class; --trainer.help, --data.help CLASS ... likewise

options:
  --config FILE.yaml     read options from YAML; words after the verb win
  --folder RUN           where to write (runs/DATA-MODEL-TIME)
  --batch_size N         (100)               --seed SEED            (0)
  --clip_norm NORM       (none)              --device DEVICE        auto, cpu, cuda (auto)
  --precision P          (32-true)           --threads N            CPU threads (torch's choice)
  --compile              record the step once and compile it (auto: on a CPU, from 10,000 steps on)
  --trainer.epochs N     (100)               --trainer.patience N   early stopping (none)
  --trainer.warmup_epochs N                  --trainer.ema DECAY    average of weights (none)
  --print_config         print the resolved YAML and stop

example:
  pyro-dgm fit --data Digits --data.binarization dynamic --model.latent 20 --bound IWAE \\
      --bound.num_particles 5 --model.encoder GatedMLP --model.encoder.hidden [300]
"""
WHERE = frozenset({"config", "folder", "resume"})
"""Options that say where things are, and are no part of a configuration."""


def run(args: Sequence[str]) -> int:
    """Train, or print what was asked for instead."""
    from pyro_dgm.cli.option_help import option_help
    from pyro_dgm.cli.schema import DEFAULTS, dump, resolve

    if (answer := option_help(args)) is not None:
        print(answer)
        return 0
    words = split(args, flags={"print_config"}, switches={"compile"})
    check(words, {*WHERE, *DEFAULTS}, names=0)
    if "resume" in dict(words.options):
        return _resume(words)
    config = resolve(*_layers(words))
    if "print_config" in words.flags:
        print(dump(config), end="")
        return 0
    from pyro_dgm.cli.run_folder import RunFolder
    from pyro_dgm.cli.training import cpu_threads, report, train

    folder = words.last("folder")
    opened = RunFolder.new(None if folder is None else Path(folder), config)
    with resumable(f"pyro-dgm fit --resume {opened.path}", opened.path), cpu_threads(config.threads):
        report(train(config, opened, resume=False), opened)
    return 0


def _layers(words: Words) -> list[dict]:
    """The configurations to lay over one another: YAML files in order, then the words."""
    from pyro_dgm.cli.layers import tree
    from pyro_dgm.cli.schema import load

    files = [load(Path(value)) for key, value in words.options if key == "config"]
    return [*files, tree((key, value) for key, value in words.options if key not in WHERE)]


def _resume(words: Words) -> int:
    """Continue a run from its folder alone; only how long to train may be changed."""
    from pyro_dgm.cli.layers import tree
    from pyro_dgm.cli.run_folder import RunFolder
    from pyro_dgm.cli.schema import load, resolve
    from pyro_dgm.cli.training import cpu_threads, report, train

    folder = RunFolder.open(Path(words.last("resume") or ""))
    changed = [(key, value) for key, value in words.options if key != "resume"]
    for key, _ in changed:
        if not key.startswith("trainer.") and key != "device":
            raise UsageError(
                f"--{key} cannot be given with --resume: a run continues as its config.yaml says. Only "
                f"--trainer.OPTION and --device may change; for anything else start a new run "
                f"with --config {folder.config_path}."
            )
    config = resolve(load(folder.config_path), tree(changed))
    if changed:
        folder.write_config(config)
    with resumable(f"pyro-dgm fit --resume {folder.path}", folder.path), cpu_threads(config.threads):
        report(train(config, folder, resume=True), folder)
    return 0
