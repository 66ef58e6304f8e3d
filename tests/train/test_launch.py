# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A VAE trains through Lightning Fabric, is saved unwrapped, and continues to the bit."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.optim import Adam, Adamax

from pyro_dgm.data import Batches
from pyro_dgm.infer import ELBO, Objective
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP
from pyro_dgm.train import Interrupted, Trainer, Validation, gradient_step, launch_fabric, load_weights, schedule
from tests.train.tiny import rows

X = (torch.rand(60, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)


def vae() -> VAE:
    return VAE(shape=(4, 4), levels=2, latent=3, encoder=partial(MLP, hidden=(8,)), decoder=partial(MLP, hidden=(8,)))


@pytest.fixture(scope="module")
def fabric():
    return launch_fabric(accelerator="cpu")


def train(fabric, folder: Path, *, kind=Adamax, stop: int | None = None, resume: bool = False):
    model = vae()
    optimizer, scheduler = partial(kind, lr=0.01), schedule("MultiStepLR", milestones=[1])
    step = gradient_step(
        model.model, model.guide, ELBO(), fabric=fabric, optimizer=optimizer, scheduler=scheduler, clip_norm=5.0
    )
    done = [0]

    def stopping(batch):
        done[0] += 1
        if done[0] == stop:
            signal.raise_signal(signal.SIGINT)
        return objective(batch)

    objective, step.objective = step.objective, stopping
    trainer = Trainer(epochs=4, warmup_epochs=2, ema=0.9, log_every=3, tensorboard=False, progress=False)
    batches = Batches(X.to(fabric.device), batch_size=16)
    validate = Validation(step.module, X[:25].to(fabric.device), batch_size=10)
    return trainer.fit(step, batches, folder=folder, validate=validate, resume=resume), step


def test_it_learns_and_evaluation_finds_its_weights(fabric, tmp_path):
    torch.manual_seed(1)
    history, step = train(fabric, tmp_path / "run")
    losses = history.column("valid.loss")
    assert losses[-1] < losses[0]
    assert {"train.grad_norm", "train.log_p.x", "train.log_q.z", "valid.log_p.z"} <= set(history.epochs[0])
    assert history.column("lr") == pytest.approx([0.01, 0.001, 0.001, 0.001])
    assert step.beta == 1.0
    model = vae()
    load_weights(tmp_path / "run", Objective(model.model, model.guide, ELBO()))
    again = Validation(Objective(model.model, model.guide, ELBO()), X[:25], batch_size=10)()
    assert float(again["loss"]) == history.best_loss == min(losses[1:])


@pytest.mark.parametrize("kind", [Adam, Adamax])
def test_it_continues_to_the_bit(fabric, tmp_path, kind):
    torch.manual_seed(1)
    history, step = train(fabric, tmp_path / "a", kind=kind)
    torch.manual_seed(1)
    with pytest.raises(Interrupted):
        train(fabric, tmp_path / "b", kind=kind, stop=7)
    again, other = train(fabric, tmp_path / "b", kind=kind, resume=True)
    assert again == history
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    weights = other.module.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in step.module.state_dict().items())


def test_double_precision_is_carried_through():
    model = vae()
    step = gradient_step(model.model, model.guide, ELBO(), fabric=launch_fabric(accelerator="cpu", precision="64-true"))
    step(X[:5])
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float64}


def test_half_precision_is_refused():
    with pytest.raises(ValueError, match="overflows at 65504"):
        getattr(launch_fabric, "__wrapped__", launch_fabric)(precision="16-mixed")


def test_the_room_is_light_to_import():
    code = (
        "import sys, pyro_dgm.train; print([m for m in sys.modules if m.split('.')[0] in ('lightning', 'tensorboard')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
