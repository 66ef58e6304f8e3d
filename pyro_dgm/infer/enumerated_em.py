# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Expectation maximisation for any Pyro program whose latent variables can be enumerated: no formulas needed."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_dgm.infer.em_history import EMHistory
from pyro_dgm.infer.expected import Expected
from pyro_dgm.infer.local_parameters import Program, owners
from pyro_dgm.infer.maximization import Surrogate, maximize
from pyro_dgm.infer.one_process import require_one_process
from pyro_dgm.infer.program_parameters import ProgramParameter, ProgramShape, read_program


class EnumeratedEM:
    r"""A sweep of EM for a Pyro program, as a step of training: a batch adds its E-step, the epoch's end maximises.

    .. math:: q(z) = p(z \mid x, \theta_t), \qquad
              \theta_{t+1} = \arg\max_\theta \; E_q[\log p(x, z \mid \theta)] + \log p(\theta)

    The E-step is exact: every discrete latent variable is summed out, in plates and `pyro.markov` chains too. No guide
    is needed. Parameters (`pyro.param`, `PyroParam`, ``nn.Parameter``) are fitted by maximum likelihood, continuous
    variables outside the plates over data by their posterior's mode (MAP, in the density of the variable itself).

    The M-step goes parameter by parameter, means first. Where the expected log-density has the shape of an exponential
    family it jumps to the maximum (see `pyro_dgm.infer.closed_forms`); a jump counts only if the gradient is zero
    there and the expectation has not fallen. The other parameters climb together by L-BFGS, and never down
    (generalised EM). ``ways`` tells which parameter went which way. In exact arithmetic the objective cannot fall.

    Data are what hidden variables are of: the plates over data enclose observed sites and discrete variables (see
    `pyro_dgm.infer.data_plates`); in other plates, over features say, are parts of a datum.

    The M-step needs all data of the sweep, so their batches and tables of posterior probabilities are kept until it:
    batches do not bound the memory (``online`` does, and so does `EM` for models that have formulas), and a state from
    the middle of a sweep has the data in it, as do checkpoints of training; between sweeps it has none.

    Args:
        model: A Pyro program, a module, or a module's method.
        *args: Data to run it on once, to see what it is made of: a batch will do.
        start: Values to start from, by name; else parameters start as they are, and variables where the prior draws.
        closed_forms: Whether to look for closed forms; if not, all climb by gradients.
        gradient_steps: Steps of L-BFGS in an M-step.
        online: Makes an optimiser of a list of tensors, e.g. ``partial(torch.optim.Adam, lr=0.01)``: every batch is
            then one E-step and one gradient step on its expected log-density.
        size: With ``online``, the number of data that there are, against which priors count.
        **kwargs: The program's arguments by keyword.

    Raises:
        ValueError: If a latent variable cannot be summed out, nothing is to be estimated, a setting is out of its
            range, ``online`` comes without ``size``, or there are several processes.

    Source: Dempster, Laird & Rubin (JRSS B 1977), sections 2 and 3; Meng & Rubin (Biometrika 1993), on parameters one
    by one; Neal & Hinton (1998), section 2.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     p = pyro.param("p", torch.tensor([0.5, 0.5]), constraint=dist.constraints.simplex)
    ...     rate = pyro.param("rate", torch.tensor([1.0, 5.0]), constraint=dist.constraints.positive)
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Categorical(p))
    ...         pyro.sample("x", dist.Poisson(rate[z]), obs=x)
    >>> x = torch.tensor([0.0, 1, 0, 2, 1, 9, 12, 8, 11])
    >>> step = EnumeratedEM(model, x)
    >>> history = step.fit(x)
    >>> history.monotone, history.converged, step.ways
    (True, True, {'p': 'closed form: probabilities', 'rate': 'closed form: rate or precision'})
    >>> step.values["rate"].round(decimals=1)
    tensor([ 0.8000, 10.0000])
    >>> pyro.clear_param_store()
    """

    def __init__(
        self,
        model: Program,
        *args: Any,
        start: Mapping[str, Tensor] | None = None,
        closed_forms: bool = True,
        gradient_steps: int = 10,
        online: Callable[[list[Tensor]], Optimizer] | None = None,
        size: int | None = None,
        **kwargs: Any,
    ) -> None:
        require_one_process("EnumeratedEM")
        if gradient_steps < 1 or (size is not None and size < 1):
            raise ValueError(f"EnumeratedEM got gradient_steps={gradient_steps}, size={size}: each must be at least 1.")
        if online is not None and size is None:
            raise ValueError("EnumeratedEM got online without size: give size=len(data), to weigh batches by it.")
        self.model, self.closed_forms, self.gradient_steps, self.size = model, closed_forms, gradient_steps, size
        self._first = (args, kwargs)
        self.program: ProgramShape = read_program(model, args, kwargs, start=start or {})
        self.module = _module(model, self.parameters)
        self.optimizer = None if online is None else online([parameter.leaf for parameter in self.parameters])
        self.history = EMHistory(slack=1000 * torch.finfo(self.parameters[0].leaf.dtype).eps)
        self.ways: dict[str, str] = {}
        self._pending: list[Expected] = []
        self._seen: int | None = None

    @property
    def parameters(self) -> list[ProgramParameter]:
        """What is estimated."""
        return self.program.parameters

    @property
    def values(self) -> dict[str, Tensor]:
        """The estimates by name; `pyro.condition` on those of variables gives the fitted program."""
        return {parameter.name: parameter.value().detach().clone() for parameter in self.parameters}

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        """Take a batch in: the E-step, and online a gradient step.

        Args:
            batch: The program's only argument.

        Returns:
            ``loss``: the batch's mean of -log p(x) in nats per datum, by the parameters before the step.
        """
        found = self._expect((batch,), {})
        if self.optimizer is None:
            self._add(found)
        else:
            self._follow(found)
        return {"loss": -found.log_likelihood / found.count}

    def fit(self, *args: Any, sweeps: int = 100, tolerance: int | float = 1e-6, **kwargs: Any) -> EMHistory:
        """Sweep over all data until a sweep gains less than the tolerance.

        Args:
            *args: The program's arguments: all data.
            sweeps: At most so many M-steps.
            tolerance: Stop when a sweep gains no more than this, in nats per datum.
            **kwargs: The program's arguments by keyword.

        Returns:
            The objective after each sweep, whether it ever fell, and why; its last value is that of the parameters now.

        Raises:
            ValueError: If a setting is out of its range, or the objective is not finite.
        """
        if sweeps < 0 or tolerance < 0 or self.optimizer is not None:
            raise ValueError(
                f"EnumeratedEM.fit got sweeps={sweeps}, tolerance={tolerance}, which must not be negative, and works "
                f"without online=; online, call the step batch by batch."
            )
        history = self.history = EMHistory(slack=self.history.slack)
        for number in range(sweeps + 1):
            self._pending = []
            self._add(self._expect(args, kwargs))
            self.evaluate()
            history.converged = history.gain <= tolerance and not history.falls
            if history.gain <= tolerance or number == sweeps:
                break
            self.maximize()
        self._pending = []
        return history

    def epoch_end(self) -> None:
        """Finish the sweep: note the objective and make the M-step; online there is nothing to do."""
        if self.optimizer is None:
            self.evaluate()
            self.maximize()

    def evaluate(self) -> float:
        """Note the objective of the parameters that the E-step belongs to, and give it, in nats per datum."""
        pending = self._complete()
        count = sum(found.count for found in pending)
        likelihood = torch.stack([found.log_likelihood for found in pending]).sum()
        objective = float((likelihood + pending[0].log_prior) / count)
        if not abs(objective) < float("inf"):
            raise ValueError(
                f"EnumeratedEM reached an objective of {objective} after {self.history.sweeps} M-steps, at "
                f"{ {name: value.flatten()[:4].tolist() for name, value in self.values.items()} }: are all data finite "
                f"and possible under the model? A likelihood without bound (a scale of zero) needs a prior."
            )
        self.history.inexact = self._excuse(pending, count)
        self.history.objectives.append(objective)
        self._seen = count
        return objective

    def maximize(self) -> None:
        """Make the M-step and forget the E-step."""
        pending, self._pending = self._complete(), []
        count = sum(found.count for found in pending)

        def expectation(values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
            parts = [found.expectation(self.model, self.program, values) for found in pending]
            first, second = zip(*parts, strict=True)
            return torch.stack(first).sum(), torch.stack(second).sum()

        surrogate = Surrogate(expectation, self.parameters)
        self.ways = maximize(surrogate, closed_forms=self.closed_forms, steps=self.gradient_steps, count=count)

    def _expect(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Expected:
        return Expected.of(self.model, self.program, args, kwargs)

    def _add(self, found: Expected) -> None:
        """Keep an E-step for the M-step; what lies outside the plates over data counts once in a sweep."""
        if self._pending:
            self._require_independent()
            found.weights = found.without_shared()
        self._pending.append(found)

    def _follow(self, found: Expected) -> None:
        """Online: make a gradient step on the batch's share of the whole."""
        size = self.size or found.count
        if size != found.count:
            self._require_independent()
        rate = size / found.count
        found.weights = {n: w if n in found.shared else rate * w for n, w in found.weights.items()}
        total, _ = found.expectation(self.model, self.program, self.program.values())
        leaves = [parameter.leaf for parameter in self.parameters]
        gradients = torch.autograd.grad(-total / size, leaves, allow_unused=True)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.ways = {parameter.name: "online gradient" for parameter in self.parameters}

    def _require_independent(self) -> None:
        if self.program.shared or not self.program.plates:
            raise ValueError(
                f"EnumeratedEM got a part of the data, but {self.program.shared or 'the data'} lie outside every plate "
                f"over data, so batches are not independent: give all data as one batch, or use a plate."
            )

    def _excuse(self, pending: list[Expected], count: int) -> str:
        """Say why the objective could fall."""
        if any(found.indices for found in pending):
            return "the program's plate subsamples, so that every sweep sees other data"
        if self._seen not in (None, count):
            return f"this sweep saw {count} data and the one before {self._seen}"
        return (
            "the expected log-density rose in the M-step, so the program or the data changed between the sweeps (is "
            "there dropout or random preprocessing?), or digits were lost (try float64)"
        )

    def _complete(self) -> list[Expected]:
        if not self._pending:
            raise ValueError("EnumeratedEM came to the end of a sweep without data: call it with a batch first.")
        return self._pending

    def state_dict(self) -> dict[str, Any]:
        """Collect what besides the parameters is needed to continue, in the middle of a sweep too."""
        return {
            "pending": [found.state_dict() for found in self._pending],
            "objectives": list(self.history.objectives),
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        device = self.parameters[0].leaf.device
        self._pending = [Expected.from_state(found, device) for found in state["pending"]]
        self.history.objectives = list(state["objectives"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])


def _module(model: Program, parameters: Iterable[ProgramParameter]) -> nn.Module:
    """Give the module whose state is all that was fitted: the program's own, if that has everything."""
    programs, others = owners(model), [parameter for parameter in parameters if not parameter.owned]
    if len(programs) == 1 and not others:
        return programs[0]
    module = nn.Module()
    module.programs = nn.ModuleList(programs)
    for parameter in others:
        name = parameter.name.replace(".", "_")
        if isinstance(parameter.leaf, nn.Parameter):
            module.register_parameter(name, parameter.leaf)
        else:
            module.register_buffer(name, parameter.leaf)  # of Pyro's store, which keeps its own reference
    return module
