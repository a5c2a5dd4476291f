"""Exact denoisers: distributions whose E[data | data + sigma * noise] has a closed form.

They need no weights, their moments are known and the error on them is the sampler's alone. All arithmetic
is float64, whatever the dtype of x. Gaussian mixtures use only the operations of `exact.same_bits`: a
sample's result has the same bits at every position of every batch, on every IEEE device.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from seedsbench.denoisers.base import Denoiser, check_labels
from seedsbench.denoisers.preconditioning.discrete import LevelTable
from seedsbench.diffusion.process import expand
from seedsbench.exact import same_bits
from seedsbench.exact.philox import philox_normal, philox_uniform


class Analytic(Denoiser):
    """What the exact denoisers share: a shape, a range, and the noise levels a network would know.

    sigma_table: if given, `round_sigma` snaps to its nearest entry (ties: the smaller), as a network
    trained on discrete noise levels does. The denoiser itself is exact at any sigma.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        label_dim: int,
        sigma_min: float,
        sigma_max: float,
        sigma_table: Tensor | None,
    ) -> None:
        self._image_shape = image_shape
        self.img_channels, self.img_resolution = image_shape[:2]
        self.label_dim, self.sigma_min, self.sigma_max = label_dim, sigma_min, sigma_max
        self.sigma_table: Tensor | None = None
        if sigma_table is not None:
            levels = _as_float64(sigma_table).flatten()
            if levels.numel() == 0 or not torch.isfinite(levels).all():
                raise ValueError(f"sigma_table {levels.tolist()}: need at least one noise level, all finite")
            self.sigma_table = levels.unique(sorted=True)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._image_shape

    @abstractmethod
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact mean (d,) and covariance (d, d) of the data, float64, d = C*H*W in memory order."""

    @abstractmethod
    def draw(self, indices: Tensor, seed: int, stream: int, labels: Tensor | None = None) -> Tensor:
        """Exact samples (B, C, H, W), float64: pure functions of (seed, stream, sample index).

        indices: (B,) int64 in [0, 2**32). labels: (B, K) one-hot rows choose the class.
        """

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma if self.sigma_table is None else LevelTable(self.sigma_table).rounded(sigma)

    def _flat(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """x as (B, d) and sigma as () or (B, 1), float64; ValueError where shapes do not fit."""
        batch, d = x.shape[0], math.prod(self._image_shape)
        if x.ndim < 2 or math.prod(x.shape[1:]) != d:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected {d} values a sample, (B, C, H, W)")
        if sigma.ndim != 0 and tuple(sigma.shape) != (batch,):
            raise ValueError(f"sigma has shape {tuple(sigma.shape)}; expected () or ({batch},)")
        check_labels(labels, self.label_dim, batch)
        flat = x.reshape(batch, d).to(torch.float64)
        return flat, expand(sigma.to(x.device, torch.float64), flat)


class GaussianMixture(Analytic):
    """sum_k weights[k] N(means[k], std^2 I).

    means: (K, d) or (K, C, H, W). weights: (K,) positive, sum 1. std > 0, the same in all directions.
    image_shape: (C, H, W) with C*H*W = d; by default that of means, (d, 1, 1) for a matrix. Any x with
    d values a sample is taken. labelled: class k is component k; one-hot labels choose it.
    """

    def __init__(
        self,
        means: ArrayLike | Tensor,
        weights: ArrayLike | Tensor,
        std: float,
        *,
        image_shape: tuple[int, int, int] | None = None,
        labelled: bool = False,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        sigma_table: Tensor | None = None,
    ) -> None:
        centres, share = _as_float64(means), _as_float64(weights)
        if share.ndim != 1 or not torch.isfinite(centres).all():
            shapes = f"means {tuple(centres.shape)}, weights {tuple(share.shape)}"
            raise ValueError(f"{shapes}: expected finite (K, d) or (K, C, H, W), and (K,)")
        check_mixture(tuple(centres.shape), share.tolist(), std)
        shape = image_shape or (*centres.shape[1:], 1, 1)[:3]
        self.means, self.weights, self.std = centres.reshape(len(centres), -1), share, float(std)
        d = self.means.shape[1]
        if len(shape) != 3 or math.prod(shape) != d:
            raise ValueError(f"image_shape {tuple(shape)} does not hold {d} values: expected (C, H, W)")
        self._log_weights = torch.tensor([math.log(w) for w in share.tolist()], dtype=torch.float64)
        label_dim = len(centres) if labelled else 0
        super().__init__((shape[0], shape[1], shape[2]), label_dim, sigma_min, sigma_max, sigma_table)
        self.class_weights = tuple(share.tolist()) if labelled else None

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """E[data | x] = m + std^2 / (std^2 + sigma^2) (x - m), m the posterior mean of the centre."""
        flat, level = self._flat(x, sigma, labels)
        centre = self._centre(flat, level, labels)
        shrink = self.std**2 / (self.std**2 + level * level)
        return (centre + shrink * (flat - centre)).reshape(x.shape).to(x.dtype)

    def score(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Gradient of log_density, same shape and dtype as x: (D - x) / sigma^2, finite at sigma = 0 too."""
        flat, level = self._flat(x, sigma, labels)
        variance = self.std**2 + level * level
        return ((self._centre(flat, level, labels) - flat) / variance).reshape(x.shape).to(x.dtype)

    def log_density(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(x; sigma) (B,), float64, natural logarithm, of data + sigma * noise."""
        flat, level = self._flat(x, sigma, labels)
        logits = self._logits(flat, level, labels)
        highest = logits.max(dim=1).values
        total = same_bits.tree_sum(same_bits.exp(logits - highest[:, None]))
        variance = (self.std**2 + level * level).reshape(-1)
        return highest + same_bits.log(total) - 0.5 * flat.shape[1] * same_bits.log(2 * math.pi * variance)

    def responsibilities(self, x: Tensor, sigma: Tensor) -> Tensor:
        """log P(component k | x), (B, K) float64: class logits of the ideal classifier."""
        logits = self._logits(*self._flat(x, sigma, None), None)
        logits = logits - logits.max(dim=1, keepdim=True).values
        return logits - same_bits.log(same_bits.tree_sum(same_bits.exp(logits)))[:, None]

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        means, weights = self.means.numpy(), self.weights.numpy()
        mean = weights @ means
        centred = means - mean
        return mean, (weights * centred.T) @ centred + self.std**2 * np.eye(means.shape[1])

    def draw(self, indices: Tensor, seed: int, stream: int, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.label_dim, len(indices))
        d = self.means.shape[1]
        u = philox_uniform(indices, 1, seed=seed, stream=stream, draw=0)[:, 0]
        ends = torch.tensor(np.cumsum(self.weights.numpy())[:-1], device=u.device)
        component = torch.searchsorted(ends, u, right=True)
        if labels is not None:
            component = torch.where(labels.any(1), labels.argmax(1), component)
        normal = philox_normal(indices, d, seed=seed, stream=stream, draw=1)
        flat = self.means.to(u.device)[component] + self.std * normal
        return flat.reshape(-1, *self.image_shape)

    def _logits(self, flat: Tensor, level: Tensor, labels: Tensor | None) -> Tensor:
        """log(weight_k) - |x - mu_k|^2 / 2 (std^2 + sigma^2), (B, K)."""
        difference = flat[:, None, :] - self.means.to(flat.device)
        squared = same_bits.tree_sum(difference * difference)
        log_weights = self._log_weights.to(flat.device)
        if labels is not None:
            # A zero row stays unconditional; a one-hot one gives its component the weight 1.
            chosen = torch.where(labels > 0, 0.0, -math.inf).to(torch.float64)
            log_weights = torch.where(labels.any(dim=1, keepdim=True), chosen, log_weights)
        return log_weights - squared / (2 * (self.std**2 + level * level))

    def _centre(self, flat: Tensor, level: Tensor, labels: Tensor | None) -> Tensor:
        """Posterior mean of the component's centre, sum_k r_k mu_k, (B, d)."""
        if len(self.means) == 1:  # its share is 1 to the last bit
            return self.means.to(flat.device).expand(len(flat), -1)
        logits = self._logits(flat, level, labels)
        weight = same_bits.exp(logits - logits.max(dim=1, keepdim=True).values)
        share = weight / same_bits.tree_sum(weight)[:, None]
        return same_bits.tree_sum(share[:, None, :] * self.means.T.to(flat.device))


class Gaussian(GaussianMixture):
    """N(mean, std^2 I) on images. mean: a scalar or anything that broadcasts to image_shape (C, H, W)."""

    def __init__(self, mean: ArrayLike | Tensor, std: float, image_shape: tuple[int, int, int]) -> None:
        super().__init__(_as_float64(mean).expand(image_shape)[None], [1.0], std)


class FiniteData(Analytic):
    """The uniform distribution on n images: what a network of unlimited capacity learns by heart.

    images: (n, C, H, W). labels: (n,) integer classes 0..K-1, or None. D is the average of the images
    with softmax weights -|x - x_i|^2 / 2 sigma^2 (Karras et al. 2022, eq. 57). It uses matrix products:
    wrap it in `FixedBatch` where results must not depend on the batch size.
    """

    block_entries: ClassVar[int] = 2**24  # of a posterior, computed at a time: 128 MiB of float64

    def __init__(
        self,
        images: ArrayLike | Tensor,
        labels: ArrayLike | Tensor | None = None,
        *,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        sigma_table: Tensor | None = None,
    ) -> None:
        data = _as_float64(images)
        shape = tuple(data.shape)
        if len(shape) != 4 or len(data) == 0 or not torch.isfinite(data).all():
            raise ValueError(f"images have shape {shape}; expected finite (n, C, H, W) with n >= 1")
        self.images = data.reshape(len(data), -1)
        self._squares = self.images.square().sum(1)
        self.classes = None if labels is None else _checked_classes(labels, len(data))
        label_dim = 0 if self.classes is None else int(self.classes.max()) + 1
        super().__init__((shape[1], shape[2], shape[3]), label_dim, sigma_min, sigma_max, sigma_table)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        flat, level = self._flat(x, sigma, labels)
        level, rows = level.expand(len(flat), 1), max(1, self.block_entries // len(self.images))
        denoised = torch.empty_like(flat)
        for start in range(0, len(flat), rows):
            part = slice(start, start + rows)
            chosen = None if labels is None else labels[part]
            denoised[part] = self._posterior_mean(flat[part], level[part], chosen)
        return denoised.reshape(x.shape).to(x.dtype)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the finite distribution itself: the covariance is divided by n, not n - 1."""
        data = self.images.numpy()
        mean = data.mean(axis=0)
        centred = data - mean
        return mean, centred.T @ centred / len(data)

    def draw(self, indices: Tensor, seed: int, stream: int, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.label_dim, len(indices))
        u = philox_uniform(indices, 1, seed=seed, stream=stream, draw=0)[:, 0]
        row = (u * len(self.images)).long()
        if labels is not None and self.classes is not None:
            order = self.classes.to(u.device).argsort(stable=True)
            sizes = torch.bincount(self.classes).to(u.device)
            chosen = labels.argmax(1)
            within = (u * sizes[chosen]).long()
            row = torch.where(labels.any(1), order[(sizes.cumsum(0) - sizes)[chosen] + within], row)
        return self.images.to(u.device)[row].reshape(-1, *self.image_shape)

    def _posterior_mean(self, flat: Tensor, level: Tensor, labels: Tensor | None) -> Tensor:
        images, squares = self.images.to(flat.device), self._squares.to(flat.device)
        # |x|^2 is common to all images. Left out, it cannot swamp the rest at large sigma; and as
        # sigma -> 0 the floor keeps the logits finite.
        variance = (level * level).clamp(min=1e-200)
        logits = (flat @ images.T - squares / 2) / variance
        if labels is not None and self.classes is not None:
            allowed = labels[:, self.classes.to(labels.device)] > 0
            unconditional = ~labels.any(dim=1, keepdim=True)
            logits = logits.masked_fill(~(allowed | unconditional), -math.inf)
        return torch.softmax(logits, dim=1) @ images


def _as_float64(value: ArrayLike | Tensor) -> Tensor:
    """A float64 copy on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", torch.float64)
    return torch.as_tensor(np.array(value, dtype=np.float64))


def check_mixture(shape: tuple[int, ...], weights: list[float], std: float) -> None:
    """Raise ValueError unless means of this shape, these weights and std are a mixture."""
    if len(shape) not in (2, 4) or 0 in shape:
        raise ValueError(f"means have shape {shape}; expected (K, d) or (K, C, H, W)")
    if len(weights) != shape[0]:
        raise ValueError(f"weights have shape ({len(weights)},); expected one for each mean, ({shape[0]},)")
    if not all(weight > 0 for weight in weights) or abs(sum(weights) - 1) > 1e-9:
        raise ValueError(f"weights {weights} must be positive and sum to 1")
    if not 0 < std < math.inf:
        raise ValueError(f"std {std} must be positive and finite; FiniteData is the case of no width")


def _checked_classes(labels: ArrayLike | Tensor, n: int) -> Tensor:
    classes = torch.as_tensor(np.asarray(labels) if not isinstance(labels, Tensor) else labels.detach().cpu())
    shape, dtype = tuple(classes.shape), classes.dtype
    if shape != (n,) or dtype.is_floating_point:
        raise ValueError(f"labels have shape {shape} and dtype {dtype}; expected {n} integers")
    if bool((classes < 0).any()) or not bool(torch.bincount(classes.long()).all()):
        raise ValueError("labels must be classes 0..K-1, each with at least one image")
    return classes.long()
