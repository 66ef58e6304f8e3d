# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Expectation maximisation: infer what is hidden, then fit the parameters as if it had been seen, and repeat."""

import copy
import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pyro_dgm.infer.em_history import EMHistory
from pyro_dgm.infer.one_process import require_one_process
from pyro_dgm.infer.sweeps import Statistics, SweepStep, add, in_chunks, precision_of, sweep_until


@runtime_checkable
class ClosedForm(Protocol):
    """A model whose E-step and M-step are formulas: mixtures, probabilistic PCA, factor analysis.

    It may have ``inexact``, a string that says why its M-step is not the exact maximum, or None.
    """

    def start(self, x: Tensor, *, seed: int = 0) -> None:
        """Set the parameters to a good start for the data, shape ``(N, *event)``; another seed, another start."""

    def statistics(self, x: Tensor) -> Statistics:
        """E-step: sum the expected sufficient statistics over the data, shape ``(B, *event)``, without gradients.

        Among them are ``"count"``, the number of data, and ``"log_likelihood"``, the sum of log p(x) in nats, both
        0-dim. Sums of several calls with the same parameters must be the statistics of all their data together; give
        float64, so that they are.
        """

    def maximize(self, statistics: Statistics) -> None:
        """M-step: set the parameters in place to the maximum of E[log p(x, z)] + log-prior, without gradients.

        Statistics need not be those of ``"count"`` real data: they may be averages, scaled to that number.
        """

    def log_prior(self) -> Tensor:
        """Log-density of the parameters' prior in nats, 0-dim; zero if there is none."""


class EM(SweepStep):
    r"""A sweep of EM as a step of training: a batch adds its statistics, the end of the epoch makes the M-step.

    .. math:: q(z) = p(z \mid x, \theta_t), \qquad
              \theta_{t+1} = \arg\max_\theta \sum_n E_q[\log p(x_n, z_n \mid \theta)] + \log p(\theta)

    Batches only bound the memory: an epoch of batches is the same sweep as one of all data. Online EM makes an M-step
    at each batch instead, with statistics per datum that forget the old ones:

    .. math:: s_t = (1 - \rho_t)\, s_{t-1} + \rho_t\, \bar s(\text{batch}), \qquad \rho_t = (t + t_0)^{-\kappa}

    (the first batch has nothing to forget: its weight is 1). Online, each batch is looked at for NaN before it is let
    in, for which the host waits for the device, and ``history`` stays empty: there is no sweep with fixed parameters.

    Args:
        model: An `nn.Module` with the methods of `ClosedForm`, already at its start: call ``model.start(x)``.
        online: None, or ``(t0, kappa)`` for online EM; it converges for 0.5 < kappa <= 1, e.g. ``(2, 0.7)``.
        hold: In online EM, average the first so many batches before the first M-step, so that every component has
            seen enough data not to collapse.
        size: In online EM, the number of data that there are, against which the prior counts.
        chunk_size: Split larger batches into chunks of so many data, to bound the memory; None leaves it to the model.

    Raises:
        ValueError: If the model is no `ClosedForm`, a setting is out of its range, ``online`` comes with a prior but
            without ``size``, there are several processes, an epoch ends without data, or the log-likelihood is not
            finite: the parameters are as they were, then, and the sweep's statistics (online: the batch's) forgotten.

    Source: Dempster, Laird & Rubin (JRSS B 1977), section 2; online: Cappe & Moulines (JRSS B 2009), arXiv:0712.4273,
    eq. 9 and 10, and Liang & Klein (NAACL 2009), section 3.

    >>> from pyro_dgm.models import GaussianMixture
    >>> x = torch.randn(100, 2)
    >>> model = GaussianMixture(dim=2, components=3)
    >>> model.start(x)
    >>> step = EM(model)
    >>> for _ in range(5):
    ...     losses = [step(batch)["loss"] for batch in x.split(50)]
    ...     step.epoch_end()
    >>> step.history.monotone
    True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        online: tuple[int | float, int | float] | None = None,
        hold: int = 1,
        size: int | None = None,
        chunk_size: int | None = None,
    ) -> None:
        if not isinstance(model, ClosedForm):
            raise ValueError(
                f"EM got {type(model).__name__}, which has no closed form: it needs start, statistics, maximize and "
                f"log_prior (see ClosedForm). For Bayesian models with conjugate priors, as BayesianMixture, use "
                f"CoordinateAscent; for other Pyro programs EnumeratedEM or ELBO."
            )
        for name, value in (("hold", hold), ("size", size), ("chunk_size", chunk_size)):
            if value is not None and value < 1:
                raise ValueError(f"EM got {name}={value}: it must be at least 1.")
        if online is not None:
            self._check_online(online, size, model)
        require_one_process("EM")
        slack = precision_of(model) ** (2 / 3)  # quadratic forms lose more than the last digit
        super().__init__(model, online, EMHistory(slack=slack, inexact=getattr(model, "inexact", None)))
        self.model: ClosedForm = model
        self.hold, self.size, self.chunk_size = hold, size, chunk_size

    @staticmethod
    def _check_online(online: tuple[int | float, int | float], size: int | None, model: ClosedForm) -> None:
        t0, kappa = online
        if t0 < 0 or not 0.5 < kappa <= 1:
            raise ValueError(
                f"EM got online={online}: (t0, kappa) need t0 >= 0 and 0.5 < kappa <= 1, or the steps (t + t0)^-kappa "
                f"are too large or too small to converge. Try (2, 0.7)."
            )
        if size is None and bool(model.log_prior() != 0):
            raise ValueError(
                f"EM got online={online} and a {type(model).__name__} with a prior, but no size: give size=len(data), "
                f"for a prior counts against all data and not against a batch."
            )

    @torch.no_grad()
    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        """Take a batch in: the E-step, and in online EM the M-step.

        Args:
            batch: Data, shape ``(B, *event)``.

        Returns:
            ``loss``: the batch's mean of -log p(x) in nats, by the parameters before the step.
        """
        found = in_chunks(self.model.statistics, batch, chunk_size=self.chunk_size, who="EM")
        loss = -found["log_likelihood"] / found["count"]
        if self.online is not None:
            self._finite(found["log_likelihood"])
        self.batches += 1
        if self.online is None:
            self.statistics = add(self.statistics, found)
        else:
            self._follow({name: value / found["count"] for name, value in found.items()}, len(batch))
        return {"loss": loss}

    def _follow(self, mean: Statistics, size: int) -> None:
        """Move the statistics per datum towards a batch's, and maximise."""
        t0, kappa = self.online or (0, 1)
        rate = 1 / self.batches if self.batches <= self.hold else (self.batches + t0) ** -kappa
        old = self.statistics
        self.statistics = mean if old is None else {name: old[name].lerp(mean[name], rate) for name in mean}
        if self.batches >= self.hold:
            scale = self.size or size
            self.model.maximize({name: value * scale for name, value in self.statistics.items()})

    def evaluate(self) -> float:
        """Note the objective of the parameters that the statistics belong to, and give it, in nats per datum."""
        found = self._complete()
        objective = (found["log_likelihood"] + self.model.log_prior().detach()) / found["count"]
        self.history.objectives.append(self._finite(objective))
        return self.history.objectives[-1]

    def update(self) -> None:
        """Make the M-step and forget the statistics."""
        found = self._complete()
        self._finite(found["log_likelihood"])
        with torch.no_grad():
            self.model.maximize(found)
        self.statistics = None


def em(
    model: nn.Module,
    x: Tensor,
    *,
    sweeps: int = 100,
    tolerance: int | float = 1e-6,
    restarts: int = 1,
    seed: int | None = 0,
    chunk_size: int | None = None,
) -> EMHistory:
    """Fit a model by EM until a sweep gains less than the tolerance, from one start or the best of several.

    Args:
        model: An `nn.Module` with the methods of `ClosedForm`; its parameters are changed in place.
        x: All data, shape ``(N, *event)``.
        sweeps: At most so many M-steps from each start.
        tolerance: Stop when a sweep moves the objective by no more than this, in nats per datum, or by rounding.
        restarts: How many starts, by seeds ``seed``, ``seed + 1``, ...; the parameters of the highest objective win.
            Starts that end in an error, e.g. in a singular covariance, are out, and -inf in the history.
        seed: Seed of the first start; None goes on from the parameters as they are.
        chunk_size: See `EM`.

    Returns:
        The history of the best start. Its last objective is that of the parameters as they are now.

    Raises:
        ValueError: If the model is no `ClosedForm`, a number is out of its range, or each start ends in an error, as
            where the objective is not finite; the message is that of the first start.

    >>> from pyro_dgm.models import GaussianMixture
    >>> x = torch.cat([torch.randn(100, 1), torch.randn(100, 1) + 5])
    >>> history = em(GaussianMixture(dim=1, components=2), x, restarts=3)
    >>> history.converged, history.monotone, len(history.restarts)
    (True, True, 3)
    """
    if sweeps < 0 or tolerance < 0 or restarts < 1 or (seed is None and restarts > 1):
        raise ValueError(
            f"em got sweeps={sweeps}, tolerance={tolerance}, restarts={restarts}, seed={seed}: the first two must not "
            f"be negative, restarts at least 1, and more than one start needs a seed."
        )
    best, finals, weights, errors = EMHistory(), [], {}, []
    for number in range(restarts):
        step = EM(model, chunk_size=chunk_size)
        try:
            if seed is not None:
                step.model.start(x, seed=seed + number)
            history = sweep_until(step, x, sweeps=sweeps, tolerance=tolerance)
        except ValueError as error:
            errors.append(error)
            finals.append(-math.inf)
            continue
        finals.append(history.objectives[-1])
        if not best.objectives or finals[-1] > best.objectives[-1]:
            best, weights = history, copy.deepcopy(model.state_dict()) if restarts > 1 else {}
    if not best.objectives:
        raise errors[0]
    if restarts > 1:
        model.load_state_dict(weights)
    best.restarts = finals
    return best
