# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Training by a compiled bound: the same curves, constant memory, and a whole step as one graph."""

import copy
import gc
import resource
from functools import partial

import pytest
import torch
from torch import nn

from pyro_dgm.data import Digits
from pyro_dgm.infer import ELBO, IWAE, GradientStep, Objective, compiled
from pyro_dgm.infer.whole_step import WARM_UP
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP
from pyro_dgm.train import Trainer, gradient_step, launch_fabric
from tests.infer.programs import OWN, black_and_white
from tests.infer.test_compiled import BACKENDS

TINY = {
    "shape": (8, 8),
    "levels": 2,
    "latent": 4,
    "encoder": partial(MLP, hidden=(16,)),
    "decoder": partial(MLP, hidden=(16,)),
}


def losses(bound, batches, *, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    vae = VAE(**TINY)
    objective = Objective(vae.model, vae.guide, bound)
    step = GradientStep(objective, torch.optim.Adam(objective.parameters(), lr=2e-3), clip_norm=50.0)
    return torch.stack([step(x)["loss"] for x in batches])


@pytest.mark.parametrize("backend", BACKENDS)
def test_500_steps_give_the_same_curve(backend: str) -> None:
    data = Digits(binarization="dynamic")
    batches = [x for _ in range(50) for x in list(data.batches(batch_size=130))[:10]]
    assert len(batches) == 500
    plain = losses(IWAE(3), batches)
    fast = losses(compiled(IWAE(3), backend=backend), batches)
    assert plain[-50:].mean() < plain[:50].mean() - 5  # something was learned
    other = losses(IWAE(3), batches, seed=1)[-250:].mean()
    error = (fast - plain)[-250:].std() / 250**0.5
    assert (fast - plain)[:100].abs().max() < 0.01  # the same noise: curves part by rounding only
    assert (fast - plain)[-250:].mean().abs() < 5 * error + 1e-3
    assert (fast - plain)[-250:].mean().abs() < (other - plain[-250:].mean()).abs()


def test_memory_does_not_grow_over_10000_steps() -> None:
    torch.manual_seed(0)
    vae, x = VAE(**{**TINY, "encoder": partial(MLP, hidden=()), "decoder": partial(MLP, hidden=())}), black_and_white(2)
    objective = Objective(vae.model, vae.guide, compiled(ELBO(), backend=BACKENDS[-1]))
    step = GradientStep(objective, torch.optim.SGD(objective.parameters(), lr=1e-4))

    def held() -> tuple[int, int]:
        gc.collect()
        tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        return tensors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for _ in range(1000):
        step(x)
    tensors, most = held()
    for _ in range(9000):
        step(x)
    after, later = held()
    assert after <= tensors
    assert later - most < 4096  # kilobytes: a tenth of what one lost tensor for each step would take


class Repeatable(torch.optim.SGD):
    """An optimiser that says that it can be captured, on the CPU too."""

    def __init__(self, parameters, lr) -> None:
        super().__init__(parameters, lr=lr, momentum=0.9)
        for group in self.param_groups:
            group["capturable"] = False


class Stage:
    """Stands in for a CUDA graph: what is recorded has no effect, and is done again at every replay."""

    def __init__(self, *owners) -> None:
        self.owners, self.recorded, self.replayed = owners, 0, 0

    def tensors(self):
        module, optimizer = self.owners
        state = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
        return [*module.parameters(), *module.buffers(), *state]

    def __call__(self, body):
        before, chance = [t.detach().clone() for t in self.tensors()], torch.get_rng_state()
        terms = body()
        with torch.no_grad():
            for tensor, value in zip(self.tensors(), before, strict=True):
                tensor.copy_(value)
        torch.set_rng_state(chance)
        self.recorded += 1

        def replay():
            self.replayed += 1
            for name, value in body().items():
                terms[name].copy_(value.detach())

        return replay, terms


def staged(seed: int, *, whole: bool):
    torch.manual_seed(seed)
    vae = VAE(**OWN)
    objective = Objective(vae.model, vae.guide, compiled(ELBO(2), backend="graph"))
    optimizer = Repeatable(objective.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    step = GradientStep(objective, optimizer, clip_norm=20.0, scheduler=scheduler)
    if whole:
        step.whole.recorder = Stage(objective, optimizer)
        step.whole.device_type = "cpu"
        step.whole.prepare()
    return step


def test_a_whole_step_is_the_step() -> None:
    """Schedules, annealing, ragged batches, validation, exchanged weights and loaded states between replays."""
    torch.manual_seed(0)
    batches = [black_and_white(6 if turn % 5 else 4) for turn in range(40)]
    ends, shown = [], []
    for whole in (False, True):
        step, terms = staged(0, whole=whole), []
        torch.manual_seed(1)
        for turn, x in enumerate(batches):
            step.beta.fill_(min(1.0, turn / 20))
            terms.append({name: value.clone() for name, value in step(x).items()})
            if turn % 10 == 9:
                step.epoch_end()
                step.module.eval()
                with torch.no_grad():
                    step.module(x[:3])
                step.module.train()
            if turn == 25:
                step.load_state_dict(copy.deepcopy(step.state_dict()))
            if turn == 30:  # another tensor in the place of a weight: what was recorded writes to the old one
                layer = next(module for module in step.module.modules() if isinstance(module, nn.Linear))
                layer.weight.data = layer.weight.detach().clone()
        ends.append(step.module.state_dict())
        shown.append(terms)
    torch.testing.assert_close(ends[1], ends[0])
    torch.testing.assert_close(shown[1], shown[0])
    stage = step.whole.recorder
    assert stage.recorded == 4  # two shapes, one anew after the loaded state, and after the exchanged weight
    assert stage.replayed > 40 - 6 * (WARM_UP + 1)


def test_what_a_graph_cannot_hold_is_stepped_as_usual() -> None:
    def refuse(body):
        raise RuntimeError("operation not permitted when stream is capturing")

    step = staged(0, whole=True)
    step.whole.recorder = refuse
    x = black_and_white()
    for _ in range(WARM_UP):
        step(x)
    with pytest.warns(UserWarning, match="no CUDA graph: operation not permitted"):
        assert step(x)["loss"].isfinite()
    assert step(x)["loss"].isfinite()


def test_steps_on_every_device(device: torch.device) -> None:
    """On a GPU all but the first steps are replays of one CUDA graph, noise included."""
    ends = []
    for make in (lambda bound: bound, compiled):
        torch.manual_seed(0)
        vae = VAE(**TINY).to(device)
        objective = Objective(vae.model, vae.guide, make(IWAE(3)))
        step = GradientStep(objective, torch.optim.Adam(objective.parameters(), lr=1e-3), clip_norm=50.0)
        x = black_and_white(50).to(device)
        torch.manual_seed(1)
        found = []
        for turn in range(30):
            step.beta.fill_(min(1.0, (turn + 1) / 10))
            found.append(step(x)["loss"].clone())
        ends.append(torch.stack(found).cpu())
    assert len(set(ends[1].tolist())) == 30
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-3, atol=1e-2)
    if device.type == "cuda":
        assert step.whole._recorded


def test_a_run_that_is_compiled_continues_to_the_bit(tmp_path) -> None:
    """As from a kill: a new process records anew, and must go on with the very numbers."""

    def run(folder, *, epochs: int, resume: bool = False):
        torch.manual_seed(0)
        vae, data = VAE(**TINY), Digits(binarization="dynamic")
        fabric = launch_fabric(accelerator="cpu")
        step = gradient_step(vae.model, vae.guide, ELBO(), fabric=fabric, compile=True)
        trainer = Trainer(epochs=epochs, warmup_epochs=1, progress=False, tensorboard=False)
        trainer.fit(step, data.batches(batch_size=400), folder=folder, resume=resume)
        return vae.state_dict()

    whole = run(tmp_path / "whole", epochs=3)
    run(tmp_path / "parts", epochs=1)
    parts = run(tmp_path / "parts", epochs=3, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.values(), parts.values(), strict=True))
