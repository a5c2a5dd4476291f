"""Any model held against itself: how far a solver's samples are from the ends of their exact paths."""

from typing import Annotated, Literal

from torch import Tensor

from seedsbench.bench.problems.base import Model, Problem
from seedsbench.bench.problems.exact_path import PathRule
from seedsbench.checks import Range
from seedsbench.files.digests import digest
from seedsbench.metrics.extraction import Extractor
from seedsbench.metrics.trajectory import pair_features

_BLOCK = 32  # pairs at a time: of 3 x 256 x 256 values 100 MB


def trajectory_problem(
    model: Model,
    extractor: Literal["none"],
    fine: Annotated[int, Range(8, 10**6)],
    refine: Annotated[int, Range(1, 10**4)],
    directions: Annotated[int, Range(1, 10**4)],
    device: str = "cpu",
) -> Problem:
    """`model`, whose samples (or latents, where it decodes these) are held against their exact paths.

    fine, refine: see `PathRule`. directions: random projections of the sliced Wasserstein distance. extractor
    and device are accepted and unused: there are no features.
    """

    def extract(pairs: Tensor) -> tuple[Tensor, None]:
        samples, exact = pairs.chunk(2, dim=1)
        return pair_features(samples, exact, directions), None

    shape = model.denoiser.image_shape
    identity = digest({"trajectory": [*shape], "fine": fine, "refine": refine, "directions": directions})
    dim = 1 + 2 * directions
    pairs = Extractor("trajectory", identity, dim, 0, 1.0, quantised=False, extract=extract, block=_BLOCK)
    return Problem(
        name=model.name,
        denoiser=model.denoiser,
        model_id=model.model_id,
        features=pairs,
        reference=None,
        reference_id=identity,
        reference_name="each sample's own exact path",
        warnings=model.warnings,
        weaker_id=model.weaker_id,
        paths=PathRule(fine, refine),
    )
