# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A step and a feed that are as small as can be, but have all that a real one has: noise, state, terms, a schedule."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_dgm.train import Trainer
from pyro_dgm.train.metrics import TIMES


class TinyStep:
    """Fits a linear map to noisy data with Adam, a schedule and a weighed penalty."""

    def __init__(self, seed: int = 1, *, size: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.module = nn.Sequential(nn.Linear(size, size), nn.BatchNorm1d(size))
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, milestones=[1, 3], gamma=0.5)
        self.beta = torch.tensor(1.0, dtype=torch.float64)
        self.betas: list[float] = []
        self.before: Callable[[int], None] = lambda step: None
        """Called with the number of the step, counted from 1, before it is done."""

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        self.betas.append(float(self.beta))
        self.before(len(self.betas))
        self.optimizer.zero_grad()
        noise = 0.1 * torch.randn(batch.shape)
        fit = (self.module(batch + noise) - batch.flip(1)).square().sum(1).mean()
        penalty = sum(p.square().sum() for p in self.module.parameters())
        loss = fit + self.beta * 0.01 * penalty
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach(), "log_p.x": -fit.detach(), "log_q.z": penalty.detach()}

    @property
    def lr(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def epoch_end(self) -> None:
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


class TinyFeed:
    """Shuffles 20 data into 4 batches, the last one ragged, anew in each epoch."""

    def __init__(self, *, size: int = 3) -> None:
        self.x = torch.randn(20, size, generator=torch.Generator().manual_seed(0))
        self.num_data, self.epoch, self.position = 20, 0, 0

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(20, generator=torch.Generator().manual_seed(self.epoch))
        for chosen in order.split(6)[self.position :]:
            self.position += 1
            yield self.x[chosen]
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


def tiny_trainer(**options: Any) -> Trainer:
    """A trainer with everything on that has state."""
    settings: dict[str, Any] = {"epochs": 5, "warmup_epochs": 2, "ema": 0.9, "log_every": 3, "tensorboard": False}
    return Trainer(**{**settings, "progress": False, **options})


def tiny_validation(step: TinyStep) -> Callable[[], dict[str, Tensor]]:
    """The loss on data of its own, without noise."""
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(9))
    return lambda: {"loss": (step.module(x) - x.flip(1)).square().sum(1).mean()}


def rows(folder: Path) -> list[dict[str, str]]:
    """What metrics.csv says but for the times."""
    with (folder / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def run_program(module: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a test program in a process of its own, which ends well; it has no GPU, as it forks."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        [sys.executable, "-m", module, str(folder)],
        cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended
