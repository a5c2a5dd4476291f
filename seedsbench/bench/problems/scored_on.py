"""What a model is scored on, chosen apart from it: what `conf/metrics/<name>.yaml` names.

A builder takes a model, one with features of its own or not, and returns the problem of scoring it with a
standard extractor against a reference. References given by path are known by their contents.
"""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from tqdm import tqdm

from seedsbench.bench.problems.base import Model, Pairs, Problem
from seedsbench.bench.problems.checkpoint import Checkpoint
from seedsbench.checks import Range
from seedsbench.metrics.dinov2 import dinov2_extractor
from seedsbench.metrics.extraction import Extractor
from seedsbench.metrics.inception import inception_extractor
from seedsbench.metrics.reference import Reference, doubts, holds_images, read_reference
from seedsbench.metrics.resize import RESIZES, Resize
from seedsbench.metrics.values import values_extractor

log = logging.getLogger(__name__)

_shared = lru_cache(maxsize=2)
_EXTRACTORS = {"inception": _shared(inception_extractor), "dinov2": _shared(dinov2_extractor)}


def standard_problem(
    model: Model,
    extractor: Literal["inception", "dinov2", "values"],
    weights: str | None,
    reference: str | None,
    real: str | None,
    kid_subsets: Annotated[int, Range(0, 10**5)],
    kid_subset_size: Annotated[int, Range(2, 10**6)],
    neighbours: Annotated[int, Range(0, 10**4)],
    block: Annotated[int, Range(1, 10**4)],
    bound: Annotated[float, Range(1, 4096)],
    resize: Resize | None = None,
    device: str = "cpu",
) -> Problem:
    """`model`, scored on `extractor` ("inception", "dinov2", or "values": the samples themselves).

    weights: its file, None for where its download would be. reference: .npz with mu and sigma, EDM2's .pkl,
    or images in a folder, .zip or .npz (`arr_0`); None for the model's own statistics, else the real images.
    real: real images, or an .npz with their features, for KID (kid_subsets of kid_subset_size) and
    precision and recall (by so many neighbours); None for neither. What is known of either's images is
    compared with the model's; where they differ, the problem warns.
    block: images at a time. bound: largest |feature|. resize: how images come to DINOv2's size; None for
    the others, which bring their own. Raises FileNotFoundError and ValueError.
    """
    if (resize is not None) != (extractor == "dinov2"):
        wanted = f"one of {', '.join(RESIZES)}" if extractor == "dinov2" else "null: only dinov2 has a choice"
        raise ValueError(f"metrics.resize={resize} with extractor {extractor}: give {wanted}")
    own = isinstance(model, Checkpoint) and extractor in model.statistics_of and model.statistics
    if reference is None and own:
        reference = str(own())
    if reference is None and real is None:
        raise ValueError(
            f"{model.name} names no reference for metrics={extractor}: give metrics.reference=... "
            "(an .npz with mu and sigma, or a folder, .zip or .npz of images)"
        )
    if extractor == "values":
        found = values_extractor(model.image_shape, block=block, bound=bound)
    else:
        choice = {} if resize is None else {"resize": resize}
        found = _EXTRACTORS[extractor](weights, device, block=block, bound=bound, **choice)
    pairs, of_real = None, None
    if real is not None:
        of_real = _read(real, found, features=True)
        assert of_real.features is not None
        pairs = Pairs(of_real.features, of_real.id, kid_subsets, kid_subset_size, neighbours)
    if of_real is not None and reference in (None, real):
        chosen = of_real
    else:
        chosen = _read(str(reference), found, features=False)
    shape = tuple(model.image_shape)
    warnings = [*doubts(chosen, found.dim, shape)]
    if of_real is not None and pairs is not None:
        warnings += [said for said in doubts(of_real, 0, shape) if said not in warnings]
        if kid_subsets and len(pairs.rows) < kid_subset_size:
            warnings.append(f"{of_real.name} holds {len(pairs.rows)} images, fewer than KID's subsets want")
    return Problem(
        name=model.name,
        denoiser=model.denoiser,
        model_id=model.model_id,
        features=found,
        reference=chosen.moments,
        reference_id=chosen.id,
        reference_name=chosen.name,
        pairs=pairs,
        reference_shape=chosen.facts,
        warnings=(*model.warnings, *warnings),
        decode=model.decode,
        weaker_id=model.weaker_id,
    )


def _read(path: str, extractor: Extractor, *, features: bool) -> Reference:
    """A reference, with a progress bar where images must go through the extractor first."""
    if extractor.weights_id is not None and holds_images(path, features=features):
        log.info("features of %s: seedsbench-reference %s out.npz makes them once for all", path, path)
    with tqdm(unit="image", desc=Path(path).name, disable=None, leave=False) as bar:
        return read_reference(path, extractor, features=features, progress=bar.update)
