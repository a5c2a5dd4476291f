"""What several metrics share.

A metric must not depend, in any bit, on how samples were batched, ordered or split over ranks. Two
ways lead there: sums of integers (moments, Inception score), which are exact in any order, and a
table filled by sample index (KID, precision and recall), whose scoring sees one fixed layout.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

State = dict[str, np.ndarray]
"""What an accumulator has seen, as plain arrays: to be saved, sent, and added to another's, exactly."""


class FeatureTable:
    """The features (or logits) of all samples, one row for each sample index, on the CPU.

    For metrics that need pairs of samples. In float32 these are 410 MB for 50,000 Inception rows.
    """

    def __init__(self, n_total: int, dim: int, dtype: torch.dtype = torch.float32) -> None:
        self.rows = torch.zeros(n_total, dim, dtype=dtype)
        self.seen = torch.zeros(n_total, dtype=torch.bool)

    def update(self, features: Tensor, logits: Tensor | None, indices: Tensor) -> None:
        """Store rows by sample index in [0, n_total); logits are not used."""
        expected = (len(indices), self.rows.shape[1])
        if features.shape != expected:
            raise ValueError(f"features have shape {tuple(features.shape)}; expected {expected}")
        check_indices(indices, len(self.rows))
        check_finite(features)
        where = indices.cpu()
        self.rows[where] = features.detach().to("cpu", self.rows.dtype)
        self.seen[where] = True

    def state(self) -> State:
        """The rows seen, and their sample indices."""
        return {"indices": self.seen.nonzero().flatten().numpy(), "rows": self.rows[self.seen].numpy()}

    def add(self, state: Mapping[str, np.ndarray]) -> None:
        """Store the rows of another table's state()."""
        where = torch.from_numpy(state["indices"])
        self.rows[where] = torch.from_numpy(state["rows"])
        self.seen[where] = True

    def complete(self) -> Tensor:
        """All rows (n_total, D); ValueError that names the first missing sample index."""
        missing = (~self.seen).nonzero()
        if len(missing):
            what = f"{len(missing)} of {len(self.seen)} samples were not scored"
            raise ValueError(f"{what}, the first has index {int(missing[0])}: update or add them first")
        return self.rows


def as_matrix(features: ArrayLike | Tensor, name: str) -> Tensor:
    """A float64 CPU tensor (n, D); ValueError unless it is a finite matrix. name: for the message."""
    tensor = features if isinstance(features, Tensor) else torch.as_tensor(np.asarray(features))
    if tensor.ndim != 2:
        raise ValueError(f"{name} have shape {tuple(tensor.shape)}; expected a matrix (n, D)")
    check_finite(tensor, name)
    return tensor.detach().to("cpu", torch.float64)


def check_finite(values: Tensor, name: str = "features") -> None:
    """Raise ValueError that names the first row and column of a (n, D) tensor that is not finite."""
    bad = ~torch.isfinite(values)
    if bad.any():
        row, column = (int(i) for i in bad.nonzero()[0])
        value = float(values[row, column])
        raise ValueError(f"{name}: row {row}, column {column} is {value}; every value must be finite")


def check_indices(indices: Tensor, n_total: int) -> None:
    """Raise ValueError unless every sample index is in [0, n_total)."""
    bad = indices[(indices < 0) | (indices >= n_total)]
    if bad.numel():
        raise ValueError(f"sample index {int(bad[0])} is out of range: expected 0 to {n_total - 1}")
