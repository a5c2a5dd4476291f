"""Whether finished samples can be data at all: finite, and of the data's size before that is quantised away.

An image of 4e15 and one of 2 are both clipped to black and white, and then have an FID like any other. So
what samples were is measured first, sample by sample: a maximum and a count, exact in any order.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seedsbench.bench.problems.base import Problem
from seedsbench.bench.sampling import SampleBatch

# Measured with all solvers at 2 to 40 evaluations in all regimes. With fewer evaluations than their solver
# needs, samples of a Gaussian end within 170 times its data (Euler-Maruyama in two steps still holds the
# noise it began with), and images from 10 evaluations on within 270 times theirs. What explodes begins at 845
# (dpm_solver2 from a last alphas_cumprod of 1e-30) and goes to 4e15 (an epsilon network with such a table).
FAILED_BEYOND = 500.0
"""A sample so many times larger than the data fails its row."""
WARNED_BEYOND = 10.0
"""One so many times larger gives the row a warning. With enough steps: 5."""
WARNED_SHARE = 0.25
"""So does a larger share of values than this that no data can have. With enough steps: up to 0.21."""
GREY_LEVEL = 1 / 127.5
"""One level of an 8-bit image: a value beyond the data by less than that is not saturated."""
DEVIATIONS = 6.0
"""How many standard deviations data without bounds reaches from its mean: one value in 10^9 is beyond."""


class Diverged(ValueError):
    """Samples too large to be data. facts: what their row says of them."""

    def __init__(self, message: str, facts: dict[str, float | None]) -> None:
        super().__init__(message)
        self.facts = facts


def largest_of_data(problem: Problem) -> float:
    """The largest |x| that the model's data can have: 1 for images, else as the reference's moments say."""
    if problem.features.name != "values" or problem.reference is None:
        return 1.0
    reach = np.abs(problem.reference.mu) + DEVIATIONS * np.sqrt(np.diag(problem.reference.sigma))
    return float(reach.max())


def extents(problem: Problem, batch: SampleBatch) -> Tensor:
    """(B, 2) float64 on the CPU: each sample's largest |x|, and how many of its values no data can have.

    batch: of images. Raises ValueError for a sample with NaN or infinite values, Diverged for one too large
    to be data.
    """
    return _measured(problem, batch, largest_of_data(problem))


def check_latents(problem: Problem, batch: SampleBatch) -> None:
    """Raise as `extents` for samples that would be decoded: a decoder makes fair images of absurd latents.

    Latents are scaled to a standard deviation of about 1.
    """
    if problem.decode is not None:
        _measured(problem, batch, 1.0)


def _measured(problem: Problem, batch: SampleBatch, data: float) -> Tensor:
    """`extents` of samples that reach to `data`."""
    sizes = batch.x.abs().flatten(1)
    infinite = batch.indices[~sizes.isfinite().all(1).cpu()]
    if len(infinite):
        raise ValueError(
            f"sample {int(infinite[0])} has non-finite values (and {len(infinite) - 1} more in its batch)"
        )
    found = torch.stack([sizes.amax(1).double(), (sizes > data + GREY_LEVEL).sum(1).double()], 1).cpu()
    for index, extent in zip(batch.indices.tolist(), found.tolist(), strict=True):
        if extent[0] > FAILED_BEYOND * data:
            raise Diverged(
                f"samples diverged: largest |x| is {extent[0]:.3g} in sample {index}, the data's is "
                f"{data:.3g} (beyond {FAILED_BEYOND:g} times that nothing is scored): the solver, its steps "
                "or the schedule do not suit the model",
                facts_of(problem, extent, n_samples=1),
            )
    return found


def facts_of(problem: Problem, extent: Sequence[float], n_samples: int) -> dict[str, float | None]:
    """What a row says: the samples' largest |x|, the data's, and what share of values no data can have.

    The last two are None where there is no reference, and so nothing that tells the data.
    """
    if problem.reference is None:
        return {"largest": extent[0], "largest_data": None, "saturated": None}
    (largest, beyond), n_values = extent, n_samples * math.prod(problem.image_shape)
    return {"largest": largest, "largest_data": largest_of_data(problem), "saturated": beyond / n_values}


def divergence_warnings(facts: dict[str, float | None]) -> list[str]:
    """What a reader should know of samples that are unlikely to be right; nothing of others."""
    largest, data, share = facts["largest"], facts["largest_data"], facts["saturated"]
    if largest is None or data is None or share is None:
        return []
    if largest <= WARNED_BEYOND * data and share <= WARNED_SHARE:
        return []
    size = f"largest |x| is {largest:.3g}, the data's is {data:.3g}"
    return [f"samples may have diverged: {size}, and {share:.1%} of the values are beyond it"]


def facts_in(error: BaseException) -> dict[str, float | None]:
    """The facts of a Diverged error, or of the one that it was raised from; else none."""
    return next((one.facts for one in (error, error.__cause__) if isinstance(one, Diverged)), {})
