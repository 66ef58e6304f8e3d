# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""AutoFlow: a guide for any Pyro program with continuous latent variables, of any form that a flow can take."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoContinuous
from pyro.infer.autoguide.initialization import init_to_median
from torch import Tensor, nn
from torch.distributions import Distribution, biject_to
from torch.nn.functional import softplus

from pyro_dgm.infer.local_parameters import Program
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.make_flow import check_factory, make_flow
from pyro_dgm.transforms.neural_autoregressive import NeuralAutoregressive

QUANTILE_SAMPLES = 10_000  # the standard error of a median is then 1.3 % of a standard deviation


class AutoFlow(AutoContinuous):
    r"""Bend a normal distribution into the posterior of all latent variables together.

    .. math:: z = \mu + \sigma \odot f(\epsilon), \qquad \epsilon \sim N(0, I)

    z is the vector of all latent variables, each mapped to the real line by the bijection of its support; f is a flow,
    :math:`\mu` and :math:`\sigma` are learned, and start at ``init_loc_fn``'s point and ``init_scale``. Unlike a
    normal guide it can follow correlations, skewness and funnels. (Of several modes far apart an ELBO is content with
    one.) Learning rates of 0.01 and below are a good start: flows diverge sooner than normal guides do.

    It is a Pyro autoguide: it works with `SVI`, `Predictive`, `NeuTraReparam` and the bounds of this package, follows
    the model's device and dtype, and its parameters are made by its first call. It knows no data: guides that are to
    encode data hold a `pyro_dgm.distributions.FlowPosterior`.

    Args:
        model: A Pyro program.
        flow: Makes the flow from the number D of latent dimensions: a class, or `functools.partial` of one to set its
            options. Samples run it forward, so take one that is fast in that direction. The default can take any form,
            in one dimension too.
        init_loc_fn: Gives each latent variable its first value: one of `pyro.infer.autoguide.initialization`.
        init_scale: First standard deviation on the real line, if f starts as the identity.

    Raises:
        ValueError: If ``init_scale`` is not positive, or a flow is given instead of what makes one; at the first call,
            if the flow is none, of another dimension or needs a context, or a latent variable is in a plate that
            subsamples.

    Source: Rezende & Mohamed (ICML 2015), arXiv:1505.05770; Kucukelbir et al. (JMLR 2017), arXiv:1603.00788, section
    2.3, for the map to the real line.

    Example:
        >>> import pyro.distributions as dist
        >>> def model():
        ...     scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        ...     pyro.sample("x", dist.Normal(0.0, scale).expand([3]).to_event(1))
        >>> guide = AutoFlow(model)
        >>> step = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO()).step
        >>> loss = step()
        >>> sorted((name, value.shape) for name, value in guide().items())
        [('scale', torch.Size([])), ('x', torch.Size([3]))]
    """

    transform: Compose

    def __init__(
        self,
        model: Program,
        *,
        flow: Callable[[int], FlowTransform] = NeuralAutoregressive,
        init_loc_fn: Callable[..., Any] = init_to_median,
        init_scale: int | float = 0.1,
    ) -> None:
        if not init_scale > 0:
            raise ValueError(f"AutoFlow got init_scale={init_scale}: it must be positive.")
        check_factory(self, flow)
        super().__init__(model, init_loc_fn=init_loc_fn)
        self._make_flow, self._init_scale = flow, init_scale

    def get_base_dist(self) -> Distribution:
        """Give the noise's distribution, N(0, I)."""
        loc = self._loc()
        return dist.Normal(torch.zeros_like(loc), torch.ones_like(loc)).to_event(1)

    def get_transform(self, *args: Any, **kwargs: Any) -> FlowTransform:  # noqa: ARG002, ANN401 -- Pyro's signature
        """Give the flow with its location and scale, noise to z."""
        return self.transform

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # noqa: ANN401 -- the model's arguments
        """Give the posterior median of each element of each latent variable, estimated as in `quantiles`."""
        return {name: value[0] for name, value in self.quantiles([0.5], *args, **kwargs).items()}

    @torch.no_grad()
    def quantiles(
        self,
        quantiles: Iterable[float] | Tensor,
        *args: Any,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> dict[str, Tensor]:
        """Estimate posterior quantiles of each element of each latent variable.

        A flow's marginals have no formula: these are quantiles of 10 000 samples, the same ones at each call (the
        global random streams are not touched), taken on the real line and mapped to the support, as Pyro's guides do.

        Args:
            quantiles: Numbers between 0 and 1, Q of them.
            *args: The model's arguments; not used.
            **kwargs: Likewise.

        Returns:
            For each latent variable its quantiles, shape ``(Q, *shape)``.

        Raises:
            ValueError: Before the guide's first call.
        """
        if self.prototype_trace is None:
            raise ValueError("AutoFlow has no flow before its first call: train it, or call it once.")
        loc = self._loc()
        generator = torch.Generator(loc.device).manual_seed(0)
        shape = (QUANTILE_SAMPLES, self.latent_dim)
        noise = torch.randn(shape, generator=generator, dtype=loc.dtype, device=loc.device)
        z = self.transform.forward_and_logdet(noise)[0].sort(dim=0).values  # torch.quantile takes 2^24 numbers only
        place = torch.as_tensor(quantiles, dtype=z.dtype, device=z.device) * (len(z) - 1)
        below = place.long().clamp(max=len(z) - 2)
        rows = torch.lerp(z[below], z[below + 1], (place - below).unsqueeze(-1))
        found = [
            {site["name"]: biject_to(site["fn"].support)(value) for site, value in self._unpack_latent(row)}
            for row in rows
        ]
        return {name: torch.stack([values[name] for values in found]) for name in found[0]}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the program, as Pyro's guides do, but only of the copy; and what made the flow, if it is made."""
        make_flow = self._make_flow if self.prototype_trace is None else None
        return {**self.__dict__, "_model": None, "master": None, "_make_flow": make_flow}

    def __deepcopy__(self, memo: dict[int, Any]) -> "AutoFlow":
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        new._model = self._model
        return new

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- the model's arguments
        try:
            with torch.no_grad():  # the prototype is kept, and with it a graph would be
                super()._setup_prototype(*args, **kwargs)
            self._refuse_subsampling()
            self.transform = self._flow(self._init_loc())
        except Exception:
            self.prototype_trace = None  # so that the next call does not take half of a guide for the whole
            raise

    def _flow(self, loc: Tensor) -> Compose:
        flow = make_flow(self, self._make_flow, self.latent_dim)
        return Compose([flow, _LocScale(loc, self._init_scale)]).to(loc)

    def _loc(self) -> Tensor:
        return self.transform.flows[-1].get_parameter("loc")

    def _refuse_subsampling(self) -> None:
        for name, frames in self._cond_indep_stacks.items():
            for frame in frames:
                if frame.full_size is not None and frame.full_size != frame.size:
                    raise ValueError(
                        f"AutoFlow got the latent variable {name!r} in the plate {frame.name!r}, which draws "
                        f"{frame.size} of {frame.full_size}: it would take a new subsample's variables for those of "
                        f"the first. Amortise them by a guide of your own that holds a FlowPosterior, or give "
                        f"the plate all its data."
                    )


class _LocScale(FlowTransform):
    """Shift and scale each element by learned numbers."""

    def __init__(self, loc: Tensor, scale: int | float) -> None:
        super().__init__(len(loc))
        self.loc = nn.Parameter(loc.clone())
        self.raw_scale = nn.Parameter(loc.new_full((len(loc),), scale + math.log(-math.expm1(-scale))))  # softplus^-1

    @property
    def scale(self) -> Tensor:
        return softplus(self.raw_scale)

    def bind(self, context: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002 -- it takes none
        return self.loc, self.scale

    def _forward_and_logdet(self, x: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        loc, scale = parameters
        return loc + scale * x, scale.log().sum().expand(x.shape[:-1])

    def _inverse_and_logdet(self, y: Tensor, parameters: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        loc, scale = parameters
        return (y - loc) / scale, -scale.log().sum().expand(y.shape[:-1])
