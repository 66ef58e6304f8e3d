# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""An objective for programs with global latent variables: a bound on the evidence of the whole data set."""

import torch
from torch import Tensor

from pyro_dgm.infer.bound import Bound
from pyro_dgm.infer.local_parameters import Program, local_parameters
from pyro_dgm.infer.objective import Objective


class DataSetObjective(Objective):
    r"""Give the negative bound on log p(x_1, ..., x_N), divided by N.

    An `Objective` needs a value for each datum, which a program with a global latent variable does not have: its bound
    is of all data at once. The program's data plate must scale a mini-batch up to all N data; the global variables
    then count once, and 1 / N of them is in each datum's share.

    Args:
        model: A Pyro program, or a module's method.
        guide: Its guide.
        bound: What to maximise. Under mini-batches it has to be an `ELBO`, which is linear in every term.
        size: Number N of data.

    Raises:
        ValueError: If the size is below 1.

    Source: Hoffman, Blei, Wang & Paisley (JMLR 2013), arXiv:1206.7051, section 2.2; Kingma & Welling (ICLR 2014),
    arXiv:1312.6114, appendix F.

    >>> import pyro, pyro.distributions as dist
    >>> from pyro_dgm.infer import ELBO
    >>> def model(x):
    ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("data", 100, subsample=torch.arange(len(x))):
    ...         pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
    >>> objective = DataSetObjective(model, lambda x: pyro.sample("mean", dist.Normal(0.0, 0.1)), ELBO(), size=100)
    >>> sorted(objective(torch.zeros(10)))
    ['log_p.mean', 'log_p.x', 'log_q.mean', 'loss']
    """

    def __init__(self, model: Program, guide: Program, bound: Bound, *, size: int) -> None:
        if size < 1:
            raise ValueError(f"DataSetObjective got size={size}: it is the number of all data, 1 or more.")
        super().__init__(model, guide, bound)
        self.size = size

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Evaluate a batch.

        Args:
            x: The batch, shape ``(B, *event)``.

        Returns:
            Scalars in nats per datum: ``loss``, with its graph; ``log_p.<site>`` and ``log_q.<site>``, detached means
            over particles, scaled up to all data and divided by N, at beta = 1.
        """
        with local_parameters(*self._methods):
            weights = self.bound.log_weights(*self._pair, x)
        loss = self.bound.total(weights) / -self.size
        found = weights.scaled or weights
        scale = 1.0 if found.scale is None else found.scale
        with torch.no_grad():
            terms = {f"log_p.{name}": _share(term, scale) for name, term in found.model_terms.items()}
            terms |= {f"log_p.{name}": term for name, term in weights.constants.items()}
            terms |= {f"log_q.{name}": _share(term, scale) for name, term in found.guide_terms.items()}
            terms = {name: term / self.size for name, term in terms.items()}
        return {"loss": loss, **terms}


def _share(term: Tensor, scale: float | int | Tensor) -> Tensor:
    """Sum a term of shape ``(K, *batch)`` over the data, scaled, and average it over the particles."""
    return (term.mean(0) * scale).sum()
