# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A 1x1 convolution multiplies the channels of every pixel by one matrix, whose inverse is as exact as it can be."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch

from pyro_dgm.transforms.invertible_conv1x1 import InvertibleConv1x1
from pyro_dgm.transforms.lu_linear import LULinear
from pyro_dgm.transforms.qr_linear import QRLinear

close = torch.testing.assert_close
every_decomposition = pytest.mark.parametrize("decomposition", ["lu", "qr"])


def away_from_the_start(flow, scale=0.5):
    """The same flow in double precision, with parameters of order 1."""
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return flow.double()


def matrix(transform, channels):
    """W, read off the unit vectors: as images of a single pixel that is not zero they do, whatever the image's size."""
    shape = transform.shape if isinstance(transform, InvertibleConv1x1) else transform.flow.shape
    units = torch.zeros(channels, *shape, dtype=torch.float64)
    units[torch.arange(channels), torch.arange(channels), -1, 0] = 1
    return transform.forward_and_logdet(units)[0][..., -1, 0].mT


@every_decomposition
@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 4, 5), (8, 1, 1), (20, 1, 2)], ids=str)
def test_it_is_a_convolution(decomposition, shape):
    flow = away_from_the_start(InvertibleConv1x1(shape, decomposition=decomposition), 0.3)
    w, x = matrix(flow, shape[0]), torch.randn(4, *shape, dtype=torch.float64)
    y, logdet = flow.forward_and_logdet(x)
    close(y, torch.conv2d(x, w[..., None, None]))
    close(logdet, (torch.linalg.slogdet(w).logabsdet * shape[1] * shape[2]).expand(4))
    back, logdet_back = flow.inverse_and_logdet(y)
    close(back, x)
    close(logdet_back, -logdet)


@every_decomposition
def test_every_image_has_its_own_matrix(decomposition):
    flow = away_from_the_start(InvertibleConv1x1((3, 2, 2), decomposition=decomposition, context_dim=4), 0.3)
    h, x = torch.randn(5, 4, dtype=torch.float64), torch.randn(6, 5, 3, 2, 2, dtype=torch.float64)
    y, logdet = flow.condition(h).forward_and_logdet(x)
    close(flow.condition(h).inverse_and_logdet(y), (x, -logdet))
    for i in range(5):
        w = matrix(flow.condition(h[i]), 3)
        close(y[:, i], torch.conv2d(x[:, i], w[..., None, None]))
        close(logdet[:, i], (4 * torch.linalg.slogdet(w).logabsdet).expand(6))
    assert (y[:, 0] - flow.condition(h[1]).forward_and_logdet(x[:, 0])[0]).abs().min() > 0


@every_decomposition
def test_it_is_the_linear_flow_at_every_pixel(decomposition):
    """The very numbers that LULinear and QRLinear give without a bias."""
    flow = away_from_the_start(InvertibleConv1x1((5, 2, 3), decomposition=decomposition))
    x = torch.randn(4, 5, 2, 3, dtype=torch.float64)
    pixels = x.movedim(-3, -1)
    kind = LULinear if decomposition == "lu" else QRLinear
    assert isinstance(flow.linear, kind)
    for function in ("forward_and_logdet", "inverse_and_logdet"):
        y, logdet = getattr(flow.linear, function)(pixels)
        close(getattr(flow, function)(x), (y.movedim(-1, -3), logdet.sum((-2, -1))))


@every_decomposition
@pytest.mark.parametrize("channels", [1, 2, 3, 12, 48, 192])
def test_it_starts_as_a_random_rotation(decomposition, channels):
    flow = InvertibleConv1x1((channels, 1, 1), decomposition=decomposition)
    w = matrix(flow.double(), channels)
    close(w @ w.mT, torch.eye(channels, dtype=torch.float64), rtol=0, atol=1e-5)  # parameters were drawn as float32
    close(flow(torch.zeros(1, channels, 1, 1, dtype=torch.float64)).abs().max(), torch.zeros(()).double())
    if channels > 2:
        assert (w.abs() > 0.9).sum() < channels  # far from a permutation
        other = InvertibleConv1x1((channels, 1, 1), decomposition=decomposition).double()
        assert (w - matrix(other, channels)).abs().max() > 0.1
    if decomposition == "qr":
        assert torch.linalg.det(w) > 0


@every_decomposition
@pytest.mark.parametrize("channels", [4, 12, 48])
def test_the_inverse_is_exact_at_random_parameters(decomposition, channels):
    """Parameters as training leaves them: off their start by a third of what makes a rotation."""
    flow = away_from_the_start(InvertibleConv1x1((channels, 4, 4), decomposition=decomposition), channels**-0.5 / 3)
    x = torch.randn(8, channels, 4, 4, dtype=torch.float64)
    close(flow.inverse_and_logdet(flow.forward_and_logdet(x)[0])[0], x, rtol=0, atol=1e-8)


@every_decomposition
def test_the_inverse_of_wild_parameters(decomposition):
    """N(0, 1) everywhere, at the channels of a small image."""
    for _ in range(20):
        flow = InvertibleConv1x1((4, 2, 2), decomposition=decomposition).double()
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter)
        x = torch.randn(8, 4, 2, 2, dtype=torch.float64)
        close(flow.inverse_and_logdet(flow.forward_and_logdet(x)[0])[0], x, rtol=0, atol=1e-8)


@every_decomposition
def test_single_precision_undoes_a_long_stack(decomposition):
    flows = [InvertibleConv1x1((12, 4, 4), decomposition=decomposition) for _ in range(64)]
    start = x = torch.randn(8, 12, 4, 4)
    with torch.no_grad():
        for flow in flows:
            x = flow.forward_and_logdet(x)[0]
        for flow in reversed(flows):
            x = flow.inverse_and_logdet(x)[0]
    close(x, start, rtol=0, atol=1e-4)


@every_decomposition
@pytest.mark.parametrize("context_dim", [None, 3])
def test_gradients(decomposition, context_dim):
    flow = away_from_the_start(InvertibleConv1x1((3, 2, 1), decomposition=decomposition, context_dim=context_dim), 0.3)
    x = torch.randn(4, 3, 2, 1, dtype=torch.float64, requires_grad=True)
    h = torch.randn(4, 3, dtype=torch.float64, requires_grad=True) if context_dim else None
    for function in ("forward_and_logdet", "inverse_and_logdet"):
        tensors = [x, *flow.parameters(), *([] if h is None else [h])]

        def weighted(*_, function=function):
            y, logdet = getattr(flow if h is None else flow.condition(h), function)(x)
            return y.sin(), logdet

        assert torch.autograd.gradcheck(weighted, tensors)


@every_decomposition
def test_it_stands_in_pyro(decomposition):
    shape = (3, 2, 2)
    flow = away_from_the_start(InvertibleConv1x1(shape, decomposition=decomposition))
    base = dist.Normal(torch.zeros(shape, dtype=torch.float64), 1.0).to_event(3)
    law = dist.TransformedDistribution(base, [flow])
    y = law.rsample((6,))
    w = matrix(flow, 3)
    pixel = dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), w @ w.mT)
    close(law.log_prob(y.clone()), pixel.log_prob(y.movedim(-3, -1)).sum((-2, -1)))


@every_decomposition
def test_copies_and_single_images(decomposition):
    flow, x = InvertibleConv1x1((4, 2, 2), decomposition=decomposition), torch.randn(3, 4, 2, 2)
    other = InvertibleConv1x1((4, 2, 2), decomposition=decomposition)
    other.load_state_dict(flow.state_dict())
    for again in (other, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(again(x), flow(x))
    assert not [name for name in flow.state_dict() if "bias" in name]
    for function in (flow.forward_and_logdet, flow.inverse_and_logdet):
        close(function(x[0]), tuple(part[0] for part in function(x)))


COMPILED = """
import sys, torch
from pyro_dgm.transforms import InvertibleConv1x1
flow, x = InvertibleConv1x1((4, 2, 2), decomposition=sys.argv[1]), torch.randn(3, 4, 2, 2)
for function in (flow.forward_and_logdet, flow.inverse_and_logdet):
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(function, fullgraph=True, backend="eager")(x), function(x))
"""


@pytest.mark.slow
@every_decomposition
def test_it_is_one_graph(decomposition):
    """In an interpreter of its own, as the compiler cannot see through the checks of types that tests add."""
    subprocess.run([sys.executable, "-c", COMPILED, decomposition], check=True, cwd=Path(__file__).parents[2])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"InvertibleConv1x1 got shape=\(3,\): .*LULinear\(3, start='rotation'\)"):
        InvertibleConv1x1(3)
    with pytest.raises(ValueError, match=r"InvertibleConv1x1 got shape=\(4, 4\)"):
        InvertibleConv1x1((4, 4))
    with pytest.raises(ValueError, match=r"InvertibleConv1x1 got dim=\(0, 4, 4\)"):
        InvertibleConv1x1((0, 4, 4))
    with pytest.raises(ValueError, match=r"\(shape=\(2, 4, 4\)\) got a value of shape \(5, 3, 4, 4\)"):
        InvertibleConv1x1((2, 4, 4))(torch.randn(5, 3, 4, 4))
