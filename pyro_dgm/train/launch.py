# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Puts model and guide on devices, by Lightning Fabric, one process each, and makes a step of them."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_dgm.infer import Bound, GradientStep, Objective, compiled
from pyro_dgm.infer.bound import Program
from pyro_dgm.train.fuse import fuse

if TYPE_CHECKING:
    from lightning.fabric import Fabric
else:
    Fabric = Any

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
Precision = Literal["32-true", "64-true", "bf16-mixed"]
ScheduleFactory = Callable[[Optimizer], LRScheduler]


def launch_fabric(
    *,
    accelerator: str = "auto",
    devices: int | str = 1,
    precision: Precision = "32-true",
    strategy: str = "auto",
    num_nodes: int = 1,
) -> Fabric:
    """Start Lightning Fabric, and with it the other processes if several devices are asked for.

    Args:
        accelerator: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` for the best there is.
        devices: How many, one process each; ``"auto"`` for all.
        precision: ``"32-true"``, ``"64-true"``, or ``"bf16-mixed"``: networks multiply in bfloat16; weights, samples,
            log-densities, sums, and flows with the networks that they ask in both directions are in float32. Bounds
            of VAEs on MNIST are then off by less than 0.1 nats, and training is faster where networks are wide.
        strategy: How processes share the work: ``"ddp"``, or ``"auto"``, which is that for more than one.
        num_nodes: How many machines.

    Returns:
        The Fabric; its ``device`` is where this process's data belong.

    Raises:
        ValueError: If ``precision`` is another; log-densities of images do not fit into half precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(
            f"precision={precision!r}: sums of log-densities need '32-true', '64-true' or 'bf16-mixed'; half precision "
            f"overflows at 65504, which the log-density of one image can reach."
        )
    import lightning.fabric  # here, as it takes seconds

    fabric = lightning.fabric.Fabric(
        accelerator=accelerator, devices=devices, precision=precision, strategy=strategy, num_nodes=num_nodes
    )
    fabric.launch()
    return fabric


def gradient_step(
    model: Program,
    guide: Program,
    bound: Bound,
    *,
    fabric: Fabric | None = None,
    optimizer: OptimizerFactory = Adam,
    scheduler: ScheduleFactory | None = None,
    clip_norm: int | float | None = None,
    compile: bool = False,
) -> GradientStep:
    """Move model and guide to the Fabric's device, and make the step that raises a bound by gradients.

    Args:
        model: A Pyro program, a module's method.
        guide: Its guide.
        bound: What to maximise.
        fabric: From `launch_fabric`; one device that Fabric chooses, if not given.
        optimizer: Makes the optimiser from parameters. Torch's Adam has the
            learning rate 1e-3, which most published VAEs started from. Adam and AdamW are fused, see `fuse`, unless
            ``fused=False`` or ``foreach=...`` is among their options.
        scheduler: Makes the learning-rate schedule from the optimiser, e.g. `schedule`; it moves on by epochs.
        clip_norm: Largest norm of the gradient.
        compile: Whether to record the objective once and run it without Pyro; see `pyro_dgm.infer.compiled`.

    Returns:
        The step; its ``module`` is the unwrapped `Objective`, the weights of which are on the device.
    """
    fabric = launch_fabric() if fabric is None else fabric
    objective = Objective(model, guide, compiled(bound) if compile else bound)
    fabric.to_device(objective)
    made = optimizer(parameter for parameter in objective.parameters() if parameter.requires_grad)
    fuse(made)
    wrapped, wrapped_optimizer = fabric.setup(objective, made)
    return GradientStep(
        wrapped,
        wrapped_optimizer,
        clip_norm=clip_norm,
        scheduler=None if scheduler is None else scheduler(made),
        backward=fabric.backward,
        module=objective,
    )


def shard(fabric: Fabric, x: Tensor) -> Tensor:
    """Give each process its own share of the data, on its device; all shares have the same size.

    Args:
        fabric: From `launch_fabric`.
        x: All data, shape ``(N, *event)``.

    Returns:
        ``N // processes`` of them; up to ``processes - 1`` data are left out, as all must take equally many steps.
    """
    size = fabric.world_size
    return x[: len(x) // size * size][fabric.global_rank :: size].to(fabric.device)
