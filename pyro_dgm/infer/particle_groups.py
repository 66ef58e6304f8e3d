# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Bounds between the ELBO and IWAE, as Pyro objectives: tight for the model, and with a signal for the guide."""

from typing import Any, ClassVar

from torch import Tensor

from pyro_dgm.infer.bound import Bound
from pyro_dgm.infer.bounds import ciwae, iwae, miwae, split_into_groups
from pyro_dgm.infer.gradients import Shares, credits, credits_of_mean, normalized


class MIWAE(Bound):
    """The mean of the importance-weighted bounds of M groups of K / M particles each.

    It is as tight as IWAE with K / M particles, and its gradient has the variance of M of them averaged.

    Args:
        num_particles: K, of all groups together.
        groups: M, which divides K.
        **options: Those of `Bound`.

    Raises:
        ValueError: If M does not divide K, or with ``gradient="vimco"`` is K.

    Source: Rainforth et al. (ICML 2018), arXiv:1802.04537, eq. 15.
    """

    def __init__(self, num_particles: int = 4, *, groups: int = 2, **options: Any) -> None:
        super().__init__(num_particles, **options)
        _check_groups(self, groups)
        self.groups = groups

    def bound(self, log_w: Tensor) -> Tensor:
        """Reduce the particles by `pyro_dgm.infer.miwae`."""
        return miwae(log_w, self.groups)

    def _signal(self, log_w: Tensor) -> Tensor:
        return _credits_in_groups(log_w, self.groups, geometric=self.gradient == "vimco")

    def _slopes(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        return _slopes_in_groups(log_w, self.groups)


class CIWAE(Bound):
    """A mixture of the ELBO and IWAE: ``mix`` of the one and the rest of the other.

    Args:
        num_particles: K.
        mix: The paper's beta, from 0 (IWAE) to 1 (ELBO). It is no weight of the KL term: that is ``beta``.
        **options: Those of `Bound`.

    Raises:
        ValueError: If ``mix`` is not between 0 and 1.

    Source: Rainforth et al. (ICML 2018), arXiv:1802.04537, eq. 16.
    """

    def __init__(self, num_particles: int = 5, *, mix: int | float = 0.5, **options: Any) -> None:
        super().__init__(num_particles, **options)
        if not 0 <= mix <= 1:
            raise ValueError(f"CIWAE got mix={mix}: a number between 0, IWAE alone, and 1, the ELBO alone, is needed.")
        self.mix = mix

    def bound(self, log_w: Tensor) -> Tensor:
        """Reduce the particles by `pyro_dgm.infer.ciwae`."""
        return ciwae(log_w, self.mix)

    def _slopes(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        share = normalized(log_w)
        return self.mix / len(log_w) + (1 - self.mix) * share, (1 - self.mix) * (share - share.square())


class PIWAE(Bound):
    """Two bounds of the same particles: the model is taught by IWAE of all K, the guide by MIWAE of M groups.

    The model gets the tightest bound, the guide the one whose gradient has more signal. The value is IWAE's. A
    parameter that model and guide share gets the sum of both gradients.

    Args:
        num_particles: K, of all groups together.
        groups: M, which divides K.
        **options: Those of `Bound`.

    Raises:
        ValueError: If M does not divide K, or with ``gradient="vimco"`` is K.

    Source: Rainforth et al. (ICML 2018), arXiv:1802.04537, eq. 17 and 18.
    """

    split: ClassVar[bool] = True
    bound = staticmethod(iwae)

    def __init__(self, num_particles: int = 4, *, groups: int = 2, **options: Any) -> None:
        super().__init__(num_particles, **options)
        _check_groups(self, groups)
        self.groups = groups

    def _signal(self, log_w: Tensor) -> Tensor:
        return _credits_in_groups(log_w, self.groups, geometric=self.gradient == "vimco")

    def _slopes(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        return _slopes_in_groups(log_w, self.groups)

    def _shares(self, log_w: Tensor) -> Shares:
        if self.gradient in ("stl", "dreg"):
            return super()._shares(log_w)
        first, _ = self._slopes(log_w)
        return Shares(path=first, score=-self.beta * first, signal=self._signal(log_w))


def _check_groups(bound: Bound, groups: int) -> None:
    if groups < 1 or bound.num_particles % groups:
        raise ValueError(
            f"{type(bound).__name__} got num_particles={bound.num_particles} and groups={groups}: the number of groups "
            f"must divide that of all particles."
        )
    if bound.gradient == "vimco" and groups == bound.num_particles:
        raise ValueError(
            f'{type(bound).__name__}(gradient="vimco") takes the other particles of a group as baseline, and got '
            f'num_particles={bound.num_particles} in as many groups: give fewer groups, or gradient="total".'
        )


def _credits_in_groups(log_w: Tensor, groups: int, *, geometric: bool) -> Tensor:
    """Credit each particle with what it adds to its group; groups of one have the mean of the others as baseline."""
    if groups == len(log_w):
        return credits_of_mean(log_w)
    return _joined(credits(iwae, split_into_groups(log_w, groups), geometric=geometric) / groups)


def _slopes_in_groups(log_w: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    share = normalized(split_into_groups(log_w, groups))
    return _joined(share / groups), _joined((share - share.square()) / groups)


def _joined(split: Tensor) -> Tensor:
    """Turn ``(K / groups, groups, *batch)`` back into ``(K, *batch)``."""
    return split.transpose(0, 1).flatten(0, 1)
