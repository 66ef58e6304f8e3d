# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What a model's run shows: the mean or the sample of the site that is its picture."""

from pyro.poutine import Trace
from torch import Tensor

from pyro_dgm.infer.particles import sample_sites


def picture(trace: Trace, site: str, *, mean: bool) -> Tensor:
    """Take a site's picture out of a trace.

    Args:
        trace: A run of a model.
        site: Name of the data site.
        mean: The mean of the site's distribution (in levels, smooth), or else the value that was drawn.

    Returns:
        Shape ``(B, *event)``.

    Raises:
        ValueError: If the trace has no such site, or its distribution has no mean.
    """
    sites = sample_sites(trace)
    if site not in sites:
        raise ValueError(
            f"A picture of site {site!r} was asked for and the model has {sorted(sites)}: give one of these."
        )
    node = sites[site]
    try:
        shown: Tensor = node["fn"].mean if mean else node["value"]
    except NotImplementedError:  # how torch says that a distribution has no known mean
        raise ValueError(
            f"The distribution of site {site!r} ({type(node['fn']).__name__}) has no mean: ask for samples, mean=False."
        ) from None
    return shown
