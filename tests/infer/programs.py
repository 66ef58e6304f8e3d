# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Every model of tests/cases.py with data, and a model around every flow, prior, posterior and dequantiser."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_dgm.distributions import FlowPosterior
from pyro_dgm.infer import ELBO, Objective, compiled
from pyro_dgm.models import VAE, HierarchicalVAE, ImageFlow
from pyro_dgm.nn import MLP
from tests import cases

LATENT = 5
OWN = {"shape": (8, 8), "levels": 2, "latent": LATENT, "encoder": partial(MLP, hidden=(16,))}
OWN["decoder"] = OWN["encoder"]


def black_and_white(rows: int = 6) -> Tensor:
    return (torch.rand(rows, 8, 8) < 0.3).to(torch.uint8)


def grey(rows: int = 6) -> Tensor:
    return torch.randint(0, 17, (rows, 8, 8)).to(torch.uint8)


Make = Callable[[], tuple[Any, Tensor]]


def _with_data(make: Callable[[], nn.Module], data: Callable[[], Tensor]) -> Make:
    return lambda: (make(), data())


def _posterior(flow: Any) -> Make:
    return _with_data(partial(VAE, **OWN, posterior=partial(FlowPosterior, context=6, flow=flow)), black_and_white)


def _image_flow(flow: Any, **options: Any) -> Make:
    return _with_data(partial(ImageFlow, shape=(8, 8), levels=17, flow=flow, **options), partial(grey, 3))


MODELS: dict[str, Make] = {
    **{
        name: _with_data(make, black_and_white if make.keywords["levels"] == 2 else grey)
        for name, make in cases.MODELS.items()
    },
    "HierarchicalVAE": _with_data(
        partial(HierarchicalVAE, shape=(8, 8), levels=2, latents=(4, 2), hidden=((8,), (8,))), black_and_white
    ),
    **{name: _with_data(make, lambda: torch.randn(6, 6)) for name, make in cases.FACTOR_MODELS.items()},
    **{
        name: _with_data(
            make, (lambda: torch.randint(0, 2, (6, 3, 2))) if "Bernoulli" in name else lambda: torch.randn(6, 2)
        )
        for name, make in cases.MIXTURES.items()
    },
    **{
        f"VAE ({name})": _with_data(partial(VAE, **OWN, prior=prior), black_and_white)
        for name, prior in cases.PRIORS.items()
    },
    **{
        f"VAE ({name})": _with_data(partial(VAE, **OWN, posterior=posterior), black_and_white)
        for name, posterior in cases.POSTERIORS.items()
        if not name.startswith("FlowPosterior")
    },
    **{
        f"ImageFlow ({name})": _image_flow(cases.IMAGE_TRANSFORMS["RealNVP"], dequantizer=make)
        for name, make in cases.DEQUANTIZERS.items()
    },
}

# Flows of images that go from noise to images, and all flows of vectors that a posterior can have.
FLOWS: dict[str, Make] = {
    **{
        name: _posterior(flow)
        for name, flow in cases.TRANSFORMS.items()
        if not name.startswith(("BatchNorm", "Permute"))
    },
    **{
        name: _image_flow(flow) for name, flow in cases.IMAGE_TRANSFORMS.items() if name.startswith(("Glow", "RealNVP"))
    },
}


def objective(bound=None, *, model=None, **options):
    model = model or VAE(**OWN)
    return Objective(model.model, model.guide, compiled(bound or ELBO(), backend="graph", **options))


def recordings(fast) -> int:
    return fast.captured.recorded
