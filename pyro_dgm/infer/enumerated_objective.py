# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""An objective in which every discrete latent variable is summed out exactly, by stock Pyro's enumeration."""

from typing import Any

import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn

from pyro_dgm.infer.local_parameters import Program, local_parameters, owners


def guess_nothing(*args: Any, **kwargs: Any) -> None:
    """Leave all latent variables to the model: the guide of a model whose latent variables are all summed out."""


class EnumeratedObjective(nn.Module):
    r"""Give the negative bound of `pyro.infer.TraceEnum_ELBO` per datum, with its graph.

    .. math:: \text{loss} = -\frac{1}{B} \sum_b \sum_z q(z \mid x_b) \log \frac{p(x_b, z)}{q(z \mid x_b)}
              \qquad\text{or, without a guide,}\qquad -\frac{1}{B} \sum_b \log \sum_z p(x_b, z)

    A discrete variable of the guide is summed with the weights q; one that the guide leaves out is summed inside the
    logarithm, so without a guide this is the exact log-likelihood and gradient steps maximise it. No sampled z, so no
    noise: what is left is that of mini-batches. Variables are enumerated in parallel unless they say otherwise.
    Its parameters are those of the modules that model and guide are, or are methods of.

    Args:
        model: A Pyro program with a data plate, or a module's method.
        guide: Its guide; ``None`` for a model whose latent variables are all discrete.
        max_plate_nesting: How many dimensions the program's plates take.

    Raises:
        ValueError: If ``max_plate_nesting`` is negative.

    Source: Obermeyer et al. (ICML 2019), arXiv:1902.03210, section 3 and appendix B.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Bernoulli(0.5))
    ...         pyro.sample("x", dist.Normal(4 * z - 2, 1.0), obs=x)
    >>> x = torch.zeros(3)  # as far from both, so log p(x) = log N(2 | 0, 1)
    >>> EnumeratedObjective(model)(x)["loss"] + dist.Normal(0.0, 1.0).log_prob(torch.tensor(2.0))
    tensor(0.)
    """

    def __init__(self, model: Program, guide: Program | None = None, *, max_plate_nesting: int = 1) -> None:
        super().__init__()
        if max_plate_nesting < 0:
            raise ValueError(f"EnumeratedObjective got max_plate_nesting={max_plate_nesting}: it must be at least 0.")
        guide = guess_nothing if guide is None else guide
        self.programs = nn.ModuleList(owners(model, guide))
        self._methods = (model, guide)
        self._pair = (config_enumerate(model, default="parallel"), config_enumerate(guide, default="parallel"))
        self._elbo = TraceEnum_ELBO(max_plate_nesting=max_plate_nesting)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Evaluate a batch.

        Args:
            x: The batch, shape ``(B, *event)``.

        Returns:
            ``loss``, a scalar in nats per datum, with its graph if gradients are on and there is what to train.
        """
        learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters())
        with local_parameters(*self._methods):
            if learns:
                return {"loss": self._elbo.differentiable_loss(*self._pair, x) / len(x)}
            return {"loss": torch.as_tensor(self._elbo.loss(*self._pair, x) / len(x), device=x.device)}
