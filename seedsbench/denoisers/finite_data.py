"""The exact denoiser of a finite set of images (Karras et al. 2022, appendix B.3)."""

import math
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from seedsbench.denoisers.analytic import Analytic, as_float64
from seedsbench.denoisers.base import check_labels
from seedsbench.exact.philox import philox_uniform


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
        data = as_float64(images)
        if data.ndim != 4 or len(data) == 0 or not torch.isfinite(data).all():
            raise ValueError(
                f"images have shape {tuple(data.shape)}; expected finite (n, C, H, W) with n >= 1"
            )
        self.images = data.reshape(len(data), -1)
        self._squares = self.images.square().sum(1)
        self.classes = None if labels is None else _check_classes(labels, len(data))
        label_dim = 0 if self.classes is None else int(self.classes.max()) + 1
        channels, height, width = data.shape[1:]
        super().__init__((channels, height, width), label_dim, sigma_min, sigma_max, sigma_table)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        flat, level = self._flat(x, sigma, labels)
        level = level.expand(len(flat), 1)
        rows = max(1, self.block_entries // len(self.images))
        parts = [
            self._posterior_mean(flat[i : i + rows], level[i : i + rows], _rows(labels, i, i + rows))
            for i in range(0, len(flat), rows)
        ]
        return torch.cat(parts).reshape(x.shape).to(x.dtype) if parts else x.clone()

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


def _rows(labels: Tensor | None, start: int, stop: int) -> Tensor | None:
    return None if labels is None else labels[start:stop]


def _check_classes(labels: ArrayLike | Tensor, n: int) -> Tensor:
    classes = torch.as_tensor(np.asarray(labels) if not isinstance(labels, Tensor) else labels.detach().cpu())
    if tuple(classes.shape) != (n,) or classes.is_floating_point():
        raise ValueError(
            f"labels have shape {tuple(classes.shape)} and dtype {classes.dtype}; expected {n} integers"
        )
    counts = torch.bincount(classes.long()) if bool((classes >= 0).all()) else torch.zeros(1)
    if not (counts > 0).all():
        raise ValueError("labels must be classes 0..K-1, each with at least one image")
    return classes.long()
