# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What may change between the calls of a compiled bound, and what makes a new recording."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from pyro_dgm.distributions import FlowPosterior, FlowPrior
from pyro_dgm.infer import ELBO, IWAE, Capacity, Objective
from pyro_dgm.models import VAE, ImageFlow
from pyro_dgm.transforms import ActNorm, BatchNorm, Glow, Invert
from tests import cases
from tests.infer.programs import OWN, black_and_white, grey, objective, recordings
from tests.infer.test_compiled import assert_equal, evaluate


class Dropped(nn.Module):
    """A network that drops units, and one that averages over batches."""

    def __init__(self, in_shape, out_shape) -> None:
        super().__init__()
        self.in_shape, self.out_shape = in_shape, out_shape
        size, out = torch.Size(in_shape).numel(), torch.Size(out_shape).numel()
        self.layers = nn.Sequential(
            nn.Linear(size, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, out)
        )

    def forward(self, x):
        batch = x.shape[: x.dim() - len(self.in_shape)]
        return self.layers(x.reshape(batch.numel(), -1).float()).reshape(*batch, *self.out_shape)


def test_noise_differs_from_call_to_call_and_is_set_by_a_seed():
    fast, x = objective(), black_and_white()
    torch.manual_seed(3)
    first = [fast(x)["loss"].detach() for _ in range(4)]
    assert len({float(loss) for loss in first}) == 4
    torch.manual_seed(3)
    assert [fast(x)["loss"].detach() for _ in range(4)] == first
    assert recordings(fast) == 1


def test_recording_leaves_the_random_stream_where_one_call_leaves_it():
    model, x = VAE(**OWN), black_and_white()
    fast, plain = objective(model=model), Objective(model.model, model.guide, ELBO())
    states = []
    for one in (plain, fast, fast):
        torch.manual_seed(0)
        one(x)
        states.append(torch.get_rng_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


@pytest.mark.parametrize("weight", ["beta", "capacity"])
def test_annealing_does_not_record_anew(weight):
    bound = ELBO(2, kl=Capacity(1.0, weight=2.0)) if weight == "capacity" else ELBO(2)
    model, x = VAE(**OWN), black_and_white()
    fast, plain = objective(bound, model=model), Objective(model.model, model.guide, bound)
    tensor = bound.kl.nats if weight == "capacity" else bound.beta
    for value in (0.0, 0.3, 1.0, 2.5):
        tensor.fill_(value)
        torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
    bound.beta = torch.tensor(0.7, dtype=torch.float64)  # another tensor in its place
    torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
    assert recordings(fast) == 1


def test_weights_are_looked_up_at_each_call():
    model, x = VAE(**OWN), black_and_white()
    fast, plain = objective(model=model), Objective(model.model, model.guide, ELBO())
    fast(x)
    model.load_state_dict(VAE(**OWN).state_dict())
    torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    owner = next(module for module in model.modules() if isinstance(module, nn.Linear))
    owner.weight = nn.Parameter(owner.weight.detach() * 2)
    torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
    assert recordings(fast) == 1


def test_what_makes_a_new_recording():
    model, x = VAE(**OWN), black_and_white()
    fast, plain = objective(model=model), Objective(model.model, model.guide, ELBO())
    changes = [
        lambda: None,
        lambda: model.eval(),
        lambda: next(model.parameters()).requires_grad_(False),
        lambda: model.double(),
    ]
    for number, change in enumerate(changes, 1):
        change()
        torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
        assert recordings(fast) == number
    evaluate(fast, x[:4])  # a ragged last batch
    with torch.no_grad():
        fast(x)
    assert recordings(fast) == len(changes) + 2
    evaluate(fast, x)
    evaluate(fast, x[:4])
    assert recordings(fast) == len(changes) + 2


def test_a_part_that_was_exchanged_makes_a_new_recording():
    model, x = VAE(**OWN), black_and_white()
    fast, plain = objective(model=model), Objective(model.model, model.guide, ELBO())
    fast(x)
    model.likelihood = VAE(**OWN).likelihood
    name, part = next((name, part) for name, part in model.named_children() if list(part.parameters()))
    setattr(
        model,
        name,
        copy.deepcopy(part).apply(lambda module: [p.data.mul_(2) for p in module.parameters(recurse=False)]),
    )
    torch.manual_seed(1)
    after = fast(x)["loss"]
    torch.manual_seed(1)
    torch.testing.assert_close(after, plain(x)["loss"])
    assert recordings(fast) == 2


def test_dropout_and_averages_over_batches():
    options = {**OWN, "encoder": Dropped, "decoder": Dropped}
    model, x = VAE(**options), black_and_white()
    twin = copy.deepcopy(model)
    fast, plain = objective(model=model), Objective(twin.model, twin.guide, ELBO())
    for seed in (1, 2, 3):  # the first call, too: a rehearsal leaves no trace in averages
        torch.testing.assert_close(evaluate(fast, x, seed), evaluate(plain, x, seed))
        torch.testing.assert_close(model.state_dict(), twin.state_dict())
    model.eval(), twin.eval()
    torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
    assert recordings(fast) == 2


def test_flows_with_averages_over_batches():
    for flow in (BatchNorm, ActNorm, lambda dim: Invert(BatchNorm(dim))):
        model = VAE(**OWN, prior=partial(FlowPrior, flow=flow))
        twin, x = copy.deepcopy(model), black_and_white()
        fast, plain = objective(model=model), Objective(twin.model, twin.guide, ELBO())
        for seed in (1, 2, 3):
            torch.testing.assert_close(evaluate(fast, x, seed), evaluate(plain, x, seed), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=1e-4, atol=1e-4)


def test_act_norm_starts_from_the_first_batch_and_its_flag_is_kept():
    glow = partial(Glow, scales=1, depth=1, net=cases.SMALL_CONV)
    model = ImageFlow(shape=(8, 8), levels=17, flow=glow)
    twin, x = copy.deepcopy(model), grey()
    fast, plain = objective(model=model), Objective(twin.model, twin.guide, ELBO())
    torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
    flags = [buffer for name, buffer in model.named_buffers() if name.endswith("initialized")]
    assert flags
    assert all(map(bool, flags))
    model.load_state_dict(twin.state_dict())  # after which ActNorm looks at its flag once more
    torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x), rtol=1e-4, atol=1e-4)


def test_mixed_precision():
    model, x = VAE(**OWN), black_and_white()
    fast, plain = objective(model=model), Objective(model.model, model.guide, ELBO())
    evaluate(fast, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
        torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
    torch.testing.assert_close(evaluate(fast, x), evaluate(plain, x))
    assert recordings(fast) == 2


def test_copies_and_pickles_record_for_themselves():
    fast, x = objective(), black_and_white()
    fast(x)
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert recordings(twin) == 0
        torch.testing.assert_close(evaluate(twin, x), evaluate(fast, x))
        assert all(a is not b for a, b in zip(twin.parameters(), fast.parameters(), strict=True))


def test_amortised_flows_and_several_particles():
    options = {**OWN, "posterior": partial(FlowPosterior, context=6, flow=cases.TRANSFORMS["Stack"])}
    assert_equal(VAE(**options), black_and_white(), IWAE(5, gradient="dreg"), backend="graph")
