# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The verb `compare` prints one table, writes it with two pictures, and refuses what makes no sense in one line."""

import json
import re

import pytest
import torch

from pyro_dgm.cli.comparison import compare_gmm, principal_components
from pyro_dgm.data import InMemory, Split

LINE = "compare gmm --data digits --methods em,mean_field,k_means --components 3 --dim 4 --sweeps 3"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    from pyro_dgm.cli import main

    folder = tmp_path_factory.mktemp("compared") / "run"
    assert main([*LINE.split(), "--folder", str(folder)]) == 0
    return folder


def test_a_folder_has_table_pictures_and_runs(compared):
    names = {path.name for path in compared.iterdir()}
    assert names == {"table.md", "table.json", "curves.png", "ellipses.png", "em", "mean_field", "k_means"}
    assert (compared / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_has_all_numbers(compared):
    table = json.loads((compared / "table.json").read_text())
    assert table["reference"] == "em"
    assert list(table["rows"]) == ["em", "mean_field", "k_means"]
    reference = table["rows"]["em"]
    assert (reference["distance"], reference["agreement"], reference["gap"]) == (0, 1, 0)
    for row in table["rows"].values():
        assert row["held_out_error"] > 0
        assert 0 < row["labels"] < 1
        assert row["sweeps"] == 3
        assert row["seconds"] > 0
    text = (compared / "table.md").read_text()
    assert text.startswith(
        "# Mixtures of 3 normals on Digits, 4 principal components of 1297 data, pixels divided by one scale\n"
    )
    assert "| em | " in text
    assert "to means of em" in text


def test_it_is_printed(say, tmp_path):
    code, out, err = say(f"{LINE} --folder {tmp_path / 'run'}")
    assert code == 0
    assert "ELBO of hard q" in out
    assert f"table:    {tmp_path / 'run' / 'table.md'}" in out
    lines = err.splitlines()
    assert lines[::2] == ["[1/3] em", "[2/3] mean_field", "[3/3] k_means"]
    assert re.fullmatch(r"\[1/3\] em: done, 3 sweeps in \d+\.\d\d s, log p\(x\) -\d+\.\d{3} nats", lines[1])
    assert [line.split(":")[0] for line in lines[1::2]] == lines[::2]
    assert "k-means++ and ten sweeps" in " ".join(out.split())


def test_from_python_with_data_of_one_s_own(tmp_path):
    x = torch.cat([torch.randn(80, 3), torch.randn(80, 3) + 8])[torch.randperm(160)]
    data = InMemory(Split(x, (x.sum(1) > 12).long()), levels=None)
    table = compare_gmm(data, folder=tmp_path / "new" / "run", dim=2, methods=["k_means", "em"], components=2, sweeps=5)
    assert table.reference == "em"
    assert [row.labels for row in table.rows] == [1.0, 1.0]
    unlabelled = InMemory(x, levels=None)
    table = compare_gmm(unlabelled, folder=tmp_path / "other", dim=2, methods=["k_means"], components=2, sweeps=5)
    assert table.reference == "k_means"
    assert table.rows[0].labels is None


def test_components_of_less_than_two_data_are_named(tmp_path):
    x = torch.cat([torch.randn(80, 3, generator=torch.Generator().manual_seed(0)), torch.full((1, 3), 99.0)])
    settings = {"methods": ["k_means"], "components": 2, "sweeps": 5}
    table = compare_gmm(InMemory(x, levels=None, valid=x, test=x), folder=tmp_path, dim=2, **settings)
    ((number, held),) = table.rows[0].few.items()
    assert held == 1
    assert table.title.endswith("2 principal components of 81 data, columns standardised")
    assert table.footnotes[-1] == f"k_means: component {number} holds 1.0 data."
    assert table.footnotes[-1] in (tmp_path / "table.md").read_text()


def test_all_components_of_digits_hold_data(compared):
    assert not any(row["few"] for row in json.loads((compared / "table.json").read_text())["rows"].values())


def test_pixels_share_one_scale():
    torch.manual_seed(0)
    x, other = torch.randn(50, 2, 3) * torch.tensor([5.0, 1.0, 0.1]), torch.randn(9, 2, 3)
    x[:, 0, 1] = 2.0
    rows = x.flatten(1).double()
    mean, scale = rows.mean(0), rows.var(0, correction=0).mean().sqrt()
    found, others = principal_components(x, other, dim=6)
    assert torch.cdist(found, others).allclose(torch.cdist(rows, other.flatten(1).double()) / scale)
    values = torch.linalg.eigvalsh((rows - mean).mT @ (rows - mean)).flip(0) / scale**2
    assert found.square().sum(0).allclose(values, atol=1e-9)
    same, _ = principal_components(torch.ones(5, 2, 2), torch.ones(5, 2, 2), dim=2)
    assert same.eq(0).all(), "constant images are only centred"


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    torch.manual_seed(0)
    x, other = torch.randn(50, 6) @ torch.randn(6, 6), torch.randn(9, 6)
    x[:, 3] = 2.0  # a constant column is only centred
    found = principal_components(x, other, dim=3)
    scaler = StandardScaler().fit(x.double().numpy())
    pca = PCA(3, svd_solver="full").fit(scaler.transform(x.double().numpy()))
    for ours, given in zip(found, (x, other), strict=True):
        theirs = torch.from_numpy(pca.transform(scaler.transform(given.double().numpy())))
        sign = (found[0] * torch.from_numpy(pca.transform(scaler.transform(x.double().numpy())))).sum(0).sign()
        assert ours.allclose(theirs * sign)


def test_a_folder_that_exists_is_left_alone(say, compared):
    code, _, err = say(f"{LINE} --folder {compared}")
    assert code == 2
    assert "exists already" in err
