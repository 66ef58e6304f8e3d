# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Trains with two processes under Lightning Fabric; test_processes.py runs it as a program and reads what it left."""

import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import lightning.fabric  # noqa: F401 - imported once, before the processes fork
import torch
from torch import Tensor

from pyro_dgm.data import Batches
from pyro_dgm.infer import ELBO
from pyro_dgm.models import VAE
from pyro_dgm.nn import MLP
from pyro_dgm.train import Interrupted, NonFiniteLoss, Trainer, Validation, gradient_step, launch_fabric, shard

X = (torch.rand(41, 2, 2, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)
CODES = {NonFiniteLoss: 3, FileExistsError: 4}


def train(folder: Path, *, fault: str, resume: bool) -> None:
    """Train on this process's share of the data; something befalls the second process in its third step."""
    fabric = launch_fabric(accelerator="cpu", devices=2, strategy="ddp")
    torch.manual_seed(1)  # all processes begin with the same weights
    net = partial(MLP, hidden=(4,))
    vae = VAE(shape=(2, 2), levels=2, latent=2, encoder=net, decoder=net)
    step = gradient_step(vae.model, vae.guide, ELBO(), fabric=fabric, compile=fault == "compiled")
    objective, done = step.objective, []

    def objective_with_fault(batch: Tensor) -> dict[str, Tensor]:
        done.append(len(batch))
        if len(done) == 3 and fabric.global_rank == 1:
            if fault == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            if fault == "nan":
                torch.nn.init.constant_(next(iter(vae.parameters())), float("nan"))
        return objective(batch)

    step.objective = objective_with_fault  # type: ignore[assignment]
    share = shard(fabric, X)
    batches = Batches(share, batch_size=4, seed=fabric.global_rank)
    trainer = Trainer(epochs=3, ema=0.9, warmup_steps=6, log_every=2, progress=False, tensorboard=False)
    trainer.fit(step, batches, folder=folder, validate=Validation(step.module, X), resume=resume)
    weights = {name: value.tolist() for name, value in step.module.state_dict().items()}
    (folder / f"rank-{fabric.global_rank}").write_text(f"{len(share)} {len(done)} {weights}")


def processes(folder: Path, fault: str = "", *, resume: bool = False) -> list[int]:
    """Fork two processes, as torchrun would start them, and give their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [fork(rank, port, partial(train, folder, fault=fault, resume=resume)) for rank in range(2)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def fork(rank: int, port: int, action: partial[None]) -> int:
    """Run an action in a child process of a rank, which exits with a status that tells how it ended."""
    child = os.fork()
    if child:
        return child
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "1"}
    status = 1
    try:
        action()
        status = 0
    except Interrupted as stop:
        status = stop.exit_code
    except tuple(CODES) as error:
        status = CODES[type(error)]
    finally:
        os._exit(status)


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    found = [processes(root / "whole"), processes(root / "whole"), processes(root / "nan", "nan")]
    found += [processes(root / "stopped", "interrupt"), processes(root / "stopped", resume=True)]
    found += [processes(root / "compiled", "compiled")]
    print(found)
