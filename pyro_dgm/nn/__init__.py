# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Neural networks that turn tensors into tensors and know nothing of probability.

Every net is built as ``Net(in_shape, out_shape, **options)`` and maps ``(*batch, *in_shape)`` to
``(*batch, *out_shape)`` for any number of leading dimensions; the layers they are made of are public too.
"""

from pyro_dgm.nn.conv_net import ConvNet
from pyro_dgm.nn.gated_conv2d import GatedConv2d
from pyro_dgm.nn.gated_conv_decoder import GatedConvDecoder
from pyro_dgm.nn.gated_conv_encoder import GatedConvEncoder
from pyro_dgm.nn.gated_conv_transpose2d import GatedConvTranspose2d
from pyro_dgm.nn.gated_linear import GatedLinear
from pyro_dgm.nn.gated_mlp import GatedMLP
from pyro_dgm.nn.mlp import MLP
from pyro_dgm.nn.net import Net
from pyro_dgm.nn.residual_conv_net import ResidualConvNet

__all__ = [
    "ConvNet",
    "GatedConv2d",
    "GatedConvDecoder",
    "GatedConvEncoder",
    "GatedConvTranspose2d",
    "GatedLinear",
    "GatedMLP",
    "MLP",
    "Net",
    "ResidualConvNet",
]
