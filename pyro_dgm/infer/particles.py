# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Running a model against its guide for K particles at once gives the two traces every bound is made of."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.util import is_validation_enabled
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from pyro.util import check_model_guide_match, check_site_shape

PLATE = "pyro_dgm_particles"

Run = Callable[[int, int], tuple[poutine.Trace, poutine.Trace]]  # a pair and its data; takes particles and nesting


class _MarkParticleFree(Messenger):
    """Remember which sites have a distribution, a value and a mask that no particle changed.

    It stands between the particle plate and the program, and so sees each distribution before the plate expands
    it over the particles. An observed site outside the data plate without a particle dimension is a constant of the
    bound; one that has it couples the data.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def _pyro_sample(self, msg: Any) -> None:
        fn, value, mask = msg["fn"], msg["value"], msg["mask"]
        shapes = [getattr(fn, "batch_shape", ())]
        if isinstance(value, torch.Tensor):
            shapes.append(value.shape[: value.dim() - getattr(fn, "event_dim", 0)])
        if isinstance(mask, torch.Tensor):
            shapes.append(mask.shape)
        free = all(len(shape) < -self.dim or shape[self.dim] == 1 for shape in shapes)
        msg["infer"] = {**(msg["infer"] or {}), "_particle_free": free}


@contextmanager
def _particle_plate(particles: int, dim: int) -> Iterator[None]:
    """Enter the outermost plate; one particle needs none, and then runs exactly as stock Pyro."""
    with ExitStack() as stack:
        if particles > 1:
            stack.enter_context(pyro.plate(PLATE, particles, dim=dim))
            stack.enter_context(_MarkParticleFree(dim))
        yield


def sample_sites(trace: poutine.Trace) -> dict[str, Any]:
    """List the random variables of a trace: no plates, no subsampling, no `pyro.deterministic`."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and type(site["fn"]).__name__ != "_Subsample"
        and not (site["infer"] or {}).get("_deterministic")
    }


def plate_nesting(*traces: poutine.Trace) -> int:
    """Count the dimensions that the vectorised plates of these traces take up, from the right."""
    dims = [
        frame.dim
        for trace in traces
        for site in sample_sites(trace).values()
        for frame in site["cond_indep_stack"]
        if frame.vectorized and frame.name != PLATE
    ]
    return -min(dims, default=0)


def _run(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    particles: int,
    nesting: int,
) -> tuple[poutine.Trace, poutine.Trace]:
    """Trace the guide, then the model on the guide's values."""
    unwrapped = poutine.unwrap(guide)
    if isinstance(unwrapped, GuideMessenger):  # it traces both by itself
        with _particle_plate(particles, -nesting - 1):
            guide(*args, **kwargs)
        return unwrapped.get_traces()

    def inside(program: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with _particle_plate(particles, -nesting - 1):
                return program(*args, **kwargs)

        return run

    guide_trace = poutine.trace(inside(guide)).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(inside(model), trace=guide_trace)).get_trace(*args, **kwargs)
    return model_trace, guide_trace


def _guess_nesting(run: Run) -> int:
    """Run the pair once for its plates only: no gradients, and the random stream stays where it was."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), poutine.block():
        return plate_nesting(*run(1, 0))


def _run_deep_enough(run: Run, particles: int, nesting: int) -> tuple[poutine.Trace, poutine.Trace, int]:
    """Run the pair, and once more if its plates met the particles' dimension or went past it."""
    if particles == 1:
        traces = run(particles, nesting)
        return *traces, max(nesting, plate_nesting(*traces))
    try:
        traces = run(particles, nesting)
        if plate_nesting(*traces) <= nesting:
            return *traces, nesting
    except ValueError:  # that of its plates, or one of its own
        found = _guess_nesting(run)
        if found <= nesting:
            raise
    else:
        found = _guess_nesting(run)
    return *run(particles, found), found


def _check_guide_covers_model(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """Refuse a model variable that nothing infers: its log-weight would be no weight."""
    latent = {name for name, site in sample_sites(model_trace).items() if not site["is_observed"]}
    missing = sorted(latent - set(sample_sites(guide_trace)))
    if missing:
        raise ValueError(
            f"The guide has no sample site for {missing}, which the model samples and does not observe; the guide has "
            f"{sorted(sample_sites(guide_trace))}. Add pyro.sample({missing[0]!r}, ...) to the guide, pass the data "
            f"the site should observe, or sum it out with pyro.infer.TraceEnum_ELBO if it is discrete."
        )


def particle_traces(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    particles: int,
    max_plate_nesting: int | float = math.inf,
) -> tuple[poutine.Trace, poutine.Trace, int]:
    """Run the guide and replay the model K times in one vectorised pass.

    Args:
        model: Any Pyro program.
        guide: Its guide.
        args: What both are called with.
        kwargs: Likewise, by name.
        particles: K. More than one is a plate to the left of all others, at dimension ``-nesting - 1``.
        max_plate_nesting: How many dimensions the program's own plates take. Infinity: found by one more run, made
            without gradients and without moving the random stream. A number that is too small is corrected
            by such a run.

    Returns:
        The model's trace, the guide's trace, both with log-probabilities at every site, and the nesting that was used.

    Raises:
        ValueError: If the guide lacks a variable of the model, or a site has the wrong shape for its plates.
    """
    run: Run = partial(_run, model, guide, args, kwargs)
    if particles > 1 and math.isinf(max_plate_nesting):
        max_plate_nesting = _guess_nesting(run)
    nesting = 0 if math.isinf(max_plate_nesting) else int(max_plate_nesting)
    model_trace, guide_trace, nesting = _run_deep_enough(run, particles, nesting)
    _check_guide_covers_model(model_trace, guide_trace)
    if is_validation_enabled():
        depth = nesting + (particles > 1)
        check_model_guide_match(model_trace, guide_trace, depth)
        model_trace.compute_log_prob()
        guide_trace.compute_log_prob()
        for site in [*sample_sites(model_trace).values(), *sample_sites(guide_trace).values()]:
            check_site_shape(site, depth)
    for site in sample_sites(model_trace).values():
        if "unscaled_log_prob" not in site:
            site["unscaled_log_prob"] = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    for site in sample_sites(guide_trace).values():
        site["score_parts"] = site["fn"].score_parts(site["value"], *site["args"], **site["kwargs"])
        site["unscaled_log_prob"] = site["score_parts"].log_prob
    return model_trace, guide_trace, nesting
