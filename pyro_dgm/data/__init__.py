# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""BYTES IN: outside files become tensors of integers or reals whose checksum is known, and batches of them."""

from pyro_dgm.data.batches import Batches
from pyro_dgm.data.binarization import binarize
from pyro_dgm.data.breast_cancer import BreastCancer
from pyro_dgm.data.caltech101_silhouettes import Caltech101Silhouettes
from pyro_dgm.data.cifar10 import CIFAR10
from pyro_dgm.data.dataset import Dataset
from pyro_dgm.data.description import Description
from pyro_dgm.data.digits import Digits
from pyro_dgm.data.fashion_mnist import FashionMNIST
from pyro_dgm.data.frey_faces import FreyFaces
from pyro_dgm.data.in_memory import InMemory
from pyro_dgm.data.miniboone import MiniBooNE
from pyro_dgm.data.mnist import MNIST
from pyro_dgm.data.npz_file import NpzFile
from pyro_dgm.data.omniglot import Omniglot
from pyro_dgm.data.split import Split
from pyro_dgm.data.static_mnist import StaticMNIST
from pyro_dgm.data.table import Table
from pyro_dgm.data.table_file import TableFile
from pyro_dgm.data.wine_quality import WineQuality

__all__ = [
    "Batches",
    "BreastCancer",
    "CIFAR10",
    "Caltech101Silhouettes",
    "Dataset",
    "Description",
    "Digits",
    "FashionMNIST",
    "FreyFaces",
    "InMemory",
    "MNIST",
    "MiniBooNE",
    "NpzFile",
    "Omniglot",
    "Split",
    "StaticMNIST",
    "Table",
    "TableFile",
    "WineQuality",
    "binarize",
]
