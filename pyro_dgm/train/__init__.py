# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Time: repeats a step, and looks after schedules, devices, files, interruptions and continuation."""

from pyro_dgm.train.checkpoint import Checkpoint
from pyro_dgm.train.comparison import compare_mixtures
from pyro_dgm.train.early_stopping import EarlyStopping
from pyro_dgm.train.errors import CheckpointError, Interrupted, NonFiniteLoss
from pyro_dgm.train.history import History
from pyro_dgm.train.launch import gradient_step, launch_fabric, shard
from pyro_dgm.train.load_weights import load_weights
from pyro_dgm.train.mixture_fit import Curve, MixtureFit
from pyro_dgm.train.moving_average import ExponentialMovingAverage
from pyro_dgm.train.schedule import schedule
from pyro_dgm.train.step import Feed, Step
from pyro_dgm.train.timed_step import TimedStep
from pyro_dgm.train.trainer import Trainer
from pyro_dgm.train.validation import Validation
from pyro_dgm.train.warmup import Warmup

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Curve",
    "EarlyStopping",
    "ExponentialMovingAverage",
    "Feed",
    "History",
    "Interrupted",
    "MixtureFit",
    "NonFiniteLoss",
    "Step",
    "TimedStep",
    "Trainer",
    "Validation",
    "Warmup",
    "compare_mixtures",
    "gradient_step",
    "launch_fabric",
    "load_weights",
    "schedule",
    "shard",
]
