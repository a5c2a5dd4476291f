"""Models that are formulas: exact denoisers, scored on the values themselves against exact moments."""

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from seedsbench.bench.labels import one_hot
from seedsbench.bench.problems.base import Problem
from seedsbench.checks import Range, nearest
from seedsbench.data.glyphs import FLOOR, glyphs
from seedsbench.denoisers.analytic import FiniteData, GaussianMixture, check_mixture
from seedsbench.denoisers.base import FixedBatch
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS
from seedsbench.files.digests import digest
from seedsbench.metrics.extraction import Extractor
from seedsbench.metrics.moments import Moments


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
    and unused: the exact denoiser follows its input. Raises ValueError for parameters that do not agree.
    """
    lengths = {len(mean) for mean in means}
    if len(lengths) != 1:
        raise ValueError(f"means={means} must be one or more lists of as many numbers each")
    check_mixture((len(means), *lengths), weights, std)
    model = GaussianMixture(means, weights, std, labelled=len(means) > 1, **_regime_range(regime))

    def extract(samples: Tensor) -> tuple[Tensor, Tensor | None]:
        zero = torch.zeros((), dtype=torch.float64)
        return _values(samples), model.responsibilities(samples.double().cpu(), zero)

    parameters: dict[str, Any] = {"means": means, "weights": weights, "std": std}
    said = parameters if len(set(weights)) == 1 else {**parameters, "classes": "by weight"}
    return _problem(name, model, digest(said, regime), digest(parameters), extract, len(means))


def finite_glyphs_problem(
    regime: str, name: str, n_images: Annotated[int, Range(1, 10**5)], device: str = "cpu"
) -> Problem:
    """Exact denoiser of the first n_images glyphs (balanced classes): no network error at all."""
    indices = torch.arange(n_images)
    images = glyphs(indices, indices % 10, seed=0, stream=FLOOR + 1).double()
    model = FiniteData(images, **_regime_range(regime))

    def extract(samples: Tensor) -> tuple[Tensor, Tensor | None]:
        return _values(samples), None

    parameters = {"finite_glyphs": n_images}
    problem = _problem(name, model, digest(parameters, regime), digest(parameters), extract, 0)
    return replace(problem, denoiser=FixedBatch(model))


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


def _problem(name: str, model: Any, model_id: str, data_id: str, extract: Any, n_classes: int) -> Problem:
    mu, sigma = map(np.asarray, model.moments())

    def real(indices: Tensor, classes: Tensor | None, seed: int) -> Tensor:
        labels = None if classes is None or not model.label_dim else one_hot(classes, model.label_dim)
        return model.draw(indices, seed=seed, stream=FLOOR, labels=labels)

    values = Extractor("values", data_id, len(mu), n_classes, bound=4096.0, quantised=False, extract=extract)
    return Problem(
        name=name,
        denoiser=model,
        features=values,
        reference=Moments(n=0, mu=mu, sigma=sigma),
        model_id=model_id,
        reference_id=data_id,
        real=real,
    )


def _values(samples: Tensor) -> Tensor:
    return samples.double().flatten(1).cpu()
