"""Verdicts: what is found, what is not, and how often something is found that is not there."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from seedsbench.report.verdicts import LEVEL, RunId, difference, judge

RUNS = [RunId("0", str(seed)) for seed in range(5)]


def scores(values, runs=RUNS):
    return dict(zip(runs, map(float, values), strict=True))


def planted(errors, n=5, seed=0):
    """Two cells whose common part is large; their difference is so many of its standard errors."""
    random = np.random.default_rng(seed)
    common, own = 10 + random.normal(size=n), random.normal(size=n)
    own = (own - own.mean()) / own.std(ddof=1)
    step = own + errors / math.sqrt(n)
    runs = [RunId("0", str(seed)) for seed in range(n)]
    return scores(common, runs), scores(common + step, runs)


def test_half_an_error_is_inconclusive_and_five_are_found():
    (near,), (far,) = (judge([difference(*planted(errors))]) for errors in (0.5, 5))
    assert (near.word, near.why) == ("inconclusive", "within its error")
    assert (far.word, far.difference.paired, far.difference.n) == ("better", True, 5)
    (turned,) = judge([difference(*reversed(planted(5)))])
    assert turned.word == "worse"


def test_it_is_students_paired_t():
    first, second = planted(2.0)
    found = difference(first, second)
    wanted: Any = stats.ttest_rel(list(second.values()), list(first.values()))
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.interval == pytest.approx(tuple(wanted.confidence_interval(1 - LEVEL)))
    apart = difference(first, {RunId("0", f"other {run.latents}"): value for run, value in second.items()})
    wanted = stats.ttest_ind(list(second.values()), list(first.values()), equal_var=False)
    assert (apart.paired, apart.p) == (False, pytest.approx(wanted.pvalue))
    assert apart.error == pytest.approx(found.unpaired)


@pytest.mark.parametrize("solvers", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_among_ties_something_is_found_no_more_often_than_stated(solvers):
    """1,000 budgets at which all are alike; the best of six is picked by its score, as the report does."""
    random, found = np.random.default_rng(1), 0
    for _ in range(1000):
        common = random.normal(size=5)
        cells = [scores(10 + common + random.normal(size=5)) for _ in range(solvers)]
        found += any(
            verdict.clear for verdict in judge([difference(*pair) for pair in combinations(cells, 2)])
        )
    assert 0 < found <= 1000 * LEVEL + 2 * math.sqrt(1000 * LEVEL * (1 - LEVEL))


def test_other_latents_are_never_paired():
    first, second = planted(5)
    moved = {run._replace(latents=f"other {run.latents}"): value for run, value in second.items()}
    found = difference(first, moved)
    assert (found.paired, found.value) == (False, pytest.approx(difference(first, second).value))
    assert math.isnan(found.correlation)
    half = {run: value for run, value in list(second.items())[:3]} | dict(list(moved.items())[3:])
    found = difference(first, half)
    assert (found.paired, found.n) == (True, 3)
    pairs = list(zip(first.values(), second.values(), strict=True))[:3]
    assert found.value == pytest.approx(np.mean([y - x for x, y in pairs]))


def test_a_small_gap_needs_trainings_that_agree():
    wobble = np.array([0.001, -0.001, 0.0, 0.001, -0.001])
    low = scores(1 + wobble)
    (one,) = judge([difference(low, scores(1.01 + 2 * wobble))])
    assert (one.word, one.why) == ("inconclusive", "below 1.3% of the score")
    assert one.p < LEVEL

    def trained(*gaps):
        runs = [RunId(str(t), run.latents) for t in range(len(gaps)) for run in RUNS]
        first = [level + x for level in range(1, 1 + len(gaps)) for x in wobble]
        second = [level + gap + 2 * x for level, gap in enumerate(gaps, 1) for x in wobble]
        return judge([difference(scores(first, runs), scores(second, runs))])[0]

    assert trained(0.01, 0.012, 0.015).word == "better"
    against = trained(0.03, 0.02, -0.01)
    assert (against.word, against.why) == ("inconclusive", "trainings disagree")


def test_what_cannot_be_judged_says_why():
    one = {RUNS[0]: 1.0}
    nothing, single, same = judge(
        [
            difference({}, one),
            difference(one, {RUNS[0]: 2.0}),
            difference(scores([1, 2, 3, 4, 5]), scores([1, 2, 3, 4, 5])),
        ]
    )
    assert [verdict.word for verdict in (nothing, single, same)] == ["inconclusive"] * 3
    assert [verdict.why for verdict in (nothing, single, same)] == [
        "no score",
        "one run: its error is unknown",
        "the same scores",
    ]
    assert single.difference.value == 1
    assert (nothing.comparisons, same.p) == (1, 1)
