# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What may change between the calls of a compiled bound, what makes a new recording, and what cannot be captured."""

import copy
import pickle
import random
import re
import warnings
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_dgm.distributions import FlowPosterior, FlowPrior
from pyro_dgm.infer import ELBO, IWAE, Capacity, GradientStep, Objective, compiled
from pyro_dgm.infer.captured import MOST
from pyro_dgm.models import VAE, FlowModel, ImageFlow
from pyro_dgm.transforms import ActNorm, BatchNorm, Glow, Invert
from tests import cases
from tests.infer.programs import OWN, black_and_white, grey
from tests.infer.test_compiled import assert_equal, evaluate


def objective(bound=None, *, model=None, **options):
    model = model or VAE(**OWN)
    return Objective(model.model, model.guide, compiled(bound or ELBO(), backend="graph", **options))


def recordings(fast) -> int:
    return fast.captured.recorded


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


def test_subsampled_plates_draw_anew():
    loc = nn.Parameter(torch.zeros(()))

    class Sub(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = loc

        def model(self, x):
            with pyro.plate("data", len(x), subsample_size=4) as index:
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

        def guide(self, x):
            with pyro.plate("data", len(x), subsample_size=4):
                pyro.sample("z", dist.Normal(self.loc, 1.0))

    assert_equal(Sub(), torch.randn(20), IWAE(3), backend="graph")


def test_parameter_statements_train_under_svi():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, pyro.param("s", torch.tensor(2.0), dist.constraints.positive)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = pyro.param("a", torch.tensor(0.1)) * x + pyro.param("b", torch.tensor(0.0))
            pyro.sample("z", dist.Normal(loc, pyro.param("c", torch.tensor(1.0), dist.constraints.positive)))

    x, ends = torch.randn(8), []
    for make in (ELBO, partial(IWAE, 3), Trace_ELBO, TraceMeanField_ELBO):
        for wrap in (lambda bound: bound, partial(compiled, backend="graph")):
            pyro.clear_param_store()
            torch.manual_seed(0)
            model(x), guide(x)
            torch.manual_seed(0)
            svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), wrap(make()))
            losses = [svi.step(x) for _ in range(5)]
            torch.manual_seed(5)
            ends.append([*losses, svi.evaluate_loss(x), *(pyro.param(name).item() for name in "absc")])
        assert ends[-1] == pytest.approx(ends[-2], rel=1e-4)
        assert ends[-1][-4:] != [0.1, 0.0, 2.0, 1.0]


def test_parameters_that_were_cleared_are_made_anew():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0), obs=x)

    def guide(x):
        pass

    fast, x = compiled(ELBO(), backend="graph"), torch.ones(4)
    svi = SVI(model, guide, pyro.optim.SGD({"lr": 0.01}), fast)
    before = [svi.step(x) for _ in range(3)]
    pyro.clear_param_store()
    svi = SVI(model, guide, pyro.optim.SGD({"lr": 0.01}), fast)
    assert [svi.step(x) for _ in range(3)] == before


def test_svi_of_a_module():
    ends = []
    for wrap in (lambda bound: bound, partial(compiled, backend="graph")):
        pyro.clear_param_store()
        torch.manual_seed(0)
        vae = VAE(**OWN)
        x = black_and_white()
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), wrap(ELBO()))
        ends.append([svi.step(x) for _ in range(4)])
    assert ends[1] == pytest.approx(ends[0], rel=1e-5)


def test_bounds_of_pyro_without_a_differentiable_loss_are_refused():
    with pytest.raises(TypeError, match="RenyiELBO.*IWAE"):
        compiled(RenyiELBO())
    with pytest.raises(ValueError, match="already"):
        compiled(compiled(ELBO()))
    with pytest.raises((ValueError, TypeError), match="fast"):
        compiled(ELBO(), backend="fast")


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
            r"after the sample site 'angle': test_compiled_in_use.py:\d+, `if self.fault .*`: it looks at numbers",
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


class Names(pyro.poutine.messenger.Messenger):
    def __init__(self):
        super().__init__()
        self.met = set()

    def _pyro_sample(self, msg):
        self.met.add(msg["name"])


def test_handlers_around_a_call_see_every_site():
    vae, x = VAE(**OWN), black_and_white()
    fast = compiled(ELBO(), backend="graph")
    for _ in range(2):
        with Names() as names:
            fast.differentiable_loss(vae.model, vae.guide, x)
        assert names.met == {"data", "z", "x"}
    scaled = pyro.poutine.scale(vae.model, 2.0), pyro.poutine.scale(vae.guide, 2.0)
    torch.manual_seed(0)
    ours = fast.differentiable_loss(*scaled, x)
    torch.manual_seed(0)
    torch.testing.assert_close(ours, ELBO().differentiable_loss(*scaled, x))


def test_values_without_gradients():
    vae, x = VAE(**OWN), black_and_white()
    fast, bound = compiled(IWAE(4), backend="graph"), IWAE(4)
    for method in ("loss", "per_datum"):
        for _ in range(2):
            with torch.no_grad():
                torch.manual_seed(0)
                ours = getattr(fast, method)(vae.model, vae.guide, x)
                torch.manual_seed(0)
                torch.testing.assert_close(ours, getattr(bound, method)(vae.model, vae.guide, x))
    assert fast.per_datum(vae.model, vae.guide, x).requires_grad


def test_the_gradient_of_a_value_is_given_once():
    vae = VAE(**OWN)
    loss = compiled(ELBO(), backend="graph")(vae.model, vae.guide)(black_and_white())
    (3 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_gradients_are_scaled_and_added_up():
    vae, x = VAE(**OWN), black_and_white()
    module, plain = compiled(ELBO(), backend="graph")(vae.model, vae.guide), ELBO()(vae.model, vae.guide)
    for seed in (1, 2):
        torch.manual_seed(seed)
        (-2 * module(x)).backward()
    ours = [parameter.grad.clone() for parameter in vae.parameters()]
    vae.zero_grad()
    for seed in (1, 2):
        torch.manual_seed(seed)
        (-2 * plain(x)).backward()
    torch.testing.assert_close(ours, [parameter.grad for parameter in vae.parameters()])


def test_data_with_gradients():
    flow = FlowModel(shape=(3,), flow=cases.TRANSFORMS["MaskedAutoregressive"])
    fast, x = compiled(ELBO(), backend="graph"), torch.randn(5, 3)
    grads = []
    for bound in (ELBO(), fast, fast):
        leaf = x.clone().requires_grad_()
        bound.differentiable_loss(flow.model, flow.guide, leaf).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[1:], [grads[0], grads[0]])


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


def test_a_compiled_bound_has_what_the_bound_has():
    bound = compiled(IWAE(3, beta=0.5))
    assert (bound.num_particles, float(bound.beta)) == (3, 0.5)
    step = GradientStep(objective(IWAE(3)), torch.optim.Adam(nn.ParameterList([nn.Parameter(torch.zeros(1))])))
    assert float(step.beta) == 1
    with pytest.raises(AttributeError, match="nothing"):
        _ = bound.nothing


def test_amortised_flows_and_several_particles():
    options = {**OWN, "posterior": partial(FlowPosterior, context=6, flow=cases.TRANSFORMS["Stack"])}
    assert_equal(VAE(**options), black_and_white(), IWAE(5, gradient="dreg"), backend="graph")
