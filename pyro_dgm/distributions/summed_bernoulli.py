# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The log-probability of a whole black-and-white picture, in one go instead of pixel by pixel."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyro_dgm.nn.apply_function import apply_function
from pyro_dgm.transforms.one_pass import under_functorch

THRESHOLD = 40  # softplus is the identity above, to the last bit of float64

LARGE = 2**18  # numbers from which the passes over memory cost more than the calls

BLOCK = 2**18  # numbers at once: a mebibyte in float32, which a core's own cache holds

FACTORS = 8  # of at most 2 each, so that their product is finite in every dtype


def summed_log_prob(logits: Tensor, value: Tensor, dims: int) -> Tensor:
    """Sum the log-probabilities of coin flips over the last dimensions.

    Args:
        logits: Log-odds of 1.
        value: Zeros and ones of any dtype, broadcastable with the logits.
        dims: How many dimensions at the end are summed.

    Returns:
        log p in nats, of the broadcast shape without its last ``dims`` dimensions.
    """
    broadcast = torch.broadcast_shapes(logits.shape, value.shape) != logits.shape
    if dims == 0 or dims == logits.dim() or logits.numel() < LARGE or broadcast:
        total = log_prob(logits, value)
        return total.sum(tuple(range(-dims, 0))) if dims else total
    return apply_function(_Sum, logits, value, dims)


def log_prob(logits: Tensor, value: Tensor) -> Tensor:
    """Compute log p of each flip; torch's logsigmoid takes three times as long on a CPU as softplus."""
    return softplus(_against(value, logits) * logits, threshold=THRESHOLD).neg_()


def _against(value: Tensor, logits: Tensor) -> Tensor:
    """Give -1 for 1 and 1 for 0: the sign with which log-odds speak against the value."""
    return value.to(torch.int8).mul(-2).add(1).to(logits.dtype)  # bytes first: a quarter of the memory traffic


class _Sum(torch.autograd.Function):
    r"""Sum :math:`-\log(1 + e^{u})` with its gradient, value - sigmoid(logits), in one pass.

    Memory limits the speed of large pictures and many particles: operations one by one take four passes forward and
    three back, here everything is done to a block while it is in the cache.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, value: Tensor, dims: int) -> Tensor:
        """Compute the sum, block by block on a CPU."""
        against = _against(value, logits)
        if logits.device.type != "cpu" or logits.dtype not in (torch.float32, torch.float64):
            return softplus(against * logits, threshold=THRESHOLD).sum(tuple(range(-dims, 0))).neg_()
        rows = max(1, BLOCK * len(logits) // logits.numel())
        blocks = zip(logits.split(rows), against.expand_as(logits).split(rows), strict=True)
        return torch.cat([_softplus_sum((s * a).flatten(-dims)) for a, s in blocks]).neg_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        """Keep what the gradient needs."""
        ctx.save_for_backward(*inputs[:2])
        ctx.dims = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Give the gradient of the logits; that of a coin's side is none."""
        logits, value = ctx.saved_tensors
        grad = grad.reshape(*grad.shape, *(1,) * ctx.dims)
        value = value.to(logits.dtype)
        if torch.is_grad_enabled() or under_functorch():
            return grad * (value - logits.sigmoid()), None, None
        found = logits.sigmoid()
        return torch.sub(value, found, out=found).mul_(grad), None, None  # fresh memory costs more than the arithmetic


def _softplus_sum(u: Tensor) -> Tensor:
    r"""Sum softplus over the last dimension with one logarithm for eight numbers.

    .. math:: \sum_i \log(1 + e^{u_i}) = \sum_i \max(u_i, 0) + \log \prod_i (1 + e^{-|u_i|})
    """
    positive = u.clamp(min=0)
    terms = torch.sub(u, positive, alpha=2).exp_().add_(1)  # u - 2 max(u, 0) = -|u|
    width = terms.shape[-1] // FACTORS
    product = terms[..., : FACTORS * width].unflatten(-1, (FACTORS, width)).prod(-2)
    rest = terms[..., FACTORS * width :]
    return positive.sum(-1).add_(product.log_().sum(-1)).add_(rest.log().sum(-1) if rest.numel() else 0)
