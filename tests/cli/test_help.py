# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Help fits a screen, shows an example, tells the truth and comes at once; mistakes are one line and exit code 2."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest

from pyro_dgm import __version__
from pyro_dgm.cli.main import HELP, VERBS
from pyro_dgm.cli.schema import DEFAULTS
from pyro_dgm.train import Trainer


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_a_screen_and_shows_an_example(verb, say):
    code, out, err = say(f"{verb} --help")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert "example" in out
    assert "pyro-dgm" in out.partition("example")[2]


@pytest.mark.parametrize("verb", ["compare", "evaluate", "sample", "reproduce"])
def test_help_names_exactly_the_options_that_there_are(verb):
    module = importlib.import_module(f"pyro_dgm.cli.{verb}")
    named = set(re.findall(r"--(\w+)", module.HELP.partition("example")[0]))
    parameters = inspect.signature(getattr(module, verb)).parameters.values()
    assert named == {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def test_help_of_fit_names_only_what_there_is():
    module = importlib.import_module("pyro_dgm.cli.fit")
    named = set(re.findall(r"--([\w.]+)", module.HELP))
    trainer = {f"trainer.{name}" for name in inspect.signature(Trainer).parameters}
    others = module.WHERE | {"print_config", "trainer.help", "data.help", "model.help"}
    examples = {"data.OPTION", "model.OPTION", "scheduler.OPTION", "bound.num_particles", "optimizer.lr"}
    examples |= {"bound.kl", "bound.kl.OPTION"}
    examples |= {"data.binarization", "model.latent", "model.encoder", "model.encoder.hidden"}
    assert not named - trainer - others - examples - DEFAULTS.keys()
    hidden = {"trainer", "devices", "strategy"}  # a group, and what only several devices need
    assert DEFAULTS.keys() - hidden <= named


def test_help_comes_before_anything_heavy_is_imported():
    words = [["--help"], *([verb, "--help"] for verb in VERBS)]
    code = f"import sys; from pyro_dgm.cli import main; [main(each) for each in {words}]; exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=60).returncode == 0


def test_no_words_at_all_ask_for_help(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pyro-dgm"])
    assert importlib.import_module("pyro_dgm.cli").main() == 0
    assert capsys.readouterr().out.strip() == HELP.strip()


def test_version(say):
    assert say("--version") == (0, f"pyro-dgm {__version__}\n", "")


def test_an_unknown_verb(say):
    code, _, err = say("fitt --data Digits")
    assert code == 2
    assert err == "pyro-dgm: error: there is no verb 'fitt'. Did you mean fit?\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fit", "which data?"),
        ("fit --bath_size 3", "unknown option --bath_size. Did you mean --batch_size?"),
        ("fit --data Digit", "--data Digit: no class of that name in pyro_dgm.data. Did you mean Digits?"),
        ("fit --data Digits --model.latent many", "--model.latent: expected int. Got value: many"),
        ("fit --data Digits --trainer.epoch 3", "Did you mean --trainer.epochs?"),
        ("fit --data Digits --data.binarization static --trainer.epochs 0", "Trainer got epochs=0"),
        ("fit --data Digits --model MLP", "no class of that name in pyro_dgm.models"),
        ("fit --data Digits --model torch.nn.ReLU", "it has no method model and no guide"),
        ("fit --data Digits --scheduler StepLR", "step_size"),
        ("fit --data Digits --device gpuu", "--device gpuu"),
        ("fit --config no_such_file.yaml", "cannot read no_such_file.yaml"),
        ("fit --resume no_such_run", "no_such_run is not a run folder: it does not exist."),
        ("fit --foo.help", "only data, model, bound, optimizer, scheduler, trainer and their parts have options"),
        ("evaluate", "which FOLDER?"),
        ("evaluate no_such_run", "no_such_run is not a run folder"),
        ("evaluate run --num_sample 3", "unknown option --num_sample. Did you mean --num_samples"),
        ("evaluate run --num_samples many", "--num_samples: expected int. Got value: many"),
        ("evaluate run --split tset", "--split: expected Literal['train', 'valid', 'test']. Got value: tset"),
        ("sample run --size 0", "--size 0: at least 1 is needed."),
        ("reproduce", "which RECIPE?"),
        ("reproduce digit", "there is no recipe 'digit'. Did you mean digits?"),
        ("reproduce digits --budget smal", "has no budget 'smal'. Did you mean small?"),
        ("reproduce digits --rows bernouli", "has no row 'bernouli'. Did you mean bernoulli"),
        ("reproduce no_such_file.yaml", "there is no recipe file no_such_file.yaml"),
        ("reproduce digits --resume somewhere", "--resume FOLDER goes alone"),
        ("reproduce --resume no_such_folder", "no_such_folder holds no recipe.yaml"),
        ("compare", "which MODEL?"),
        ("compare gm", "there is no comparison of 'gm'. Did you mean gmm?"),
        ("compare gmm --methods em,mean_feild", "there is no method 'mean_feild'. Did you mean mean_field?"),
        ("compare gmm --data digitz", "no class of that name in pyro_dgm.data. Did you mean Digits?"),
        ("compare gmm --data InMemory", "Only data sets that need no options"),
        ("compare gmm --components 0", "--components 0: at least 1 is needed."),
        ("compare gmm --sweep 3", "unknown option --sweep. Did you mean --sweeps or --seed?"),
        ("compare gmm --dim 1 --methods em", "dim=1"),
        ("compare gmm --methods em,em", "name each one once"),
        ("list prior", "there is no list of 'prior'. Did you mean priors"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(line, message, say, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = say(line)
    assert code == 2
    assert message in err
    assert err.startswith(f"pyro-dgm {line.split()[0]}: error: ")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_the_traceback_is_there_for_who_asks(say, monkeypatch):
    monkeypatch.setenv("PYRO_DGM_TRACEBACK", "1")
    code, _, err = say("fit --data Digit")
    assert code == 2
    assert "Traceback" in err


def test_an_error_that_is_no_mistake_of_the_user_keeps_its_traceback(monkeypatch):
    module = importlib.import_module("pyro_dgm.cli.list")
    monkeypatch.setattr(module, "KINDS", {"models": lambda: {}["bug"]})
    with pytest.raises(KeyError, match="bug"):
        importlib.import_module("pyro_dgm.cli").main(["list"])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("--model.help VAE", "--model.latent int  (default: 50)"),
        ("--model.help", "--model.latent int  (default: 50)"),
        ("--model.encoder.help GatedMLP", "--model.encoder.hidden Sequence[int]  (default: (300, 300))"),
        ("--optimizer.help=Adamax", "--optimizer.lr float | Tensor  (default: 0.002)"),
        ("--trainer.help", "--trainer.warmup_epochs int | float | None  (default: None)"),
        ("--data.help Digits", "--data.binarization"),
    ],
)
def test_the_options_of_a_class(asked, told, say):
    code, out, _ = say(f"fit {asked}")
    assert code == 0
    assert told in out
    assert not re.search(r"\.(shape|levels|in_shape|out_shape|params) ", out)
