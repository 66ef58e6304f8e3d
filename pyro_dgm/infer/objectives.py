# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The bounds as Pyro objectives: use them wherever `pyro.infer.Trace_ELBO` goes."""

from typing import ClassVar

import torch
from torch import Tensor

from pyro_dgm.infer.bound import Bound
from pyro_dgm.infer.bounds import elbo, iwae


class ELBO(Bound):
    """The evidence lower bound, averaged over K particles: a drop-in for `pyro.infer.Trace_ELBO`.

    Linear in every term, so it is right for any mixture of scales and for global latent variables.

    Source: Kingma & Welling (ICLR 2014), arXiv:1312.6114, eq. 3.
    """

    linear: ClassVar[bool] = True
    bound = staticmethod(elbo)

    def _signal(self, log_w: Tensor) -> Tensor:
        """Credit each particle with its own weight less the mean of the others: the general rule, in O(K)."""
        particles = len(log_w)
        if particles == 1:
            return log_w
        signal = (log_w - log_w.mean(0)) / (particles - 1)
        return torch.where(signal.isfinite(), signal, 0.0)


class IWAE(Bound):
    """The importance-weighted bound of K particles, per datum: tighter than the ELBO, and exact as K grows.

    Unlike `pyro.infer.RenyiELBO(alpha=0)` it stays a bound under subsampling and `poutine.scale`, keeps the data apart
    beside an observed global site, and has a gradient for discrete sites.

    Source: Burda, Grosse & Salakhutdinov (ICLR 2016), arXiv:1509.00519, eq. 8 and section 3.
    """

    bound = staticmethod(iwae)
