# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Which of one set belongs to which of another: the pairing that costs least."""

import torch
from torch import Tensor


def cheapest_pairing(cost: Tensor) -> Tensor:
    r"""Give each row a column of its own, at the least total cost.

    .. math:: \min_\pi \sum_j c_{j \pi(j)}

    Args:
        cost: Shape ``(*batch, J, K)``, J at most K, finite.

    Returns:
        The columns, int64 of shape ``(*batch, J)``, on the device of the costs.

    Source: Kuhn (1955), The Hungarian method for the assignment problem; `scipy.optimize.linear_sum_assignment`.

    >>> cheapest_pairing(torch.tensor([[3.0, 0.0], [1.0, 2.0]]))
    tensor([1, 0])
    """
    from scipy.optimize import linear_sum_assignment  # here, because it takes a while to load

    costs = cost.detach().double().cpu().reshape(-1, *cost.shape[-2:]).numpy()
    found = [torch.from_numpy(linear_sum_assignment(one)[1]) for one in costs]  # its rows come back in order
    return torch.stack(found).reshape(cost.shape[:-1]).to(cost.device)
