# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
r"""A bound turns log-weights into a lower bound on log p(x), whatever model and guide they came from.

Every function takes unscaled log-weights :math:`\log w_k = \log p(x, z_k) - \log q(z_k \mid x)`
of shape ``(K, *batch)``, in nats, and reduces the particles: bigger is better, one value per datum.
"""

import math

from jaxtyping import Float
from torch import Tensor


def elbo(log_w: Float[Tensor, "K *batch"]) -> Float[Tensor, "*batch"]:
    r"""Average the log-weights: the evidence lower bound.

    .. math:: \mathcal{L}(x) = \frac{1}{K} \sum_{k=1}^K \log w_k
              \le \log p(x) \quad \text{in expectation}

    Args:
        log_w: Log-weights in nats, shape ``(K, *batch)``.

    Returns:
        The bound in nats, shape ``(*batch)``. Its gap to log p(x) is KL(q(z|x) || p(z|x)), for every K.

    Source: Kingma & Welling (ICLR 2014), arXiv:1312.6114, eq. 3 and 6.

    >>> elbo(torch.tensor([[-3.0], [-1.0]]))
    tensor([-2.])
    """
    return log_w.mean(0)


def iwae(log_w: Float[Tensor, "K *batch"]) -> Float[Tensor, "*batch"]:
    r"""Take the log of the average weight: the importance-weighted bound.

    .. math:: \mathcal{L}_K(x) = \log \frac{1}{K} \sum_{k=1}^K w_k
              \le \log p(x) \quad \text{in expectation}

    Args:
        log_w: Log-weights in nats, shape ``(K, *batch)``.

    Returns:
        The bound in nats, shape ``(*batch)``. K = 1 is `elbo`; the bound rises with K to log p(x).

    Source: Burda, Grosse & Salakhutdinov (ICLR 2016), arXiv:1509.00519, eq. 8.

    >>> iwae(torch.tensor([[0.0], [math.log(3.0)]]))
    tensor([0.6931])
    """
    return log_w.logsumexp(0) - math.log(len(log_w))
