# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Every public member of every family, each as the named constructor of a small one, for the tests of the family.

A name is that of the class, with what is special about this one in brackets. A new member is one line here.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.distributions import Distribution

from pyro_dgm.data import (
    CIFAR10,
    MNIST,
    BreastCancer,
    Caltech101Silhouettes,
    Dataset,
    Digits,
    FashionMNIST,
    FreyFaces,
    InMemory,
    MiniBooNE,
    NpzFile,
    Omniglot,
    StaticMNIST,
    Table,
    TableFile,
    WineQuality,
)
from pyro_dgm.distributions import (
    Bernoulli,
    BernoulliLikelihood,
    CategoricalLevels,
    CategoricalLikelihood,
    Dequantizer,
    DiagonalNormal,
    DiscretizedLogistic,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixture,
    DiscretizedLogisticMixtureLikelihood,
    FlowPosterior,
    FlowPrior,
    Head,
    Likelihood,
    NormalMixture,
    StandardNormal,
    UniformDequantizer,
    VariationalDequantizer,
)
from pyro_dgm.infer import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    Bound,
    Capacity,
    FreeBits,
    KLBalance,
    KLControl,
    Renyi,
    ReweightedWakeSleep,
    SiteWeights,
)
from pyro_dgm.models import (
    PPCA,
    VAE,
    BernoulliMixture,
    FactorAnalysis,
    GaussianMixture,
    GaussianMixturePrior,
    KMeans,
)
from pyro_dgm.nn import (
    MLP,
    ConvNet,
    GatedConv2d,
    GatedConvDecoder,
    GatedConvEncoder,
    GatedConvTranspose2d,
    GatedLinear,
    GatedMLP,
    Net,
    ResidualConvNet,
)
from pyro_dgm.transforms import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    BatchNorm,
    Compose,
    FlowTransform,
    Glow,
    Householder,
    HouseholderSylvester,
    InverseAutoregressive,
    Invert,
    InvertibleConv1x1,
    LULinear,
    MaskedAutoregressive,
    MultiScale,
    NeuralAutoregressive,
    OrthogonalSylvester,
    Permute,
    Planar,
    QRLinear,
    Radial,
    RealNVP,
    Reversible,
    SplineAutoregressive,
    SplineCoupling,
    Split,
    Squeeze,
    Stack,
    TriangularSylvester,
)

# Layers: a constructor, the shape of one datum in, and of one out.
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "GatedConv2d": (lambda: GatedConv2d(2, 3, 5, padding=2), (2, 6, 8), (3, 6, 8)),
    "GatedConv2d (stride 2)": (lambda: GatedConv2d(2, 3, (5, 3), stride=2), (2, 7, 9), (3, 2, 4)),
    "GatedConvTranspose2d": (lambda: GatedConvTranspose2d(2, 3, (3, 2)), (2, 1, 1), (3, 3, 2)),
    "GatedConvTranspose2d (stride 2)": (
        lambda: GatedConvTranspose2d(2, 3, 5, stride=2, padding=2, output_padding=(1, 0)),
        (2, 3, 4),
        (3, 6, 7),
    ),
    "GatedLinear": (lambda: GatedLinear(3, 4), (3,), (4,)),
}

NETS: dict[str, Callable[[], Net]] = {
    "ConvNet": lambda: ConvNet((2, 4, 6), (3, 4, 6), hidden=(5, 6)),
    "ConvNet (one layer)": lambda: ConvNet((2, 4, 3), (1, 4, 3), hidden=(), kernels=(5,)),
    "GatedConvDecoder": lambda: GatedConvDecoder((4,), (1, 8, 12), width=2),
    "GatedConvDecoder (colour, odd sizes, many parameters)": lambda: GatedConvDecoder((2, 2), (5, 3, 5, 7), width=2),
    "GatedConvEncoder": lambda: GatedConvEncoder((8, 12), (6,), features=5, width=2),
    "GatedConvEncoder (colour, odd sizes)": lambda: GatedConvEncoder((3, 5, 7), (2, 3), features=5, width=2),
    "GatedMLP": lambda: GatedMLP((2, 3), (4, 2), hidden=(5, 6)),
    "MLP": lambda: MLP((2, 3), (4, 2), hidden=(5, 6), activation=nn.Tanh),
    "MLP (affine)": lambda: MLP((3,), (4,), hidden=()),
    "ResidualConvNet": lambda: ResidualConvNet((2, 4, 6), (3, 4, 6), channels=5),
    "ResidualConvNet (one block, tanh)": lambda: ResidualConvNet(
        (1, 3, 5), (4, 3, 5), channels=4, blocks=1, activation=nn.Tanh
    ),
}

# Flows, called with a dimension, and with context_dim by keyword for an amortised one.
SMALL_NET = partial(MLP, hidden=(8,), activation=nn.Tanh)


def _deep(context_dim: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(context_dim, 6), nn.Tanh(), nn.Linear(6, outputs))


SMALL_MADE = {"hidden": (7, 6), "activation": nn.Tanh}
TRANSFORMS: dict[str, Callable[..., FlowTransform]] = {
    "ActNorm": ActNorm,
    "AdditiveCoupling": partial(AdditiveCoupling, net=SMALL_NET),
    "AdditiveCoupling (first passes)": lambda dim, **context: AdditiveCoupling(
        dim, mask=[i < 1 for i in range(dim)], net=SMALL_NET, **context
    ),
    "AffineCoupling": partial(AffineCoupling, net=SMALL_NET),
    "AffineCoupling (last passes, bound 1)": lambda dim, **context: AffineCoupling(
        dim, mask=[i == dim - 1 for i in range(dim)], bound=1, net=SMALL_NET, **context
    ),
    "BatchNorm": BatchNorm,
    "BatchNorm (mean of all batches)": partial(BatchNorm, momentum=0, eps=1e-3),
    "Compose": lambda dim, **context: Compose(
        [AffineCoupling(dim, net=SMALL_NET, **context), LULinear(dim), ActNorm(dim, **context)]
    ),
    "Householder": Householder,
    "Householder (one reflection)": partial(Householder, reflections=1),
    "HouseholderSylvester": HouseholderSylvester,
    "HouseholderSylvester (2 in a row, 3 reflections)": partial(HouseholderSylvester, depth=2, reflections=3),
    "InverseAutoregressive": partial(InverseAutoregressive, **SMALL_MADE),
    "InverseAutoregressive (gated)": partial(InverseAutoregressive, gated=True, **SMALL_MADE),
    "InverseAutoregressive (ReLU)": partial(InverseAutoregressive, hidden=(9,)),
    "Invert": lambda dim, **context: Invert(AffineCoupling(dim, net=SMALL_NET, **context)),
    "LULinear": LULinear,
    "LULinear (rotation)": partial(LULinear, start="rotation"),
    "MaskedAutoregressive": partial(MaskedAutoregressive, **SMALL_MADE),
    "MaskedAutoregressive (reversed)": lambda dim, **context: MaskedAutoregressive(
        dim, order=range(dim)[::-1], **SMALL_MADE, **context
    ),
    "NeuralAutoregressive": partial(NeuralAutoregressive, units=3, **SMALL_MADE),
    "OrthogonalSylvester": OrthogonalSylvester,
    "OrthogonalSylvester (2 in a row, one direction)": partial(OrthogonalSylvester, depth=2, bottleneck=1),
    "OrthogonalSylvester (bottleneck)": lambda dim, **context: OrthogonalSylvester(
        dim, bottleneck=(dim + 1) // 2, **context
    ),
    "Permute": lambda dim: Permute([*range(1, dim), 0]),
    "Planar": Planar,
    "Planar (3 in a row)": partial(Planar, depth=3),
    "Planar (deep context net)": partial(Planar, depth=2, context_net=_deep),
    **{f"Planar ({h})": partial(Planar, activation=h) for h in ("arctan", "elu", "sigmoid", "sine", "softplus")},
    "QRLinear": QRLinear,
    "QRLinear (one reflection)": partial(QRLinear, reflections=1),
    "Radial": Radial,
    "Radial (3 in a row)": partial(Radial, depth=3),
    "Reversible": lambda dim, **context: Reversible(
        [AffineCoupling(dim, net=SMALL_NET, **context), Invert(Compose([LULinear(dim), ActNorm(dim, **context)]))]
    ),
    "SplineAutoregressive": partial(SplineAutoregressive, bins=4, **SMALL_MADE),
    "SplineCoupling": partial(SplineCoupling, bins=4, net=SMALL_NET),
    "SplineCoupling (narrow)": partial(SplineCoupling, bins=3, bound=1, net=SMALL_NET),
    "Stack": partial(Stack, flow=partial(InverseAutoregressive, **SMALL_MADE), depth=2),
    "Stack (couplings, LU between)": partial(Stack, flow=partial(SplineCoupling, net=SMALL_NET), depth=2, between="lu"),
    "TriangularSylvester": TriangularSylvester,
    "TriangularSylvester (3 in a row)": partial(TriangularSylvester, depth=3),
}

# Flows of images, called with a shape (C, H, W), and with context_dim by keyword for an amortised one.
SMALL_CONV = partial(ConvNet, hidden=(4,), kernels=(3, 3), activation=nn.Tanh)
IMAGE_TRANSFORMS: dict[str, Callable[..., FlowTransform]] = {
    "ActNorm (channels)": ActNorm,
    "AdditiveCoupling (channels)": partial(AdditiveCoupling, net=SMALL_CONV),
    "AffineCoupling (channels)": partial(AffineCoupling, net=SMALL_CONV),
    "AffineCoupling (checkerboard)": partial(AffineCoupling, mask="checkerboard", net=SMALL_CONV),
    "AffineCoupling (checkerboard, an image as context)": lambda shape, **context: AffineCoupling(
        shape, mask="checkerboard", swap=True, net=SMALL_CONV, **{h: (n, *shape[1:]) for h, n in context.items()}
    ),
    "Compose (channels)": lambda shape, **context: Compose(
        [AffineCoupling(shape, swap=swap, net=SMALL_CONV, **context) for swap in (False, True)]
    ),
    "Glow": partial(Glow, scales=2, depth=2, net=SMALL_CONV),
    "Glow (additive, qr, reversible)": partial(
        Glow, scales=2, depth=2, coupling="additive", net=SMALL_CONV, conv="qr", reversible=True
    ),
    "Glow (spline, nothing learned of the prior)": partial(
        Glow, scales=1, depth=1, coupling=partial(SplineCoupling, bins=4), net=SMALL_CONV, learned_prior=False
    ),
    "InvertibleConv1x1": InvertibleConv1x1,
    "InvertibleConv1x1 (qr)": partial(InvertibleConv1x1, decomposition="qr"),
    "MultiScale": lambda shape, **context: MultiScale(
        [AffineCoupling((n, *shape[1:]), mask="checkerboard", net=SMALL_CONV, **context) for n in (shape[0], 1)]
    ),
    "RealNVP": partial(RealNVP, net=SMALL_CONV),
    "RealNVP (one scale, learned prior, reversible)": partial(
        RealNVP, scales=1, net=SMALL_CONV, learned_prior=True, reversible=True
    ),
    "Reversible (channels)": lambda shape, **context: Reversible(
        [
            AffineCoupling(shape, net=SMALL_CONV, **context),
            Invert(InvertibleConv1x1(shape, **context)),
            SplineCoupling(shape, bins=4, mask="checkerboard", net=SMALL_CONV, **context),
            ActNorm(shape, **context),
        ]
    ),
    "SplineCoupling (channels)": partial(SplineCoupling, bins=4, net=SMALL_CONV),
    "SplineCoupling (checkerboard)": partial(SplineCoupling, bins=4, mask="checkerboard", net=SMALL_CONV),
    "Split": partial(Split, net=SMALL_CONV),
    "Squeeze": Squeeze,
}

# What some flows do not promise, by class, each with the reason.
TRANSFORMS_WITHOUT_CONTEXT = {
    "BatchNorm": "it normalises all data alike",
    "Permute": "it has no parameters",
    "Squeeze": "it has none",
}
TRANSFORMS_OF_FREE_SCALE = {  # where parameters are 100, floating point numbers end
    "ActNorm": "its log-scales are its parameters",
    "BatchNorm": "its log-scales are its parameters",
    "LULinear": "the logs of its diagonal are its parameters, and its triangles are products",
    "QRLinear": "the logs of its diagonal are its parameters",
}
TRANSFORMS_OF_MANY_MATRICES = {
    "Glow": "matrices of 8 and 16 channels with entries of order 1, multiplied, are singular"
}
TRANSFORMS_OF_WHOLE_BATCHES = {"BatchNorm": "in training mode data are normalised by their batch"}

# Distributions with batch shape (3, 2): called with the options of a tensor, dtype and device.
Build = Callable[..., Distribution]
DISTRIBUTIONS: dict[str, Build] = {
    "Bernoulli": lambda **to: Bernoulli(logits=3 * torch.randn(3, 2, **to)),
    "Bernoulli (of probabilities)": lambda **to: Bernoulli(probs=torch.rand(3, 2, **to)),
    "CategoricalLevels": lambda **to: CategoricalLevels(logits=torch.randn(3, 2, 17, **to)),
    "DiscretizedLogistic": lambda **to: DiscretizedLogistic(
        torch.randn(3, 2, **to), torch.randn(3, 2, **to) - 1, levels=256
    ),
    "DiscretizedLogistic (2 levels)": lambda **to: DiscretizedLogistic(
        torch.randn(3, 2, **to), torch.randn(3, 2, **to), levels=2
    ),
    "DiscretizedLogisticMixture": lambda **to: DiscretizedLogisticMixture(
        torch.randn(3, 2, 5, **to), torch.randn(3, 2, 5, **to), torch.randn(5, **to) - 2, levels=17
    ),
}

POSTERIORS: dict[str, Callable[[int], Head]] = {
    "DiagonalNormal": DiagonalNormal,
    "DiagonalNormal (exp)": partial(DiagonalNormal, scale="exp"),
    "DiagonalNormal (softplus_variance)": partial(DiagonalNormal, scale="softplus_variance"),
    "FlowPosterior": partial(FlowPosterior, context=5, flow=partial(Planar, depth=2)),
    "FlowPosterior (a stack)": partial(FlowPosterior, context=5, flow=partial(Stack, depth=2)),
}

PRIORS: dict[str, Callable[[int], nn.Module]] = {
    "FlowPrior": partial(FlowPrior, flow=partial(MaskedAutoregressive, hidden=(8,))),
    "NormalMixture": partial(NormalMixture, components=4),
    "StandardNormal": StandardNormal,
}

# Likelihoods, called with a shape: at two levels, at few, at those of a byte, and at those of 16-bit audio.
LIKELIHOODS: dict[str, Callable[[tuple[int, ...]], Likelihood]] = {
    "BernoulliLikelihood": partial(BernoulliLikelihood, levels=2),
    **{
        f"{likelihood.__name__} ({levels} levels)": partial(likelihood, levels=levels)
        for likelihood in (CategoricalLikelihood, DiscretizedLogisticLikelihood, DiscretizedLogisticMixtureLikelihood)
        for levels in (2, 17, 256, 65536)
    },
}

# Dequantisers, called with a shape and a number of levels.
DEQUANTIZERS: dict[str, Callable[[tuple[int, ...], int], Dequantizer]] = {
    "UniformDequantizer": UniformDequantizer,
    "VariationalDequantizer": partial(VariationalDequantizer, context=3, encoder=SMALL_CONV),
    "VariationalDequantizer (a flow of one's own)": partial(
        VariationalDequantizer, context=2, flow=partial(SplineCoupling, bins=4, mask="checkerboard", net=SMALL_CONV)
    ),
}

# Bounds, called with a number of particles.
BOUNDS: dict[str, Callable[[int], Bound]] = {
    "CIWAE": CIWAE,
    "CIWAE (dreg)": partial(CIWAE, mix=0.2, gradient="dreg"),
    "CUBO": CUBO,
    "CUBO (dreg, order 3)": partial(CUBO, order=3, gradient="dreg"),
    "ELBO": ELBO,
    "ELBO (stl)": partial(ELBO, gradient="stl"),
    "IWAE": IWAE,
    "IWAE (dreg)": partial(IWAE, gradient="dreg"),
    "MIWAE": partial(MIWAE, groups=1),
    "MIWAE (groups of one)": lambda particles: MIWAE(particles, groups=particles),
    "PIWAE": lambda particles: PIWAE(particles, groups=particles),
    "PIWAE (dreg)": lambda particles: PIWAE(particles, groups=particles, gradient="dreg"),
    "Renyi": Renyi,
    "Renyi (alpha 2, dreg)": partial(Renyi, alpha=2, gradient="dreg"),
    "ReweightedWakeSleep": ReweightedWakeSleep,
}

# Controls of the KL, for programs with a latent site z.
KL_CONTROLS: dict[str, Callable[[], KLControl]] = {
    "Capacity": lambda: Capacity(1.0, weight=2.0),
    "Capacity (of each datum)": lambda: Capacity(1.0, weight=2.0, over="datum"),
    "FreeBits": lambda: FreeBits(0.5),
    "FreeBits (all)": lambda: FreeBits(0.5, per="all"),
    "FreeBits (of each datum)": lambda: FreeBits(0.5, over="datum"),
    "FreeBits (of each dimension)": lambda: FreeBits(0.5, per="dimension"),
    "KLBalance": KLBalance,
    "SiteWeights": lambda: SiteWeights({"z": 3.0}),
}

SMALL = {"shape": (8, 8), "latent": 5, "encoder": partial(MLP, hidden=(32,)), "decoder": partial(MLP, hidden=(32,))}

# Models of 8 x 8 pictures; their ``levels`` say of how many greys.
MODELS: dict[str, Callable[[], VAE]] = {
    "VAE": partial(VAE, levels=2, **SMALL),
    "VAE (categorical)": partial(VAE, levels=17, likelihood=CategoricalLikelihood, **SMALL),
    "VAE (discretised logistic)": partial(VAE, levels=17, likelihood=DiscretizedLogisticLikelihood, **SMALL),
    "VAE (gated)": partial(VAE, **{"levels": 2, **SMALL, "encoder": partial(GatedMLP, hidden=(16,))}),
    "VAE (logistic mixture)": partial(VAE, levels=17, likelihood=DiscretizedLogisticMixtureLikelihood, **SMALL),
    "VAE (mixture prior)": partial(VAE, levels=2, prior=NormalMixture, **SMALL),
}

# Linear factor models of vectors of 6 numbers, with 2 latent dimensions.
FACTOR_MODELS: dict[str, Callable[[], FactorAnalysis | PPCA]] = {
    "FactorAnalysis": partial(FactorAnalysis, dim=6, latent=2),
    "PPCA": partial(PPCA, dim=6, latent=2),
}

# Mixtures with 3 components, of vectors of 2 numbers, or of 3 x 2 black-and-white pictures.
COVARIANCES = ("full", "tied", "diagonal", "spherical")
GAUSSIAN_MIXTURES: dict[str, Callable[[], GaussianMixture]] = {
    **{
        f"GaussianMixture ({kind})": partial(GaussianMixture, dim=2, components=3, covariance=kind, ridge=0)
        for kind in COVARIANCES
    },
    **{
        f"GaussianMixture ({kind}, prior)": partial(
            GaussianMixture, dim=2, components=3, covariance=kind, prior=GaussianMixturePrior(concentration=2)
        )
        for kind in COVARIANCES
    },
}
MIXTURES: dict[str, Callable[[], GaussianMixture | KMeans | BernoulliMixture]] = {
    "BernoulliMixture": partial(BernoulliMixture, shape=(3, 2), components=3),
    "BernoulliMixture (prior)": partial(BernoulliMixture, shape=(3, 2), components=3, prior=(2, 2)),
    **GAUSSIAN_MIXTURES,
    "KMeans": partial(KMeans, dim=2, components=3, variance=0.5),
}


def _saved(folder: Path) -> Path:
    np.savez_compressed(folder / "own.npz", train=np.arange(90).reshape(10, 3, 3) % 17)
    return folder / "own.npz"


def _table(folder: Path) -> Path:
    np.save(folder / "table.npy", np.random.default_rng(0).normal(size=(50, 3)))
    return folder / "table.npy"


# Data sets that need no files but a folder to write to.
DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "BreastCancer": lambda _: BreastCancer(),
    "Digits": lambda _: Digits(),
    "Digits (dynamic)": lambda _: Digits(binarization="dynamic"),
    "Digits (static)": lambda _: Digits(binarization="static"),
    "InMemory": lambda _: InMemory(torch.arange(90).reshape(10, 3, 3) % 17, levels=17),
    "InMemory (real)": lambda _: InMemory(torch.randn(20, 3), levels=None),
    "NpzFile": lambda folder: NpzFile(path=_saved(folder), levels=17),
    "Table": lambda _: Table(torch.randn(50, 4)),
    "TableFile": lambda folder: TableFile(path=_table(folder)),
}

# Data sets made of the real files in a folder.
DATASETS_OF_FILES: dict[str, Callable[[Path], Dataset]] = {
    "CIFAR10": lambda root: CIFAR10(variant="first4000", root=root),
    "Caltech101Silhouettes": lambda root: Caltech101Silhouettes(root=root),
    "FashionMNIST": lambda root: FashionMNIST(variant="sprite900", root=root),
    "FreyFaces": lambda root: FreyFaces(root=root),
    "MNIST": lambda root: MNIST(root=root),
    "MNIST (grey)": lambda root: MNIST(binarization="none", root=root),
    "MiniBooNE": lambda root: MiniBooNE(variant="first1523", root=root),
    "Omniglot": lambda root: Omniglot(variant="derived", root=root),
    "StaticMNIST": lambda root: StaticMNIST(root=root),
    "WineQuality": lambda root: WineQuality(root=root),
    "WineQuality (red)": lambda root: WineQuality(variant="red", root=root),
}
