# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""Theorems about flows: how they compose, what their divergences are, and which of them are special cases of others."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, TransformedDistribution, kl_divergence

from pyro_dgm.infer.bounds import elbo, iwae
from pyro_dgm.nn import MLP
from pyro_dgm.transforms import (
    AffineCoupling,
    Compose,
    HouseholderSylvester,
    InverseAutoregressive,
    Invert,
    LULinear,
    MaskedAutoregressive,
    OrthogonalSylvester,
    Planar,
    QRLinear,
    TriangularSylvester,
)
from pyro_dgm.transforms.autoregressive import Autoregressive
from pyro_dgm.transforms.elementwise import Elementwise
from pyro_dgm.transforms.orthogonalize import orthogonalize
from pyro_dgm.transforms.reflections import reflection_matrix, reflections
from tests.cases import TRANSFORMS
from tests.transforms.random_flows import (
    build,
    conditioned,
    every_flow,
    every_learned_flow,
    jacobian,
    noise,
    random_flow,
    randomise,
    standard,
)

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)
PAIRS = list(zip(TRANSFORMS, [*list(TRANSFORMS)[1:], next(iter(TRANSFORMS))], strict=True))


@pytest.mark.parametrize("names", PAIRS, ids=" then ".join)
def test_log_determinants_of_a_composition_add(names):
    first, second = (random_flow((name, False)).flow for name in names)
    flow, x = Compose([first, second]), noise(5, 4)
    y, logdet = flow.forward_and_logdet(x)
    between, of_first = first.forward_and_logdet(x)
    close((y, logdet - of_first), second.forward_and_logdet(between))
    close(logdet, jacobian(flow._call, x).slogdet()[1])
    close(flow.inverse_and_logdet(y), (x, -logdet))


@every_flow
def test_a_flow_and_its_inverse_make_the_identity(case):
    flow, x = random_flow(case, (5,)), noise(5, 4)
    both = conditioned(Compose([flow.flow, Invert(flow.flow)]), flow.context)
    close(both.forward(x), (x, torch.zeros(5).double()))


# Divergences. With p the density of y = f(x), x ~ base, and another density pi of y, whose image under the inverse of f
# is pi* of x:  KL(pi || p) = KL(pi* || base)  (Papamakarios et al. 2021, JMLR 22(57), section 2.3.3).


@pytest.mark.parametrize("kind", [LULinear, QRLinear])
def test_the_divergence_is_the_same_in_both_spaces_exactly(kind):
    """All that a linear map makes of a normal distribution is normal."""
    flow = randomise(kind(3).double())
    a = jacobian(flow._call, noise(3))
    b = flow(torch.zeros(3).double())
    scale = noise(3, 3)
    pi = MultivariateNormal(noise(3), scale @ scale.mT + torch.eye(3))
    p, base = MultivariateNormal(b, a @ a.mT), MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    back = a.inverse()
    image = MultivariateNormal(back @ (pi.loc - b), back @ pi.covariance_matrix @ back.mT)
    close(kl_divergence(pi, p), kl_divergence(image, base), rtol=1e-8, atol=1e-8)
    close(kl_divergence(p, pi), kl_divergence(base, image), rtol=1e-8, atol=1e-8)
    y = pi.sample((100,))
    close(TransformedDistribution(base, [flow]).log_prob(y), p.log_prob(y))
    _, logdet = flow.forward_and_logdet(y)
    close(p.entropy().expand(100), base.entropy() + logdet)


@every_learned_flow
def test_the_divergence_is_the_same_in_both_spaces_for_every_sample(case):
    flow = random_flow(case, scale=0.5)
    base = standard(4, noise(1))
    p, pi = flow.over(base), random_flow(("MaskedAutoregressive", False), scale=0.5).over(base)
    image = TransformedDistribution(pi, [Invert(flow.flow)])
    y = pi.sample((50,))
    x, _ = flow.inverse(y)
    close(pi.log_prob(y) - p.log_prob(y), image.log_prob(x) - base.log_prob(x))


@every_flow
def test_the_entropy_grows_by_the_mean_log_determinant(case):
    """For every sample: -log p(y) = -log base(x) + log|det dy/dx|."""
    flow, base = random_flow(case, (5,), scale=0.5), standard(4, noise(1))
    x = base.sample((5,))
    y, logdet = flow.forward(x)
    close(-flow.over(base).log_prob(y), -base.log_prob(x) + logdet)


# A flow is a variational autoencoder whose encoder and decoder are deterministic, and whose bound is tight (Nielsen et
# al. 2020, SurVAE flows, arXiv:2007.02731, section 2). With p(x | z) = N(f(z), s^2 I) and q(z | x) the image of that
# noise around the z that f maps to x, N(z, s^2 (J^T J)^-1): as s goes to 0, every log-weight is the log-likelihood.


@pytest.mark.parametrize("name", ["AffineCoupling", "MaskedAutoregressive", "Planar (3 in a row)", "LULinear"])
def test_a_flow_is_a_vae_with_deterministic_encoder_and_decoder(name):
    flow, x = random_flow((name, False), scale=0.5), noise(3, 4)
    prior = standard(4, x)
    z, _ = flow.inverse(x)
    j = jacobian(lambda v: flow.forward(v)[0], z)
    exact = flow.over(prior).log_prob(x)
    gaps = []
    for s in (1e-2, 1e-3, 1e-4):
        q = MultivariateNormal(z, precision_matrix=j.mT @ j / s**2)
        zs = q.sample((200,))
        decoded = MultivariateNormal(flow.forward(zs)[0], scale_tril=s * torch.eye(4).double())
        log_w = prior.log_prob(zs) + decoded.log_prob(x) - q.log_prob(zs)
        assert log_w.std(0).max() < 100 * s
        gaps.append((exact - elbo(log_w)).abs().max())
        close(elbo(log_w), iwae(log_w), rtol=0, atol=100 * s)
    assert gaps[2] < 1e-3
    assert gaps[2] < gaps[0]


def test_the_likelihood_contribution_of_a_deterministic_pair_is_the_log_determinant():
    """One particle, which is the encoder's z, with the log-determinant in the place of log p(x | z) - log q(z | x)."""
    flow, x = random_flow(("InverseAutoregressive", False)), noise(3, 4)
    prior = standard(4, x)
    z, contribution = flow.inverse(x)
    log_w = (prior.log_prob(z) + contribution).unsqueeze(0)
    close(elbo(log_w), flow.over(prior).log_prob(x))
    close(iwae(log_w), elbo(log_w))


# Special cases.


def affine_coupling_as_autoregressive(kind, coupling, kept, width):
    """Copy the coupling's network of one hidden layer to the units of a MADE that see just what the coupling keeps."""
    dim = coupling.dim
    flow = kind(dim, hidden=(width * (dim - 1),), activation=nn.Tanh).double()
    first, last = flow.net.linear
    source = [layer for layer in coupling.net.layers if isinstance(layer, nn.Linear)]
    units = [i for i, degree in enumerate(flow.net.degrees[0]) if degree == kept][:width]
    outputs = range(2 * kept, 2 * dim)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
        first.weight[units, :kept] = source[0].weight
        first.bias[units] = source[0].bias
        last.weight[torch.tensor(outputs).unsqueeze(1), torch.tensor(units)] = source[1].weight
        last.bias[list(outputs)] = source[1].bias
    return flow


@pytest.mark.parametrize("kind", [InverseAutoregressive, MaskedAutoregressive])
@pytest.mark.parametrize("kept", [1, 2, 3])
def test_realnvp_is_a_special_case_of_iaf_and_of_maf(kind, kept):
    """Where the network looks at the first elements only, and leaves them alone (Papamakarios et al. 2017)."""
    mask = [i < kept for i in range(4)]
    coupling = randomise(AffineCoupling(4, mask=mask, net=partial(MLP, hidden=(5,), activation=nn.Tanh))).double()
    flow, x = affine_coupling_as_autoregressive(kind, coupling, kept, 5), noise(20, 4)
    close(flow.forward_and_logdet(x), coupling.forward_and_logdet(x), rtol=1e-10, atol=1e-10)
    close(flow.inverse_and_logdet(x), coupling.inverse_and_logdet(x), rtol=1e-10, atol=1e-10)


class Backwards(Elementwise):
    """An elementwise map with both directions exchanged."""

    def __init__(self, elementwise):
        self.size, self.elementwise = elementwise.size, elementwise

    def forward_and_logdet(self, x, raw):
        return self.elementwise.inverse_and_logdet(x, raw)

    def inverse_and_logdet(self, y, raw):
        return self.elementwise.forward_and_logdet(y, raw)


@pytest.mark.parametrize("name", ["MaskedAutoregressive", "MaskedAutoregressive (reversed)", "SplineAutoregressive"])
def test_maf_and_iaf_of_one_network_are_inverse_to_each_other(name):
    """What a MAF does to data is an IAF, of the same network and the elementwise map inverted."""
    maf = random_flow((name, False)).flow
    iaf = Autoregressive(4, Backwards(maf.elementwise), order=maf.net.order, parallel="forward")
    iaf.net = maf.net
    x = noise(10, 4)
    close(iaf.forward_and_logdet(x), maf.inverse_and_logdet(x))
    close(iaf.inverse_and_logdet(x), maf.forward_and_logdet(x))
    close(Compose([iaf, maf]).forward_and_logdet(x), (x, torch.zeros(10).double()))
    close(Compose([maf, iaf]).forward_and_logdet(x), (x, torch.zeros(10).double()))


def test_an_iaf_without_scales_is_a_maf_with_the_opposite_shifts():
    """One is y = x + t(x), the inverse of the other x = y - t(y) with t for -t."""
    iaf = build(("InverseAutoregressive", False)).double()
    maf = build(("MaskedAutoregressive", False)).double()
    randomise(iaf)
    with torch.no_grad():
        last = iaf.net.linear[-1]
        last.weight[::2], last.bias[::2] = 0, 0  # the log-scales
        maf.load_state_dict(iaf.state_dict())
        maf.net.linear[-1].weight.neg_()
        maf.net.linear[-1].bias.neg_()
    x = noise(10, 4)
    close(iaf.forward_and_logdet(x), maf.inverse_and_logdet(x))
    close(iaf.inverse_and_logdet(x), maf.forward_and_logdet(x))


@pytest.mark.parametrize(
    "name", ["InverseAutoregressive", "MaskedAutoregressive (reversed)", "NeuralAutoregressive", "SplineAutoregressive"]
)
def test_an_autoregressive_jacobian_is_triangular_in_its_order(name):
    flow, x = random_flow((name, False)), noise(5, 4)
    order = list(flow.flow.net.order)
    for function in (flow.forward, flow.inverse):
        j = jacobian(lambda v, function=function: function(v)[0], x)[:, order][:, :, order]
        assert (j.triu(1).abs() < 1e-12).all()
        close(function(x)[1], j.diagonal(dim1=-2, dim2=-1).log().sum(-1))


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if "Coupling" in name and "Stack" not in name])
def test_what_a_coupling_keeps_it_keeps(name):
    flow, x = random_flow((name, False)), noise(5, 4)
    kept = flow.flow.mask.kept
    assert torch.equal(flow.forward(x)[0][:, kept], x[:, kept])
    assert torch.equal(flow.inverse(x)[0][:, kept], x[:, kept])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("build_one", "direction"),
    [
        (lambda: OrthogonalSylvester(4, bottleneck=1), lambda flow: orthogonalize(flow.values.directions)[0, :, 0]),
        (lambda: HouseholderSylvester(1, reflections=1), lambda flow: -torch.ones(1).double()),
        (lambda: TriangularSylvester(1), lambda flow: torch.ones(1).double()),
    ],
    ids=["orthogonal", "Householder", "triangular"],
)
def test_planar_with_parallel_vectors_is_sylvester_with_one_direction(build_one, direction, sign):
    """With w = r' q and u = r q (van den Berg et al. 2018, section 3)."""
    sylvester = randomise(build_one()).double()
    with torch.no_grad():
        sylvester.values.diagonal.copy_(sign * sylvester.values.triangles[..., 0].sign() * 1.3)
        q = direction(sylvester)
        r, r_tilde = sylvester.values.triangles.flatten().tanh(), sylvester.values.diagonal.flatten().tanh()
        along = r * r_tilde if sign > 0 else (r * r_tilde).log1p()  # what Planar turns into w^T u = r r'
        planar = Planar(sylvester.dim).double()
        planar.values.w.copy_(r_tilde * q)
        planar.values.u.copy_(along / r_tilde * q)
        planar.values.b.copy_(sylvester.values.shift[0])
    x = 2 * noise(20, sylvester.dim)
    close(planar.forward_and_logdet(x), sylvester.forward_and_logdet(x))
    close(planar.inverse_and_logdet(x), sylvester.inverse_and_logdet(x))


def test_the_three_sylvester_flows_are_one_formula_with_three_frames():
    """With all D directions: those of H are a product of reflections, those of T the axes."""
    householder = randomise(HouseholderSylvester(4, reflections=3)).double()
    triangular = randomise(TriangularSylvester(4)).double()
    frames = [reflection_matrix(reflections(householder.values.vectors.detach())), torch.eye(4).double().unsqueeze(0)]
    x = noise(20, 4)
    for flow, frame in zip((householder, triangular), frames, strict=True):
        orthogonal = OrthogonalSylvester(4, bottleneck=4).double()
        shared = {name: value for name, value in flow.state_dict().items() if "vectors" not in name}
        orthogonal.load_state_dict({**shared, "values.directions": frame})
        close(orthogonal.forward_and_logdet(x), flow.forward_and_logdet(x))
        close(orthogonal.inverse_and_logdet(x), flow.inverse_and_logdet(x))


def test_what_preserves_volume_says_so():
    x = noise(5, 4)
    for name in ("AdditiveCoupling", "Householder", "Permute"):
        assert random_flow((name, False)).forward(x)[1].abs().max() == 0


@pytest.mark.parametrize("name", ["Householder", "Householder (one reflection)", "Permute"])
def test_what_turns_preserves_lengths_and_angles(name):
    flow, x, other = random_flow((name, False)), noise(5, 4), noise(5, 4)
    y, turned = flow.forward(x)[0], flow.forward(other)[0]
    close(torch.linalg.vecdot(y, turned), torch.linalg.vecdot(x, other))
    close(torch.linalg.vecdot(y, y), torch.linalg.vecdot(x, x))


def test_one_reflection_is_its_own_inverse():
    flow, x = random_flow(("Householder (one reflection)", False)), noise(5, 4)
    close(flow.forward(x), flow.inverse(x))
    close(jacobian(lambda v: flow.forward(v)[0], x).det(), -torch.ones(5).double())
