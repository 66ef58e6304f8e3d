# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A variational autoencoder with several stochastic layers: each layer's vector is drawn given the one above."""

from collections.abc import Callable, Sequence

import pyro
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from pyro_dgm.distributions import BernoulliLikelihood, DiagonalNormal, StandardNormal
from pyro_dgm.models.check_integers import check_integers
from pyro_dgm.nn import MLP
from pyro_dgm.nn.shape import positive_shape
from pyro_dgm.nn.to_unit_interval import ToUnitInterval

Shape = tuple[int, ...]


class HierarchicalVAE(PyroModule):
    r"""A chain of L latent vectors above the data, and a guide that climbs it.

    .. math:: p(z_L) \prod_{l=1}^{L-1} p(z_l \mid z_{l+1})\; p(x \mid z_1) \quad \text{and} \quad
              q(z_1 \mid x) \prod_{l=1}^{L-1} q(z_{l+1} \mid z_l)

    The sites are ``z1`` ... ``zL`` and ``x``. With one layer it is a `VAE`, but for the name of its site.

    >>> ladder = HierarchicalVAE(shape=(8, 8), levels=2, latents=(20, 10), hidden=((50,), (30,)))
    >>> ladder.model(size=3).shape
    torch.Size([3, 8, 8])

    Args:
        shape: Shape of one datum, e.g. ``(28, 28)``.
        levels: Number of values an element can take: data are integers 0 ... levels - 1.
        latents: Dimensions of z_1 ... z_L, from the data upwards. The default is the paper's, for L = 2.
        hidden: For each layer the widths of its two networks: that of q(z_l | z_{l-1}), which sees the layer below (x,
            for the first), and, turned round, that of p(z_{l-1} | z_l), which gives it.
        prior: Makes p(z_L) from its dimension: a module whose call gives a distribution.
        conditional: Makes from a dimension the module that turns a network's output, of its ``in_shape``, into
            p(z_l | z_{l+1}) or q(z_l | z_{l-1}).
        likelihood: Makes from ``shape`` and ``levels`` a module that turns a network's output into p(x | z_1).
        net: Makes a network from the shape that comes in, the shape that goes out, and ``hidden`` by keyword. Those of
            the guide see data scaled to [0, 1].

    Raises:
        ValueError: If a size is not positive, levels is below 2, or there are not as many ``hidden`` as ``latents``.

    Source: Burda, Grosse & Salakhutdinov (ICLR 2016), arXiv:1509.00519, section 5 and figure 1; Rezende, Mohamed &
    Wierstra (ICML 2014), arXiv:1401.4082, section 2.
    """

    def __init__(
        self,
        *,
        shape: Shape,
        levels: int,
        latents: Sequence[int] = (100, 50),
        hidden: Sequence[Sequence[int]] = ((200, 200), (100, 100)),
        prior: Callable[[int], nn.Module] = StandardNormal,
        conditional: Callable[[int], nn.Module] = DiagonalNormal,
        likelihood: Callable[[Shape, int], nn.Module] = BernoulliLikelihood,
        net: Callable[[Shape, Shape], nn.Module] = MLP,
    ) -> None:
        super().__init__()
        self.shape, self.levels = positive_shape(self, "shape", shape), levels
        self.latents = positive_shape(self, "latents", latents)
        if not shape or not latents or levels < 2 or len(hidden) != len(latents):
            raise ValueError(
                f"HierarchicalVAE got shape={self.shape}, levels={levels}, latents={self.latents} and "
                f"{len(hidden)} hidden: a datum needs a size and at least 2 levels, and each layer its widths, as in "
                f"latents=(100, 50), hidden=((200, 200), (100, 100))."
            )
        self.prior = prior(self.latents[-1])
        below = [self.shape, *((size,) for size in self.latents[:-1])]
        heads = [likelihood(self.shape, levels), *(conditional(size) for size in self.latents[:-1])]
        up, down = [], []
        for size, inputs, widths, head in zip(self.latents, below, hidden, heads, strict=True):
            guess = conditional(size)
            up.append(nn.Sequential(net(inputs, guess.in_shape, hidden=tuple(widths)), guess))  # type: ignore[call-arg,arg-type]
            down.append(nn.Sequential(net((size,), head.in_shape, hidden=tuple(widths[::-1])), head))  # type: ignore[call-arg,arg-type]
        self.scaled = ToUnitInterval(levels)
        self.up, self.down = nn.ModuleList(up), nn.ModuleList(down)

    @pyro_method
    def model(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """p(z) p(x | z): score ``x``, or dream ``size`` data without it.

        Args:
            x: Integers of shape ``(B, *shape)``, or nothing.
            size: How many to dream.

        Returns:
            ``x``, or int64 data of shape ``(size, *shape)``.

        Raises:
            ValueError: If x is not integer or has another shape.
        """
        if x is not None:
            check_integers(self, x, shape=self.shape, levels=self.levels)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample(f"z{len(self.latents)}", self.prior())  # (B, L)
            for layer in range(len(self.latents) - 1, 0, -1):
                z = pyro.sample(f"z{layer}", self.down[layer](z))
            return pyro.sample("x", self.down[0](z), obs=x)  # (B, *shape)

    @pyro_method
    def guide(self, x: Tensor) -> tuple[Tensor, ...]:
        """q(z | x).

        Args:
            x: Integers of shape ``(B, *shape)``.

        Returns:
            Samples of z_1 ... z_L, shapes ``(B, latents[l])``.

        Raises:
            ValueError: If x is not integer or has another shape.
        """
        check_integers(self, x, shape=self.shape, levels=self.levels)
        found, below = [], self.scaled(x)
        with pyro.plate("data", len(x)):
            for layer, encode in enumerate(self.up, start=1):
                below = pyro.sample(f"z{layer}", encode(below))
                found.append(below)
        return tuple(found)
