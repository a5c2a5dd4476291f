"""Problems: a model to sample from, with the features and the truth to score it against.

`conf/model/<name>.yaml` names one of these builders. A builder takes the regime's name and the
device, and knows nothing about solvers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from seedsbench.bench.problems.identity import (
    Identity,
    finite_glyphs_identity,
    glyphs_identity,
    mixture_identity,
)
from seedsbench.checks import Range, nearest
from seedsbench.data.glyphs import FLOOR, glyphs
from seedsbench.denoisers import embedded
from seedsbench.denoisers.analytic import GaussianMixture
from seedsbench.denoisers.base import Denoiser, FixedBatch
from seedsbench.denoisers.finite_data import FiniteData
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS
from seedsbench.diffusion.noise import random_classes
from seedsbench.metrics.extraction import Extractor, full_precision
from seedsbench.metrics.glyph_features import load_glyph_features, load_glyph_reference
from seedsbench.metrics.moments import Moments


@dataclass(frozen=True, eq=False)  # hashed by identity: it holds a network
class Model:
    """A network to sample from. One that brings nothing to be scored with: the metrics group must.

    warnings: what a reader of its scores should know, a sentence each.
    """

    name: str
    denoiser: Denoiser
    model_id: str
    warnings: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Real features (n, D), for scores that compare samples one by one, and those scores' options.

    id: of the images and the extractor. kid_subsets: 0 for no KID. neighbours: 0 for no precision and recall.
    """

    rows: Tensor
    id: str
    kid_subsets: int
    kid_subset_size: int
    neighbours: int


@dataclass(frozen=True, eq=False)
class Problem(Model):
    """Everything about a cell that is neither solver nor grid.

    real(indices, labels, seed): real images, (n, C, H, W) float in [-1, 1], of the given classes (or
    of the whole distribution for None): the yardstick's own sampling error. None where there are no more
    real images than the reference's. reference_name: what a reader would call the reference. reference_shape:
    of its images, as 3x64x64, "unknown" if nothing says so, None for the model's own.
    """

    features: Extractor
    reference: Moments
    reference_id: str
    real: Callable[[Tensor, Tensor | None, int], Tensor] | None = None
    reference_name: str = "the model's own"
    reference_shape: str | None = None
    pairs: Pairs | None = None

    @property
    def identity(self) -> Identity:
        """What a run_key says of it."""
        real_id = None if self.pairs is None else self.pairs.id
        return Identity(self.model_id, self.features.id, self.reference_id, real_id)


def one_hot(classes: Tensor, n_classes: int) -> Tensor:
    """(B,) class numbers to (B, K) float32 rows."""
    return torch.nn.functional.one_hot(classes, n_classes).float()


# --- glyphs: the embedded default ---------------------------------------------------------------


def glyphs_problem(regime: str, device: str = "cpu") -> Problem:
    """The embedded 16x16 set, one network a regime, its own 64-d feature network."""
    who = glyphs_identity(regime)
    network = load_glyph_features(device)
    reference = load_glyph_reference()

    def extract(images: Tensor) -> tuple[Tensor, Tensor | None]:
        images = images.to(device)
        with torch.inference_mode(), full_precision(device):
            return network(images)

    return Problem(
        name="glyphs",
        denoiser=embedded.load_glyphs(regime, device=device),
        features=Extractor("glyphs-64d", who.features_id, 64, 10, 128.0, True, extract, device=device),
        reference=Moments(n=reference.n, mu=reference.mu, sigma=reference.sigma),
        model_id=who.model_id,
        reference_id=who.reference_id,
        real=_real_glyphs,
    )


def _real_glyphs(indices: Tensor, classes: Tensor | None, seed: int) -> Tensor:
    if classes is None:
        classes = random_classes(indices, 10, seed=seed)
    return glyphs(indices, classes, seed=seed, stream=FLOOR)


# --- analytic models: exact denoisers, exact reference moments ------------------------------------


def _regime_range(regime: str) -> dict[str, Any]:
    if regime not in PRECONDITIONERS:
        raise ValueError(nearest(regime, PRECONDITIONERS, what="regime.name"))
    preconditioner = PRECONDITIONERS[regime]
    table = getattr(preconditioner, "table", None)
    return {
        "sigma_min": preconditioner.sigma_min,
        "sigma_max": preconditioner.sigma_max,
        "sigma_table": None if table is None else table("cpu").double(),
    }


def _analytic(
    name: str,
    model: Any,
    denoiser: Denoiser,
    who: Identity,
    extract: Any,
    n_classes: int,
) -> Problem:
    mu, sigma = model.moments()

    def real(indices: Tensor, classes: Tensor | None, seed: int) -> Tensor:
        labels = None if classes is None or not model.label_dim else one_hot(classes, model.label_dim)
        return model.draw(indices, seed=seed, stream=FLOOR, labels=labels)

    return Problem(
        name=name,
        denoiser=denoiser,
        features=Extractor(
            "values", who.features_id, len(mu), n_classes, bound=4096.0, quantised=False, extract=extract
        ),
        reference=Moments(n=0, mu=np.asarray(mu), sigma=np.asarray(sigma)),
        model_id=who.model_id,
        reference_id=who.reference_id,
        real=real,
    )


def _values(samples: Tensor) -> Tensor:
    return samples.double().flatten(1).cpu()


def mixture_problem(
    regime: str,
    name: str,
    means: Annotated[list[list[float]], Range(-10, 10)],
    weights: Annotated[list[float], Range(0, 1, open_low=True)],
    std: Annotated[float, Range(1e-6, 10)],
    device: str = "cpu",
) -> Problem:
    """Isotropic Gaussian mixture; features are the values, logits the exact component posteriors.

    Means and std are such that the regimes' highest noise levels, 80 and more, drown them. device is accepted
    and unused: the exact denoiser follows its input.
    """
    who = mixture_identity(regime, name, means, weights, std)
    model = GaussianMixture(means, weights, std, labelled=len(means) > 1, **_regime_range(regime))

    def extract(samples: Tensor) -> tuple[Tensor, Tensor | None]:
        zero = torch.zeros((), dtype=torch.float64)
        return _values(samples), model.responsibilities(samples.double().cpu(), zero)

    return _analytic(name, model, model, who, extract, len(means))


def finite_glyphs_problem(
    regime: str, name: str, n_images: Annotated[int, Range(1, 10**5)], device: str = "cpu"
) -> Problem:
    """Exact denoiser of the first n_images glyphs (balanced classes): no network error at all."""
    indices = torch.arange(n_images)
    images = glyphs(indices, indices % 10, seed=0, stream=FLOOR + 1).double()
    model = FiniteData(images, **_regime_range(regime))

    def extract(samples: Tensor) -> tuple[Tensor, Tensor | None]:
        return _values(samples), None

    who = finite_glyphs_identity(regime, name, n_images)
    return _analytic(name, model, FixedBatch(model), who, extract, 0)
