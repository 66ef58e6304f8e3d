# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What cannot be captured runs as usual, with one warning that says where and why."""

import random
import re
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_dgm.infer import ELBO, Objective, compiled
from pyro_dgm.infer.captured import MOST
from tests.infer.programs import objective, recordings
from tests.infer.test_compiled import evaluate


def test_a_number_in_a_model_that_changes_is_noticed():
    class Warmed(PyroModule):
        def __init__(self):
            super().__init__()
            self.temperature = 1.0
            self.loc = nn.Parameter(torch.zeros(()))

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, self.temperature))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.loc, 1.0))

    model, x = Warmed(), torch.randn(5)
    fast, plain = objective(model=model), Objective(model.model, model.guide, ELBO())
    for temperature in (1.0, 2.0, 0.5):
        model.temperature = temperature
        torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
    assert recordings(fast) == 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(MOST):
            model.temperature = 3.0 + step
            torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
    assert recordings(fast) == MOST
    assert ["Warmed.temperature changes again and again" in str(warning.message) for warning in caught] == [True]


class Picky(PyroModule):
    """A program with a fault of one's choice."""

    def __init__(self, fault) -> None:
        super().__init__()
        self.fault, self.loc = fault, nn.Parameter(torch.zeros(()))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("angle", dist.Normal(0.0, 1.0))
            if self.fault == "branch" and z.mean() > 0:
                z = z * 1.5
            if self.fault == "chance":
                z = z + random.random()
            if self.fault == "size":
                z = z + z[z > 0].sum()
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            if self.fault == "rejection":
                pyro.sample("angle", dist.VonMises(self.loc, 2.0))
            else:
                pyro.sample("angle", dist.Normal(self.loc, 1.0))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("rejection", r"at the sample site 'angle' \(VonMises\): .*looks at numbers"),
        (
            "branch",
            r"after the sample site 'angle': test_uncaptured.py:\d+, `if self.fault .*`: it looks at numbers",
        ),
        ("size", "depends on numbers|looks at numbers"),
        ("chance", "its values differ by .* outside of torch's generators"),
    ],
)
def test_what_cannot_be_captured_runs_as_usual_with_one_warning(fault, says):
    model, x = Picky(fault), torch.randn(5)
    fast, plain = objective(model=model), Objective(model.model, model.guide, ELBO())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            random.seed(0)
            evaluate(fast, x)
            random.seed(0)
            ours = evaluate(fast, x)
            random.seed(0)
            torch.testing.assert_close(evaluate(plain, x), ours)
    (warning,) = caught
    assert re.search(says, str(warning.message)), warning.message


def test_an_error_of_the_program_is_the_program_s():
    fast = objective()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="shape"):
            fast(torch.zeros(3, 5, 5, dtype=torch.uint8))


def test_an_argument_that_is_no_tensor_and_no_number_is_named():
    class Bag:
        def __init__(self, x):
            self.x = x

    def model(bag, scale):
        with pyro.plate("data", len(bag.x)):
            pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(0.0)), scale), obs=bag.x)

    def guide(bag, scale):
        pass

    fast, bag = compiled(ELBO(), backend="graph"), Bag(torch.ones(3))
    with pytest.warns(UserWarning, match="argument of type Bag"):
        first = fast.differentiable_loss(model, guide, bag, 1.0)
    bag.x = torch.zeros(3)
    assert fast.differentiable_loss(model, guide, bag, 1.0) < first
