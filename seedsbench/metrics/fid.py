"""Frechet distance between Gaussians, the FID of Heusel et al. 2017 (eq. 6).

d^2 = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). The eigenvalues of S1 S2 are those of the
symmetric R^T S2 R with any R R^T = S1: no general matrix square root is needed, which is slow,
complex-valued and fails on singular covariances. R is the symmetric root of S1, or, for as many features as
Inception's, the Cholesky factor of whichever covariance has the lower rank: of fewer samples than features it
has a column a sample, and the eigenproblem shrinks to as many rows.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from seedsbench.exact.blocks import one_thread
from seedsbench.metrics.moments import Moments, MomentSum

# Relative to the largest entry or eigenvalue: what float32 statistics files may show of rounding.
_ASYMMETRY = 1e-5
_NEGATIVE = 1e-4
_COLUMNS = 64  # of a pivoted factor that are found before the rest of the matrix is brought up to date


def frechet_distance(
    mu1: ArrayLike | Tensor,
    cov1: ArrayLike | Tensor,
    mu2: ArrayLike | Tensor,
    cov2: ArrayLike | Tensor,
    *,
    cholesky_from: int = 1024,
) -> float:
    """Squared Frechet (2-Wasserstein) distance of N(mu1, cov1) and N(mu2, cov2), >= 0.

    mu: (D,), cov: (D, D) symmetric positive semi-definite, singular allowed; scalars for D = 1.
    Computed in float64. ValueError for shapes that do not fit, non-finite values, and matrices that
    are not covariances. cholesky_from: the number of features from which Cholesky's factors are used where
    there are any, in a third of the time or less.
    """
    m1, s1 = checked_gaussian(mu1, cov1, "the first")
    m2, s2 = checked_gaussian(mu2, cov2, "the second")
    if m1.shape != m2.shape:
        raise ValueError(f"the means have {len(m1)} and {len(m2)} features; they must have equally many")
    with one_thread():
        inner = _inner(s1, s2, cholesky_from)
        product = _clip(torch.linalg.eigvalsh((inner + inner.T) / 2), "product of the")
        distance = (m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * product.sqrt().sum()
    return max(0.0, float(distance))


class FID:
    """Streaming FID against reference moments. Arguments as for `MomentSum`."""

    def __init__(self, dim: int, n_max: int, bound: float) -> None:
        self.sums = MomentSum(dim, n_max, bound)

    def update(self, features: Tensor, logits: Tensor | None, indices: Tensor) -> None:
        """Add features (B, D); logits and indices are not used."""
        self.sums.update(features)

    def compute(self, reference: Moments) -> dict[str, float]:
        """{"fid": distance of the samples' moments from the reference's}."""
        mine = self.sums.moments()
        return {"fid": frechet_distance(mine.mu, mine.sigma, reference.mu, reference.sigma)}


def _inner(s1: Tensor, s2: Tensor, cholesky_from: int) -> Tensor:
    """A matrix with the eigenvalues of s1 s2, symmetric but for rounding; zeros may be left out."""
    large = len(s1) >= cholesky_from
    if large:
        factors = [(factor, other) for s, other in ((s1, s2), (s2, s1)) if (factor := _factor(s)) is not None]
        if factors:
            factor, other = min(factors, key=lambda pair: pair[0].shape[1])
            return factor.T @ other @ factor
    values, vectors = torch.linalg.eigh(s1)
    values = _clip(values, "first")
    if large:  # neither has a factor: rounding errors in null directions are left out
        kept = values > len(s1) * torch.finfo(values.dtype).eps * values.max()
        factor = vectors[:, kept] * values[kept].sqrt()
        return factor.T @ s2 @ factor
    root = (vectors * values.sqrt()) @ vectors.T
    return root @ s2 @ root


def _factor(matrix: Tensor) -> Tensor | None:
    """Cholesky's factor of a covariance: (D, D), (D, rank) of a singular one; None where there is none."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return _pivoted_factor(matrix) if failed else factor


def _pivoted_factor(matrix: Tensor) -> Tensor | None:
    """A factor (D, rank) by Cholesky's method, the largest remaining variance first (Higham 2002, sec. 10.3).

    It ends where what remains is rounding: within D times the precision of the largest variance, LAPACK's
    rule too. None where more than that remains: of a matrix that is no covariance, or was stored in float32.
    """
    size, rest, blocks = len(matrix), matrix.clone(), []
    rounding = size * torch.finfo(matrix.dtype).eps * float(matrix.diagonal().max())
    while sum(map(len, blocks)) < size and float(rest.diagonal().max()) > rounding:
        rows = _next_rows(rest, rounding)
        rest.addmm_(rows.T, rows, alpha=-1)
        blocks.append(rows)
    if float(rest.abs().max()) > rounding:
        return None
    return torch.cat(blocks).T if blocks else matrix[:, :0]


def _next_rows(rest: Tensor, rounding: float) -> Tensor:
    """Up to _COLUMNS next columns of the factor as rows (n, D), of what is `rest` of the matrix."""
    rows, diagonal = torch.empty(_COLUMNS, len(rest), dtype=rest.dtype), rest.diagonal().clone()
    for n in range(_COLUMNS):
        pivot = int(diagonal.argmax())
        variance = float(diagonal[pivot])
        if variance <= rounding:
            return rows[:n]
        rows[n] = (rest[pivot] - rows[:n, pivot] @ rows[:n]) / variance**0.5
        diagonal -= rows[n] ** 2
        diagonal[pivot] = 0.0
    return rows


def checked_gaussian(mu: ArrayLike | Tensor, cov: ArrayLike | Tensor, whose: str) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D), float64 on the CPU; ValueError for what no data can have."""
    mean, matrix = torch.atleast_1d(_float64(mu)), torch.atleast_2d(_float64(cov))
    if mean.ndim != 1 or matrix.shape != (len(mean), len(mean)):
        shapes = f"{tuple(mean.shape)} and {tuple(matrix.shape)}"
        raise ValueError(f"{whose} mean and covariance have shapes {shapes}; expected (D,) and (D, D)")
    for name, value in (("mean", mean), ("covariance", matrix)):
        if not _largest(value).isfinite():
            place = (~value.isfinite()).nonzero()[0].tolist()
            raise ValueError(f"{whose} {name} is not finite at {place}: every entry must be")
    asymmetry = float((matrix - matrix.T).max())  # of either sign: the entry across has the other
    if asymmetry > _ASYMMETRY * float(_largest(matrix)):
        raise ValueError(f"{whose} covariance differs from its transpose by {asymmetry:.3g}: not symmetric")
    if (matrix.diagonal() < 0).any():
        raise ValueError(f"{whose} covariance has a negative variance at {int(matrix.diagonal().argmin())}")
    return mean, matrix if asymmetry == 0 else (matrix + matrix.T) / 2


def _largest(values: Tensor) -> Tensor:
    """The largest |entry|, without a temporary copy; not finite where one is not."""
    return torch.linalg.vector_norm(values, math.inf)


def _float64(value: ArrayLike | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", torch.float64)
    return torch.as_tensor(np.array(value, dtype=np.float64))


def _clip(eigenvalues: Tensor, which: str) -> Tensor:
    if not len(eigenvalues):
        return eigenvalues
    lowest, highest = float(eigenvalues.min()), float(eigenvalues.abs().max())
    if lowest < -_NEGATIVE * highest:
        found = f"the eigenvalue {lowest:.3g} (largest {highest:.3g})"
        raise ValueError(f"the {which} covariance has {found}: a covariance has none below zero")
    return eigenvalues.clamp(min=0.0)
