"""How far the axes of a figure reach.

One outlier does not flatten the rest: its curve leaves the frame, and an arrow says where and with which
value. assets/plot.js follows the same rule.
"""

import numpy as np

FEWEST = 8  # points; of fewer none is an outlier
ALWAYS_SHOWN = 0.95  # of the points that are always within
EMPTIEST = 0.5  # of the axis: what the others must keep of it


def ends(scores: np.ndarray, anchors: np.ndarray, *, lower_is_better: bool) -> tuple[float, float]:
    """Lowest and highest score of a logarithmic axis, without margins.

    From the best score or anchor to the worst score that leaves half of the axis to the best 95 % of the
    scores. anchors: a floor, say; all are above 0.

    >>> ends(np.array([1, 1.1, 1.2, 1.3, 1.4, 1.5, 2, 300.0]), np.array([0.5]), lower_is_better=True)
    (0.5, 2.0)
    """
    step = 1 if lower_is_better else -1
    ranked = np.sort(np.asarray(scores, float))[::step]  # best first
    best = np.sort([ranked[0], *anchors])[::step][0]
    reach = np.abs(np.log(ranked / best))
    usual = reach[int(ALWAYS_SHOWN * (len(ranked) - 1))] if len(ranked) >= FEWEST else np.inf
    last = ranked[EMPTIEST * reach <= usual][-1]
    return float(min(best, last)), float(max(best, last))


def unbeaten(cost: np.ndarray, score: np.ndarray, costs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Mask of the points (cost, score) lower in score than all those of (costs, scores) that cost no more."""
    as_cheap = np.asarray(costs, float) <= np.asarray(cost, float)[:, None]
    best = np.where(as_cheap, np.asarray(scores, float), np.inf).min(axis=1, initial=np.inf)
    return np.asarray(score, float) < best
