# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Invertible maps that know their volume change: normalizing flows.

Each is one class, *learned* (``Planar(2)``) or *amortised* (``Planar(2, context_dim=h)``: its parameters come from a
context, one set for each datum), with an exact inverse; value and ``log|det J|``, in nats, are computed together. They
stand in Pyro's `TransformedDistribution` and `ConditionalTransformedDistribution`: sampling runs forward, scoring the
inverse; `Invert` exchanges them.
"""

from pyro_dgm.transforms.act_norm import ActNorm
from pyro_dgm.transforms.additive_coupling import AdditiveCoupling
from pyro_dgm.transforms.affine_coupling import AffineCoupling
from pyro_dgm.transforms.base import FlowTransform
from pyro_dgm.transforms.batch_norm import BatchNorm
from pyro_dgm.transforms.compose import Compose
from pyro_dgm.transforms.glow import Glow
from pyro_dgm.transforms.householder import Householder
from pyro_dgm.transforms.householder_sylvester import HouseholderSylvester
from pyro_dgm.transforms.inverse_autoregressive import InverseAutoregressive
from pyro_dgm.transforms.invert import Invert
from pyro_dgm.transforms.invertible_conv1x1 import InvertibleConv1x1
from pyro_dgm.transforms.logit import Logit
from pyro_dgm.transforms.lu_linear import LULinear
from pyro_dgm.transforms.masked_autoregressive import MaskedAutoregressive
from pyro_dgm.transforms.multi_scale import MultiScale
from pyro_dgm.transforms.neural_autoregressive import NeuralAutoregressive
from pyro_dgm.transforms.orthogonal_sylvester import OrthogonalSylvester
from pyro_dgm.transforms.permute import Permute
from pyro_dgm.transforms.planar import Planar
from pyro_dgm.transforms.qr_linear import QRLinear
from pyro_dgm.transforms.radial import Radial
from pyro_dgm.transforms.real_nvp import RealNVP
from pyro_dgm.transforms.reversible import Reversible
from pyro_dgm.transforms.solve import ConvergenceError
from pyro_dgm.transforms.spline_autoregressive import SplineAutoregressive
from pyro_dgm.transforms.spline_coupling import SplineCoupling
from pyro_dgm.transforms.split import Split
from pyro_dgm.transforms.squeeze import Squeeze
from pyro_dgm.transforms.stack import Stack
from pyro_dgm.transforms.triangular_sylvester import TriangularSylvester

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "BatchNorm",
    "Compose",
    "ConvergenceError",
    "FlowTransform",
    "Glow",
    "Householder",
    "HouseholderSylvester",
    "InverseAutoregressive",
    "Invert",
    "InvertibleConv1x1",
    "LULinear",
    "Logit",
    "MaskedAutoregressive",
    "MultiScale",
    "NeuralAutoregressive",
    "OrthogonalSylvester",
    "Permute",
    "Planar",
    "QRLinear",
    "Radial",
    "RealNVP",
    "Reversible",
    "SplineAutoregressive",
    "SplineCoupling",
    "Split",
    "Squeeze",
    "Stack",
    "TriangularSylvester",
]
