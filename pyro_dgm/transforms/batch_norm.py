# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation as a flow: data are normalised on their way to the noise, by their batch or by its average."""

import torch
from torch import Tensor, nn

from pyro_dgm.transforms.base import FlowTransform, Parameters
from pyro_dgm.transforms.one_pass import under_functorch


class BatchNorm(FlowTransform):
    r"""Normalise every element when data are scored; samples go the other way.

    .. math::
        x = \frac{y - m}{\sqrt{v + \epsilon}} \odot e^{\gamma} + \beta, \qquad
        \log|\det \partial x / \partial y| = \sum_i \gamma_i - \tfrac12 \log(v_i + \epsilon)

    *Evaluation mode*: m and v are running averages, and this is an affine bijection, exact both ways.

    *Training mode, scoring* (the inverse): m and v are those of the batch, over all its leading dimensions, in value
    and log-determinant, and the running averages are updated. So rows depend on each other, which no other flow
    allows, and gradients go through m and v. A single row is normalised by the running averages, and leaves them alone.

    *Training mode, sampling* (forward): m and v are the running averages, in value and log-determinant. This does not
    undo the scoring of a batch, so a score has to be one pass: ``inverse_and_logdet``, or ``log_prob`` of a
    `TransformedDistribution` with the flow's memory. Under `torch.compile`, and after ``with_cache(0)``, there is no
    memory: use the former. In a guide, where sampling is what is trained, use ``Invert(BatchNorm(dim))``.

    The running averages are plain means of the first 1 / momentum batches (so they are right after one batch), and
    exponential ones afterwards; as in `nn.BatchNorm1d`, the variance that they average is the unbiased one. They change
    in training mode without gradients too, but not under `torch.func`. Of several processes each uses its own
    share of a batch; `DistributedDataParallel` hands on the running averages of the first.

    Args:
        dim: Dimension D.
        momentum: Weight of a new batch in the running averages, from 0 to 1; 0 averages over all batches equally. The
            default is that of `nn.BatchNorm1d`.
        eps: What is added to the variance.

    Raises:
        ValueError: If a number is out of its range.

    Source: Dinh et al. (ICLR 2017), arXiv:1605.08803, section 3.7 and appendix E; with gamma and beta: Papamakarios et
    al. (NeurIPS 2017), arXiv:1705.07057, appendix. The former normalises by running averages in training, too.

    Example:
        >>> flow, data = BatchNorm(2), 3 + 5 * torch.randn(100, 2)
        >>> x, logdet = flow.inverse_and_logdet(data)
        >>> torch.allclose(x.mean(0), torch.zeros(2), atol=1e-5)
        True
        >>> y = flow.eval()(x)
        >>> torch.allclose(flow.inv(y), x, atol=1e-5)
        True
    """

    running_mean: Tensor
    running_var: Tensor
    batches: Tensor

    def __init__(self, dim: int, *, momentum: int | float = 0.1, eps: int | float = 1e-5) -> None:
        super().__init__(dim)
        if not (0 <= momentum <= 1 and eps > 0):
            raise ValueError(
                f"BatchNorm got momentum={momentum}, eps={eps}: momentum must be from 0 to 1, and eps above 0."
            )
        self.momentum, self.eps = momentum, eps
        self.gamma = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.register_buffer("batches", torch.tensor(0))

    def bind(self, context: Tensor | None) -> Parameters:
        """Give gamma and beta."""
        return self.gamma, self.beta

    def _forward_and_logdet(self, x: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        gamma, beta = parameters
        log_scale = 0.5 * (self.running_var + self.eps).log() - gamma
        return (x - beta) * log_scale.exp() + self.running_mean, log_scale.sum(-1).expand(x.shape[:-1])

    def _inverse_and_logdet(self, y: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        gamma, beta = parameters
        mean, var = self._moments(y)
        log_scale = gamma - 0.5 * (var + self.eps).log()
        return (y - mean) * log_scale.exp() + beta, log_scale.sum(-1).expand(y.shape[:-1])

    def _moments(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Give the mean and variance to normalise by."""
        rows = y.reshape(-1, self.dim)
        if not self.training or len(rows) < 2:
            return self.running_mean, self.running_var
        var, mean = torch.var_mean(rows, 0, correction=0)
        if not under_functorch():
            self._average(mean.detach(), var.detach() * (len(rows) / (len(rows) - 1)))
        return mean, var

    @torch.no_grad()
    def _average(self, mean: Tensor, var: Tensor) -> None:
        self.batches.add_(1)
        weight = self.batches.to(mean.dtype).reciprocal().clamp_min(self.momentum)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight.to(self.running_mean.dtype))
        self.running_var.lerp_(var.to(self.running_var.dtype), weight.to(self.running_var.dtype))
