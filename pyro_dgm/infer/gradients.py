# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
r"""What each particle's log-weight counts for in the gradient of a bound: pure functions of the bound and its weights.

With z = T(eps; phi) the gradient of a bound f(log w_1, ..., log w_K) to the guide's parameters has two parts:

.. math:: \nabla_\phi f = \sum_k f_k \Bigl( \frac{\partial \log w_k}{\partial z_k} \frac{d z_k}{d \phi}
          - \nabla_\phi \log q_\phi(z_k \mid x) \Bigr), \qquad f_k = \frac{\partial f}{\partial \log w_k}

the *path* through the samples and the *score*. The estimators differ in what they make of the score:

=========  ============================================================================================================
total      Keeps both. Where samples are not reparameterised there is the score function alone, and the baseline of a
           particle is the bound of the others (for IWAE: VIMCO with the arithmetic mean).
stl        Leaves the score out. Without bias for the ELBO, as the score has mean zero; at the exact posterior it is
           zero for each sample. With a bias for bounds that are not linear in the log-weights.
dreg       Writes the score's expectation as one more path: f_k becomes f_k - f_kk, for IWAE the squared normalised
           weight. Without bias for every bound, and with a signal that grows with K.
vimco      As total; but the baseline of a particle is the bound with its log-weight replaced by the mean of the others'
           (the geometric mean of the weights).
=========  ============================================================================================================

A point mass in the guide (`pyro.distributions.Delta`) has no score; where its place or its log-density depends on
parameters, and not on earlier samples alone as in most automatic guides, "stl" and "dreg" are refused.

The two paths cost one more backward pass through the model's activations (a step of a VAE takes 1.3 times as long).
log q is differentiated at the sample with everything else held, whatever the guide: for a flow by its inverse, which in
this package every flow has (a step takes 1.3 to 1.9 times as long, with inverse autoregressive flows 3 times). To go
forward instead would take the inverse of each layer's Jacobian: a system of D equations for every sample.

Sources: Roeder, Wu & Duvenaud (NIPS 2017), arXiv:1703.09194; Tucker, Lawson, Gu & Maddison (ICLR 2019),
arXiv:1810.04152, eq. 8; Mnih & Rezende (ICML 2016), arXiv:1602.06725, section 2.4. For bounds other than IWAE f_kk
follows from Tucker's equation 6, applied to f_k in place of the normalised weight.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Gradient = Literal["total", "stl", "dreg", "vimco"]

PATHS = ("stl", "dreg")
"""The estimators that need samples with a gradient."""


class Shares(NamedTuple):
    """What a guide learns from: a weight for each particle and datum, shape ``(K, *batch)``, or nothing.

    Attributes:
        path: Weights of log w, through the samples.
        score: Weights of log q, at the samples as they are.
        signal: Credits of the score function of sites without reparameterised samples.
    """

    path: Tensor | None = None
    score: Tensor | None = None
    signal: Tensor | None = None


def normalized(log_w: Tensor, power: int | float = 1) -> Tensor:
    """Normalise the weights, raised to a power, over the particles; zeros where no weight is positive.

    What is below eps squared is zero as well, as in `pyro_dgm.infer.iwae`: a CPU is slow with subnormal numbers.
    """
    share = (power * log_w).softmax(0).nan_to_num(0.0)
    return share.where(share > torch.finfo(share.dtype).eps ** 2, 0.0)


def slopes(bound: Callable[[Tensor], Tensor], log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Differentiate any bound to each log-weight, once and twice.

    Args:
        bound: A pure function of ``(K, *batch)`` that reduces the particles.
        log_w: Log-weights.

    Returns:
        First and second derivatives, each of shape ``(K, *batch)``.
    """
    with torch.enable_grad():
        leaf = log_w.detach().requires_grad_()
        (first,) = torch.autograd.grad(bound(leaf).sum(), leaf, create_graph=True)
        if not first.requires_grad:
            return first.detach(), torch.zeros_like(log_w)
        second = [torch.autograd.grad(part.sum(), leaf, retain_graph=True)[0][k] for k, part in enumerate(first)]
    return first.detach(), torch.stack(second)


def credits(bound: Callable[[Tensor], Tensor], log_w: Tensor, *, geometric: bool = False) -> Tensor:
    """Credit each particle with what it adds to the bound: the signal of the score-function gradient.

    It takes O(K^2) memory, for each particle has its own K - 1 others; `credits_of_mean` is the ELBO's in O(K).

    Args:
        bound: A pure function of ``(K, *batch)`` that reduces any number of particles.
        log_w: Log-weights.
        geometric: Whether a particle's baseline puts the mean of the other log-weights in its place, instead of leaving
            it out. Either baseline depends on the others only, and so brings no bias.

    Returns:
        Signals of shape ``(K, *batch)``; zero instead of an infinite one.
    """
    value, particles = bound(log_w), len(log_w)
    if particles == 1:
        return value.where(value.isfinite(), 0.0).unsqueeze(0)
    turn = torch.arange(particles, device=log_w.device)
    index = turn[:-1].unsqueeze(1)  # (K - 1, 1)
    others = log_w[index + (index >= turn).to(index)]  # (K - 1, K, *batch)
    if geometric:
        others = torch.cat([others, others.mean(0, keepdim=True)])
    baseline = bound(others)  # (K, *batch)
    signal = value - baseline.where(baseline.isfinite(), 0.0)  # none, where all other weights are zero
    return signal.where(signal.isfinite(), 0.0)


def credits_of_mean(log_w: Tensor) -> Tensor:
    """Credit each particle as `credits` does for the mean of the log-weights, in O(K): its own less that of the others.

    Args:
        log_w: Log-weights, shape ``(K, *batch)``. A single particle has no baseline.

    Returns:
        Signals of shape ``(K, *batch)``; zero instead of an infinite one.
    """
    signal = log_w if len(log_w) == 1 else (log_w - log_w.mean(0)) / (len(log_w) - 1)
    return signal.where(signal.isfinite(), 0.0)
