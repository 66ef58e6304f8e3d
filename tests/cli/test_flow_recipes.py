# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Flows go into a model by words and by YAML, and the recipes of flow posteriors are those of their paper."""

from pathlib import Path

import pytest
import torch
import yaml

from pyro_dgm.cli import schema
from pyro_dgm.cli.cookbook import read
from pyro_dgm.distributions import FlowPosterior, FlowPrior
from pyro_dgm.infer import ELBO
from pyro_dgm.transforms import Compose, HouseholderSylvester

SHORT = "--trainer.epochs 1 --trainer.tensorboard false --trainer.progress false --threads 1"
SYLVESTER = ("sylvester-caltech", "sylvester-freyfaces", "sylvester-mnist", "sylvester-omniglot")
ROWS = ["vae", "planar", "iaf", "o-snf", "h-snf", "t-snf"]
NESTED = """
data: {class_path: Digits, init_args: {binarization: static}}
model:
  class_path: VAE
  init_args:
    latent: 3
    posterior:
      class_path: FlowPosterior
      init_args:
        context: 8
        flow: {class_path: HouseholderSylvester, init_args: {depth: 4, reflections: 2}}
    prior:
      class_path: FlowPrior
      init_args:
        flow:
          class_path: Stack
          init_args: {depth: 2, flow: {class_path: MaskedAutoregressive, init_args: {hidden: [4]}}}
"""

PICTURES = """
import torch
from pyro_dgm.data import Dataset, Split

class Pictures(Dataset):
    def __init__(self, *, width: int = 28, levels: int = 2) -> None:
        x = torch.randint(0, levels, (2, 28, width), dtype=torch.uint8)
        super().__init__(name="Pictures", grey_levels=levels, train=Split(x), valid=Split(x), test=Split(x))
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    (tmp_path / "pictures_of_a_test.py").write_text(PICTURES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def resolved(text, over=None):
    return schema.resolve(yaml.safe_load(text), over or {})


# By words and by YAML.


def test_a_flow_goes_in_by_words(say, tmp_path):
    flow = "--model.posterior FlowPosterior --model.posterior.flow Planar --model.posterior.flow.depth 2"
    words = f"--data Digits --data.binarization static --model.latent 3 --model.posterior.context 8 {flow}"
    code, out, err = say(f"fit {words} --model.prior FlowPrior {SHORT} --folder {tmp_path}/run")
    assert code == 0, err
    posterior = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["init_args"]["posterior"]
    assert posterior["class_path"] == "pyro_dgm.distributions.FlowPosterior"
    assert posterior["init_args"]["flow"]["class_path"] == "pyro_dgm.transforms.Planar"
    assert posterior["init_args"]["flow"]["init_args"]["depth"] == 2
    code, out, err = say(f"evaluate {tmp_path}/run --num_samples 10 --num_data 20")
    assert code == 0, err
    for text in ("NLL <=", "gap = ", "KL(z) =", "active units of z"):
        assert text in out
    assert say(f"sample {tmp_path}/run --size 4")[0] == 0


def test_nested_flows_come_back_from_yaml_as_they_went():
    config = resolved(NESTED)
    text = schema.dump(config)
    assert schema.dump(schema.resolve(yaml.safe_load(text))) == text
    model = schema.instantiate(config).model
    posterior, prior = model.posterior[2], model.prior
    assert isinstance(posterior, FlowPosterior)
    assert isinstance(posterior.flow, HouseholderSylvester)
    assert (posterior.flow.dim, posterior.flow.context_dim) == (3, 8)
    assert isinstance(prior, FlowPrior)
    assert isinstance(prior.flow, Compose)
    assert prior.flow.context_dim is None


def test_a_flow_without_a_context_is_shared_by_all_data():
    flow = {"model": {"init_args": {"posterior": {"init_args": {"flow": "BatchNorm"}}}}}
    posterior = schema.instantiate(resolved(NESTED, flow)).model.posterior[2]
    assert posterior.flow.context_dim is None


def test_words_set_the_options_of_the_flow_in_a_file(say, tmp_path):
    (tmp_path / "nested.yaml").write_text(NESTED)
    _, out, err = say(f"fit --config {tmp_path}/nested.yaml --model.posterior.flow.depth 7 --print_config")
    flow = yaml.safe_load(out)["model"]["init_args"]["posterior"]["init_args"]["flow"]
    assert (flow["init_args"]["depth"], flow["init_args"]["reflections"]) == (7, 2), err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model.posterior FlowPosteriro", "Did you mean FlowPosterior"),
        ("--model.posterior.flow Plannar", "--model.posterior.flow Plannar: no class of that name"),
        ("--model.posterior.flow Plannar", "Did you mean Planar"),
        ("--model.posterior.flow.dept 3", "unknown option --model.posterior.flow.dept. Did you mean"),
        ("--model.posterior.flow.dept 3", "HouseholderSylvester has: "),
        ("--model.posterior.flow.context_dim 3", "cannot be set: it comes from whatever makes the flow"),
        ("--model.posterior.flow.reflections many", "--model.posterior.flow.reflections: expected int"),
        ("--model.posterior.flow GatedMLP", "--model.posterior.flow"),
        ("--model.prior.flow.flow.hiden [3]", "unknown option --model.prior.flow.flow.hiden. Did you mean"),
        ("--model.prior.flow.between sideways", "--model.prior.flow.between"),
    ],
)
def test_a_mistake_in_a_flow_is_one_line_with_the_nearest_name(words, message, say, tmp_path):
    (tmp_path / "nested.yaml").write_text(NESTED)
    code, _, err = say(f"fit --config {tmp_path}/nested.yaml {words} {SHORT} --folder {tmp_path}/run")
    assert code == 2
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            "--model.posterior FlowPosterior --model.posterior.flow.help Planar",
            "--model.posterior.flow.depth int  (default: 1)",
        ),
        ("--model.posterior FlowPosterior --model.posterior.flow.help", "HouseholderSylvester: "),
        ("--model.posterior.help FlowPosterior", "--model.posterior.context int  (default: 256)"),
    ],
)
def test_the_options_of_a_flow(asked, told, say):
    code, out, err = say(f"fit {asked}")
    assert code == 0, err
    assert told in out
    assert "context_dim " not in out
    assert ".dim " not in out


# The recipes.


@pytest.mark.parametrize("name", SYLVESTER)
def test_a_sylvester_recipe_is_the_one_of_its_code(name):
    recipe = read(name)
    assert list(recipe.rows) == ROWS
    assert list(recipe.budgets) == ["full", "small"]
    repeat = recipe.repeats_of("full")[0]
    for row in ROWS:
        config = schema.resolve(recipe.config(row, "full", repeat))
        model, optimizer, trainer = config.model.init_args, config.optimizer, config.trainer
        assert model.latent == 64
        assert model.encoder.class_path == "pyro_dgm.nn.GatedConvEncoder"
        assert model.decoder.class_path == "pyro_dgm.nn.GatedConvDecoder"
        assert optimizer.class_path == "torch.optim.Adamax"
        assert (optimizer.init_args.lr, optimizer.init_args.eps, config.batch_size) == (5e-4, 1e-7, 100)
        assert (trainer.epochs, trainer.warmup_epochs, trainer.patience) == (2000, 100, 100)
        posterior = model.posterior.init_args
        base = posterior if row == "vae" else posterior.base.init_args
        assert base.scale == "softplus_variance"
    assert recipe.budgets["full"].evaluate["num_samples"] == (2000 if name == "sylvester-caltech" else 5000)


@pytest.mark.parametrize(("budget", "depth", "hidden", "bottleneck"), [("full", 16, 1280, 32), ("small", 4, 320, 16)])
@pytest.mark.parametrize("name", SYLVESTER)
def test_the_sizes_of_the_flows_are_those_of_the_paper_and_of_its_examples(name, budget, depth, hidden, bottleneck):
    recipe = read(name)
    repeat = recipe.repeats_of(budget)[0]
    flows = {
        row: schema.resolve(recipe.config(row, budget, repeat)).model.init_args.posterior.init_args.flow
        for row in ROWS[1:]
    }
    assert {flow.init_args.depth for flow in flows.values()} == {depth}
    iaf = flows["iaf"].init_args.flow.init_args
    assert (iaf.hidden, iaf.gated, iaf.activation) == ([hidden], True, torch.nn.ELU)
    assert flows["o-snf"].init_args.bottleneck == bottleneck
    assert flows["h-snf"].init_args.reflections == 8
    assert [flow.class_path.rpartition(".")[2] for flow in flows.values()] == [
        "Planar",
        "Stack",
        "OrthogonalSylvester",
        "HouseholderSylvester",
        "TriangularSylvester",
    ]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("budget", ["full", "small"])
@pytest.mark.parametrize("name", ["sylvester-mnist", "sylvester-freyfaces"])
def test_every_row_of_a_sylvester_recipe_takes_a_step(name, budget, row, place):
    """On pictures of the right size, without the files."""
    recipe = read(name)
    options = {"width": 20, "levels": 256} if name == "sylvester-freyfaces" else {}
    tree = recipe.config(row, budget, recipe.repeats_of(budget)[0])
    data = {"class_path": "pictures_of_a_test.Pictures", "init_args": options}
    parts = schema.instantiate(schema.resolve(tree, {"data": data}))
    bounds = ELBO().per_datum(parts.model.model, parts.model.guide, parts.data.test.x)
    bounds.sum().backward()
    assert bounds.isfinite().all()
    assert all(parameter.grad is not None for parameter in parts.model.parameters())


def test_the_recipe_of_the_paper_has_three_splits_of_frey_faces():
    recipe = read("sylvester-freyfaces")
    configs = [schema.resolve(recipe.config("vae", "full", repeat)) for repeat in recipe.repeats_of("full")]
    assert [config.data.init_args.seed for config in configs] == [123, 321, 231]
    assert {config.model.init_args.likelihood.class_path for config in configs} == {
        "pyro_dgm.distributions.CategoricalLikelihood"
    }


@pytest.mark.parametrize("name", SYLVESTER)
def test_what_was_published_is_verified_only_where_it_was_read(name):
    for row, parts in read(name).rows.items():
        for key, entry in parts.published.items():
            assert entry.verified == ("1810.01367" in entry.source and row in ("vae", "planar", "iaf")), (row, key)
            assert entry.verified != ("recalled" in entry.source), (row, key)


def test_some_published_numbers():
    published = {name: {row: parts.published for row, parts in read(name).rows.items()} for name in SYLVESTER}
    assert str(published["sylvester-mnist"]["vae"]["negative_elbo"]) == "86.55 +- 0.06"
    assert str(published["sylvester-mnist"]["o-snf"]["nll"]) == "80.22 (recalled, unverified)"
    assert str(published["sylvester-omniglot"]["iaf"]["negative_elbo"]) == "102.41 +- 0.04"
    assert str(published["sylvester-caltech"]["h-snf"]["nll"]) == "93.82 (recalled, unverified)"
    assert str(published["sylvester-freyfaces"]["planar"]["negative_elbo_bits_per_dim"]) == "4.40 +- 0.06"


def test_the_digits_compare_posteriors_on_the_same_data():
    recipe = read("digits")
    assert {"gap", "nll_difference"} <= set(recipe.measures)
    configs = {row: schema.resolve(recipe.config(row, "full")) for row in [recipe.baseline, *ROWS[1:]]}
    assert {str(config.data) for config in configs.values()} == {str(configs[recipe.baseline].data)}
    assert "flow" not in configs[recipe.baseline].model.init_args.posterior.init_args
    assert all("flow" in configs[row].model.init_args.posterior.init_args for row in ROWS[1:])
