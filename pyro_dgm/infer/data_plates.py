# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Which plates of a program are over data, and how many data there are: a picture's pixels are none, pictures are."""

from collections.abc import Container, Mapping, Sequence
from typing import Any


def data_plates(sites: Mapping[str, Any]) -> frozenset[str]:
    """Tell plates over data from others, such as those over features or components.

    Data are what hidden variables are of. So a plate over data encloses observed sites and a discrete latent one; of
    plates inside each other with one each, the outer one is meant. An observed site apart from all these has its own:
    the outermost plate around it that no continuous variable is in, as that would be one for each datum.

    Args:
        sites: The sites that have a density, of a run of the program.

    Returns:
        The names of the plates over data.

    >>> import pyro, pyro.distributions as dist, torch
    >>> def model(x):
    ...     pixels = pyro.plate("pixels", 2, dim=-1)
    ...     with pixels:
    ...         ink = pyro.sample("ink", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("pictures", len(x), dim=-2):
    ...         z = pyro.sample("z", dist.Bernoulli(0.5))
    ...         with pixels:
    ...             pyro.sample("x", dist.Normal(ink * z, 1.0), obs=x)
    >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(3, 2))
    >>> data_plates({name: trace.nodes[name] for name in ("ink", "z", "x")})
    frozenset({'pictures'})
    """
    around = {name: [frame.name for frame in site["cond_indep_stack"]] for name, site in sites.items()}
    seen = [name for name, site in sites.items() if site["is_observed"]]
    candidates = {plate for name in seen for plate in around[name]}
    hidden = {name for name in sites.keys() - set(seen) if getattr(sites[name]["fn"], "has_enumerate_support", False)}
    found = frozenset[str]().union(*_smallest([candidates.intersection(around[name]) for name in hidden]))
    continuous = {plate for name in sites.keys() - hidden - set(seen) for plate in around[name]}
    for name in seen:
        own = around[name]
        if not found.isdisjoint(own):
            continue
        crossing = {plate for other in sites if not found.isdisjoint(around[other]) for plate in around[other]}
        free = [plate for plate in own if plate not in continuous | crossing]
        found |= frozenset(free[:1] if free or found else own[:1])
    return found


def count_data(observed: Sequence[Any], plates: Container[str]) -> int:
    """Count the data: the entries of the plates over data, 1 if there is none.

    Args:
        observed: The observed sites, with their log-densities.
        plates: Names of the plates over data.

    Returns:
        The number, the whole one if plates subsample.
    """
    counts: dict[frozenset[str], int] = {}
    for site in observed:
        frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.name in plates]
        count = 1
        for frame in frames:
            size = frame.full_size or frame.size
            count *= size if size > 0 else site["log_prob"].shape[frame.dim]  # a plate may know no size
        counts[frozenset(frame.name for frame in frames)] = count
    return sum(counts[names] for names in _smallest([names for names in counts if names])) or 1


def _smallest(found: list[Any]) -> set[frozenset[str]]:
    """Keep the sets that have none of the others inside, and are not empty."""
    sets = {frozenset(names) for names in found if names}
    return {names for names in sets if not any(other < names for other in sets)}
