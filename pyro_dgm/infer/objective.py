# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""An objective fixes model, guide and bound, and turns a batch into a loss and the terms it is made of."""

import torch
from torch import Tensor, nn

from pyro_dgm.infer.bound import Bound, require_data_plate
from pyro_dgm.infer.compiled import Compiled
from pyro_dgm.infer.local_parameters import Program, local_parameters, owners, without_statements


class Objective(nn.Module):
    r"""Give the negative bound per datum and its per-site terms, in nats.

    .. math:: \text{loss} = -\frac{1}{N} \Bigl[\sum_b s_b\, f(\log w_{1b}, \dots, \log w_{Kb}) + \text{constants}\Bigr],
              \qquad N = \sum_b s_b

    with s the data plate's scale (1 without subsampling, so N is then the batch size), and the observed sites outside
    the plate as constants. Where the sites do not share one scale (for an ELBO: one object or equal numbers), each
    term keeps its own and N is the batch size.

    Its parameters are those of the modules that ``model`` and ``guide`` are, or are methods of. They stay in their
    modules: Pyro's global parameter store is not touched, and two models of one class never share weights by accident.

    Args:
        model: A Pyro program with a data plate, or a module's method.
        guide: Its guide.
        bound: What to maximise; if it is `compiled`, the whole forward pass is.
    """

    def __init__(self, model: Program, guide: Program, bound: Bound | Compiled) -> None:
        super().__init__()
        self.programs = nn.ModuleList(owners(model, guide))
        self.bound: Bound = bound.bound if isinstance(bound, Compiled) else bound
        self._methods = (model, guide)
        self._pair = (without_statements(model), without_statements(guide))
        self.captured = None if not isinstance(bound, Compiled) else bound.capture(self._terms, model, guide)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Evaluate a batch.

        Args:
            x: The batch, shape ``(B, *event)``.

        Returns:
            Scalars in nats per datum: ``loss``, with its graph; ``log_p.<site>`` and ``log_q.<site>``, detached means
            over particles and data, at beta = 1.

        Raises:
            ValueError: If no plate encloses all latent variables.
        """
        return self._terms(x) if self.captured is None else self.captured(x)

    def _terms(self, x: Tensor) -> dict[str, Tensor]:
        with local_parameters(*self._methods):
            weights = self.bound.log_weights(*self._pair, x)
        require_data_plate(weights)
        loss = self.bound.total(weights) * (-1 / weights.count)
        with torch.no_grad():
            terms = {f"log_p.{name}": term.mean() for name, term in weights.model_terms.items()}
            terms |= {f"log_p.{name}": term / weights.count for name, term in weights.constants.items()}
            terms |= {f"log_q.{name}": term.mean() for name, term in weights.guide_terms.items()}
        return {"loss": loss, **terms}
