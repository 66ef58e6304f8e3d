# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""How long a sweep of EM takes, and where it leads, beside scikit-learn's GaussianMixture from the same start.

All of MNIST by default, projected on its first 50 principal components, in 50 components with full covariances.
scikit-learn computes in float64.

    python -m benchmarks.em --sweeps 3
"""

import argparse
import copy
import json
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Peer

from pyro_dgm.data import MNIST
from pyro_dgm.infer import EM
from pyro_dgm.models import GaussianMixture

PEER_NAMES = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}


def vectors(size: int, dim: int) -> torch.Tensor:
    """MNIST's pictures, all of them, in [0, 1], projected: float64, shape ``(size, dim)``."""
    data = MNIST(binarization="none")
    x = torch.cat([split.x for split in (data.train, data.valid, data.test)])[:size]
    return torch.from_numpy(PCA(dim, random_state=0).fit_transform(x.flatten(1).double().numpy() / 255))


def started(x: torch.Tensor, options: argparse.Namespace) -> GaussianMixture:
    model = GaussianMixture(dim=options.dim, components=options.components, covariance=options.covariance, ridge=1e-6)
    model.double().start(x)
    return model


def ours(model: GaussianMixture, x: torch.Tensor, sweeps: int) -> tuple[list[float], list[float]]:
    """Seconds of each sweep, and the mean log-likelihood before each and after the last."""
    step, seconds = EM(model), []
    for _ in range(sweeps):
        start = time.perf_counter()
        step(x)
        step.epoch_end()
        if x.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    step(x)
    step.evaluate()
    return seconds, step.history.objectives


def theirs(model: GaussianMixture, x: torch.Tensor, sweeps: int) -> tuple[list[float], list[float]]:
    """Seconds of each sweep but the first, and the mean log-likelihood before the first and after the last."""
    covariances = model.covariances.detach().numpy()
    matrices = model.covariance in ("full", "tied")
    peer = Peer(
        model.components,
        covariance_type=PEER_NAMES[model.covariance],
        reg_covar=model.ridge,
        weights_init=model.weights.detach().numpy().copy(),
        means_init=model.loc.detach().numpy().copy(),
        precisions_init=np.linalg.inv(covariances) if matrices else 1 / covariances,
        init_params="random_from_data",
        max_iter=1,
    )
    data, seconds = x.numpy(), []
    warnings.simplefilter("ignore", ConvergenceWarning)
    peer.fit(data)  # the start and the first sweep
    for _ in range(sweeps - 1):
        start = time.perf_counter()
        _, log_shares = peer._e_step(data)
        peer._m_step(data, log_shares)
        seconds.append(time.perf_counter() - start)
    return seconds, [float(peer.lower_bound_), float(peer.score(data))]


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    x = vectors(options.size, options.dim)
    begin, found = started(x, options), {}
    for dtype in (torch.float64, torch.float32):
        to = {"device": options.device, "dtype": dtype}
        seconds, values = ours(copy.deepcopy(begin).to(**to), x.to(**to), options.sweeps)
        name = f"pyro_dgm, {str(dtype)[6:]}, {options.device}"
        found[name] = {"seconds": statistics.median(seconds), "start": values[0], "end": values[-1]}
    if options.peer:
        seconds, values = theirs(begin, x, options.sweeps)
        found["scikit-learn, float64"] = {
            "seconds": statistics.median(seconds),
            "start": values[0],
            "end": values[-1],
        }
    return found


def table(found: dict[str, dict[str, float]], title: str) -> Table:
    rows = Table(title=title)
    for column in ("", "seconds a sweep", "times the peer", "nats at the start", "at the end"):
        rows.add_column(column, justify="right" if column else "left")
    peer = found.get("scikit-learn, float64", {"seconds": float("nan")})["seconds"]
    for name, row in found.items():
        cells = (f"{row['seconds']:.3f}", f"{row['seconds'] / peer:.2f}", f"{row['start']:.6f}", f"{row['end']:.6f}")
        rows.add_row(name, *cells)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time EM for mixtures of normals beside scikit-learn.")
    parser.add_argument("--size", type=int, default=70_000)
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--components", type=int, default=50)
    parser.add_argument("--covariance", choices=list(PEER_NAMES), default="full")
    parser.add_argument("--sweeps", type=int, default=5, help="at least 2; the median counts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args(arguments)
    found = measure(options)
    threads = f"{torch.get_num_threads()} threads, " if options.device == "cpu" else ""
    title = f"{options.size} x {options.dim}, K = {options.components} {options.covariance}, {threads}nats per datum"
    Console(width=130).print(table(found, title))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
