# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""BreastCancer: 569 rows of 30 measurements of cell nuclei that come with scikit-learn, so that no file is needed."""

import torch

from pyro_dgm.data.table import Table

_SPLIT_SEED = 0  # never change it: the split is what makes numbers comparable


class BreastCancer(Table):
    """30 real numbers for each of 569 biopsies, standardised; labels 0 (malignant) and 1 (benign).

    There is no official split and the file begins with malignant cases, so the rows are shuffled first, the same way
    everywhere, and then split as `Table` does: 462, 51 and 56.

    Source: Wolberg, Mangasarian & Street, Breast Cancer Wisconsin (Diagnostic) (UCI, 1995).

    >>> BreastCancer().train.x.shape
    torch.Size([462, 30])
    """

    def __init__(self) -> None:
        from sklearn.datasets import load_breast_cancer

        found = load_breast_cancer()
        super().__init__(
            torch.from_numpy(found.data.copy()),
            labels=torch.from_numpy(found.target).to(torch.int64),
            columns=[str(name) for name in found.feature_names],
            seed=_SPLIT_SEED,
            name="BreastCancer",
            licence="CC BY 4.0 (UCI)",
            source="scikit-learn's load_breast_cancer",
            citation="Wolberg, Mangasarian & Street, Breast Cancer Wisconsin (Diagnostic), UCI 1995",
        )
