# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""NaN or infinite data among good ones are an error of closed-form steps, and no parameter becomes one."""

import copy
import math
from functools import partial

import pytest
import torch

from pyro_dgm.infer import EM, CoordinateAscent
from pyro_dgm.models import PPCA, BayesianMixture, FactorAnalysis, GaussianMixture, KMeans

STEPS = {
    "GaussianMixture": (partial(GaussianMixture, dim=2, components=3), EM),
    "KMeans": (partial(KMeans, dim=2, components=3), EM),
    "PPCA": (partial(PPCA, dim=2, latent=1), EM),
    "FactorAnalysis": (partial(FactorAnalysis, dim=2, latent=1), EM),
    "BayesianMixture": (partial(BayesianMixture, dim=2, components=3), CoordinateAscent),
}


@pytest.mark.parametrize("online", [None, (2, 0.7)])
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_they_do_not_reach_the_parameters(name, online, value):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 2, generator=generator, dtype=torch.float64) + 4 * (torch.arange(300) % 3)[:, None]
    make, kind = STEPS[name]
    model = make().double()
    model.start(x)
    step = kind(model, online=online, size=300)
    step(x[:100])
    before = copy.deepcopy(model.state_dict())
    spoilt = x[100:200].clone()
    spoilt[7, 1] = value

    def sweep():
        step(spoilt)
        step.epoch_end()

    with pytest.raises(ValueError, match=f"reached an objective of .* updates of {name}: are all data finite"):
        sweep()
    assert step.history.objectives == []
    if online is None:  # without a look at the objective first
        step(spoilt)
        with pytest.raises(ValueError, match="reached an objective of"):
            step.update()
    for key, old in before.items():
        assert torch.equal(model.state_dict()[key], old)
    step(x)
    step.epoch_end()
    assert all(found.isfinite().all() for found in model.state_dict().values())
