"""Verdicts: is one solver better than another at a budget, by how much, and how sure is that.

Runs that start from the same latents rise and fall together, so their difference is far better known than
either score: it is judged over the runs that two cells have in common, by Student's t. All comparisons of
one budget are judged at once, by Holm's rule (Holm 1979), so that among solvers that are all alike one is
called better with a probability of LEVEL at most. Runs of different latents are independent: Welch's t.

Another training of the same network moves a score more than other samples do ("The FID Lottery", arXiv
2606.20536): a difference below SMALLEST of the score says nothing, unless several trainings agree on it; and
where trainings disagree on its sign, nothing does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.05
SMALLEST = 0.013


class RunId(NamedTuple):
    """What a score depends on beside its cell: the network's training, and all that decides the latents."""

    training: str
    latents: str


Scores = Mapping[RunId, float]
"""A cell's scores by run."""


class RunSpread(NamedTuple):
    """A cell's mean score, over trainings of the means over their runs, and what it varies by.

    std: over the runs of a training (n - 1; of all trainings together). error: the mean's standard error for
    these networks, of so many degrees of freedom. trainings: how many; trainings_std: over their means.
    """

    mean: float
    std: float
    error: float
    freedom: int
    trainings: int
    trainings_std: float


def spread_over_runs(scores: Scores) -> RunSpread:
    """What the scores of at least one run vary by; nan where that takes more of them."""
    parts = list(_by_training(scores).values())
    means = np.array([part.mean() for part in parts])
    freedom = len(scores) - len(parts)
    squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    std = math.sqrt(squares / freedom) if freedom else math.nan
    error = std * math.sqrt(sum(1 / len(part) for part in parts)) / len(parts)
    apart = float(means.std(ddof=1)) if len(parts) > 1 else math.nan
    return RunSpread(float(means.mean()), std, error, freedom, len(parts), apart)


@dataclass(frozen=True)
class Difference:
    """The second cell's mean score less the first's.

    error: its standard error; nan where neither kind of error can be told. freedom: degrees of freedom of
    that. paired: over n runs that both have, not two independent means (n: the fewer of either's runs).
    unpaired: the standard error of two independent means. correlation: of the paired scores. share: of the
    lower of the two means. agree: whether all trainings have its sign; None if there is one.
    """

    value: float = math.nan
    error: float = math.nan
    freedom: float = math.nan
    paired: bool = False
    n: int = 0
    unpaired: float = math.nan
    correlation: float = math.nan
    share: float = math.nan
    agree: bool | None = None

    @property
    def p(self) -> float:
        """The chance of a difference at least as large between cells that are alike (two-sided)."""
        if not self.error > 0:
            return math.nan if math.isnan(self.error) else float(self.value == 0)
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.error))

    @property
    def interval(self) -> tuple[float, float]:
        """Where the difference lies with a confidence of 1 - LEVEL, not corrected for other comparisons."""
        half = float(stdtrit(self.freedom, 1 - LEVEL / 2)) * self.error if self.error > 0 else self.error
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Verdict:
    """What may be said of the first of two cells: better, worse or inconclusive, and then why.

    p: the difference's, corrected for the number of comparisons it was judged among.
    """

    word: str
    why: str
    difference: Difference
    p: float
    comparisons: int

    @property
    def clear(self) -> bool:
        """Whether one of the two is better."""
        return self.word != "inconclusive"


def difference(first: Scores, second: Scores) -> Difference:
    """The second cell's score less the first's: paired where they have two runs in common, else not."""
    if not (first and second):
        return Difference()
    common = sorted(first.keys() & second.keys())
    if len(common) < 2:
        return _unpaired(first, second)
    a, b = (np.array([scores[run] for run in common]) for scores in (first, second))
    found = spread_over_runs({run: y - x for run, x, y in zip(common, a, b, strict=True)})
    if not found.freedom:  # one run of each training
        return _unpaired(first, second)
    known = len(common) > 2 and a.std() > 0 and b.std() > 0
    return Difference(
        value=found.mean,
        error=found.error,
        freedom=found.freedom,
        paired=True,
        n=len(common),
        unpaired=_unpaired(first, second).error,
        correlation=float(np.corrcoef(a, b)[0, 1]) if known else math.nan,
        share=_share(found.mean, a.mean(), b.mean()),
        agree=_agree({run: first[run] for run in common}, {run: second[run] for run in common}),
    )


def judge(differences: Sequence[Difference]) -> list[Verdict]:
    """Verdicts on the first cell of each of the differences, which are corrected for one another's number."""
    known = sorted((d.p, i) for i, d in enumerate(differences) if not math.isnan(d.p))
    corrected, largest = [math.nan] * len(differences), 0.0
    for place, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * p))
        corrected[i] = largest
    return [_verdict(d, p, len(known)) for d, p in zip(differences, corrected, strict=True)]


def _verdict(found: Difference, p: float, comparisons: int) -> Verdict:
    if math.isnan(found.value):
        why = "no score"
    elif math.isnan(p):
        why = "one run: its error is unknown"
    elif found.value == 0 and found.error == 0:
        why = "the same scores"
    elif p > LEVEL:
        why = "within its error"
    elif found.agree is False:
        why = "trainings disagree"
    elif found.share < SMALLEST and not found.agree:
        why = f"below {SMALLEST:.1%} of the score"
    else:
        return Verdict("better" if found.value > 0 else "worse", "", found, p, comparisons)
    return Verdict("inconclusive", why, found, p, comparisons)


def _by_training(values: Scores) -> dict[str, np.ndarray]:
    parts: dict[str, list[float]] = {}
    for run in sorted(values):
        parts.setdefault(run.training, []).append(values[run])
    return {training: np.array(part, float) for training, part in parts.items()}


def _unpaired(first: Scores, second: Scores) -> Difference:
    """Of two independent means, with Welch's degrees of freedom."""
    x, y = spread_over_runs(first), spread_over_runs(second)
    error = math.hypot(x.error, y.error)
    parts = sum(one.error**4 / one.freedom for one in (x, y) if one.freedom)
    freedom = error**4 / parts if parts > 0 else min(x.freedom, y.freedom)
    value = y.mean - x.mean
    n = min(len(first), len(second))
    share = _share(value, x.mean, y.mean)
    return Difference(value, error, freedom, False, n, error, share=share, agree=_agree(first, second))


def _share(value: float, first: float, second: float) -> float:
    lower = min(first, second)
    return abs(value) / lower if lower > 0 else math.inf


def _agree(first: Scores, second: Scores) -> bool | None:
    one, two = _by_training(first), _by_training(second)
    signs = {np.sign(two[name].mean() - one[name].mean()) for name in one.keys() & two.keys()}
    return len(signs) == 1 if len(one.keys() & two.keys()) > 1 else None
