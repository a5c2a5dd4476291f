"""Finished samples to features and scores, in fixed blocks of consecutive sample indices.

A network may round differently for another batch shape, so features are never computed on whatever
batch the sampler happened to use: samples wait until a block of consecutive indices is whole.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from statistics import stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seedsbench.bench.labels import Labels, classes_of
from seedsbench.bench.problems.base import Pairs, Problem
from seedsbench.bench.rows.previews import N_SHOWN, Strip
from seedsbench.bench.rows.statistics import Statistics
from seedsbench.data.uint8 import to_uint8
from seedsbench.metrics.base import FeatureTable, State
from seedsbench.metrics.fid import FID
from seedsbench.metrics.fid_infinity import INFINITE, FIDInfinity
from seedsbench.metrics.inception_score import InceptionScore
from seedsbench.metrics.kid import kernel_distance, random_subset
from seedsbench.metrics.precision_recall import precision_recall
from seedsbench.metrics.trajectory import trajectory_scores

INCEPTION = ("is_mean", "is_std")
KERNEL = ("kid_mean", "kid_std")
MANIFOLD = ("precision", "recall", "density", "coverage")
FLOOR = ("fid_floor", "fid_floor_std")
FLOOR_SEEDS = 2**40
"""Seeds of the floor's real sets start here, away from those of cells."""
FLOOR_BATCH = 2048
"""Real images made at a time, so that memory does not grow with their number."""

MOST = 1e15
"""Of evaluations, sizes and seconds that a state may have: more, NaN and infinity no row can hold."""

_TABLES = ("table.", "logits.")  # of a state(): arrays with a row for each sample seen
_FLOORS: dict[Hashable, tuple[float, ...]] = {}


class Scorer:
    """Scores of n_total samples with indices 0 .. n_total - 1, fed in any order and split.

    update() takes finished samples; compute() gives fid, is_mean, is_std, and what real features allow
    (kid_mean, kid_std, precision, recall, density, coverage); of a problem without reference trajectory_rms,
    trajectory_median and sliced_wasserstein instead. A score beside FID that cannot be computed
    is None, and `warnings` holds the reason. extrapolate: fid_infinity and fid_infinity_std, too.

    A block of samples counts once it is whole, for the scores as for the evaluations and sizes. So state()
    is exact at any time: what was seen in another run of the same cell, or by another rank, is added with
    add(), and the scores are those of one run, to the bit.

    keep_logits: the logits of all samples are kept too, for statistics().

    done: (blocks,) which of them are scored. nfe, nfe_max: their samples' evaluations. extent: (2,) their
    largest |x|, and how many of their values no data can have. seconds: (2,) spent on sampling and on
    features, told by the caller.
    """

    def __init__(
        self,
        problem: Problem,
        n_total: int,
        splits: int,
        *,
        extrapolate: bool = False,
        keep_logits: bool = False,
    ) -> None:
        features = problem.features
        self._problem, self._n = problem, n_total
        self._fid = FID(features.dim, n_total, features.bound) if problem.reference is not None else None
        self._is = InceptionScore(n_total, features.n_classes, splits) if features.n_classes else None
        self._table = FeatureTable(n_total, features.dim) if problem.one_by_one else None
        self._infinite = FIDInfinity(features.dim, n_total, features.bound) if extrapolate else None
        keep = keep_logits and features.n_classes
        # float64: where the network's own are float32, these are they.
        self._logits = FeatureTable(n_total, features.n_classes, torch.float64) if keep else None
        metrics = (self._fid, self._is, self._table, self._infinite)
        self._metrics = [one for one in metrics if one is not None]
        sums = {"is": self._is, "table": self._table, "infinite": self._infinite, "logits": self._logits}
        sums["fid"] = None if self._fid is None else self._fid.sums
        self._sums = {name: part for name, part in sums.items() if part is not None}
        self._waiting: dict[int, dict[int, tuple[Tensor, int, list[float]]]] = defaultdict(dict)
        self.done = np.zeros(-(-n_total // features.block), dtype=bool)
        self.nfe, self.nfe_max = 0, 0
        self.extent, self.seconds = np.zeros(2), np.zeros(2)
        self.warnings: list[str] = []
        self.shown = Strip()

    def update(
        self, indices: Tensor, images: Tensor, nfe: Tensor | None = None, extents: Tensor | None = None
    ) -> None:
        """indices (B,); images (B, C, H, W) as of extractor_input(); nfe (B,) evaluations each of them cost;
        extents (B, 2) of `sanity.extents`."""
        costs = [0] * len(indices) if nfe is None else nfe.tolist()
        sizes = [[0.0, 0.0]] * len(indices) if extents is None else extents.tolist()
        for index, sample in zip(indices.tolist(), zip(images, costs, sizes, strict=True), strict=True):
            self._waiting[index // self._problem.features.block][index] = sample
        whole = [block for block, held in self._waiting.items() if len(held) == len(self.indices(block))]
        self._score({block: self._waiting.pop(block) for block in sorted(whole)})

    def indices(self, block: int) -> range:
        """Sample indices of a block."""
        size = self._problem.features.block
        return range(block * size, min((block + 1) * size, self._n))

    @property
    def n_done(self) -> int:
        """Samples in the blocks that are scored."""
        return self._samples_in(self.done)

    def _samples_in(self, blocks: np.ndarray) -> int:
        return sum(len(self.indices(block)) for block in blocks.nonzero()[0].tolist())

    def _score(self, blocks: dict[int, dict[int, tuple[Tensor, int, list[float]]]]) -> None:
        images = [torch.stack([samples[i][0] for i in sorted(samples)]) for samples in blocks.values()]
        found = self._problem.features.each(images)
        for (block, samples), shown, (features, logits) in zip(blocks.items(), images, found, strict=True):
            indices = torch.tensor(self.indices(block))
            for metric in self._metrics:
                metric.update(features, logits, indices)
            if self._logits is not None and logits is not None:
                self._logits.update(logits, None, indices)
            self.shown.add(indices, shown)
            _, costs, sizes = zip(*samples.values(), strict=True)
            self.nfe, self.nfe_max = self.nfe + sum(costs), max(self.nfe_max, *costs)
            self.extent = _joined(self.extent, *sizes)
            self.done[block] = True

    def state(self) -> State:
        """All that add() needs of the blocks done; arrays may change with the next update."""
        counts = {"nfe": np.array([self.nfe, self.nfe_max]), "extent": self.extent, "seconds": self.seconds}
        state = {**counts, "done": np.packbits(self.done)}
        for name, part in {**self._sums, "shown": self.shown}.items():
            state.update({f"{name}.{key}": array for key, array in part.state().items()})
        return state

    def add(self, state: Mapping[str, np.ndarray], *, alongside: bool = False) -> None:
        """Add what another Scorer of the same problem and samples has seen: other blocks than this one's.

        alongside: they ran at the same time, so that the longer seconds count and not their sum.
        ValueError, with nothing changed, if that is not what it is.
        """
        done, shown = self._blocks_of(state), Strip()
        shown.merge(_part(state, "shown"))
        for name, part in self._sums.items():
            part.add(_part(state, name))
        self.shown.merge(shown.state())
        total, most = state["nfe"].tolist()
        self.nfe, self.nfe_max = self.nfe + total, max(self.nfe_max, most)
        self.extent = _joined(self.extent, state["extent"])
        self.seconds = (np.maximum if alongside else np.add)(self.seconds, state["seconds"])
        self.done |= done

    def _blocks_of(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """The blocks of a state() that fits and overlaps with nothing here."""
        mine, given = (
            {name: array for name, array in arrays.items() if not name.startswith("shown.")}
            for arrays in (self.state(), state)
        )
        for name in sorted(mine.keys() - given.keys()):  # one that kept more than is asked for now serves
            raise ValueError(f"its {name} is missing")
        for name, array in mine.items():
            found, rows = given[name], 1 if name.startswith(_TABLES) else 0
            if (array.dtype, array.shape[rows:]) != (found.dtype, found.shape[rows:]):
                raise ValueError(f"its {name} is {found.dtype} {found.shape}, not {array.shape}")
        for name in ("nfe", "extent", "seconds"):  # what the sums themselves cannot be, scoring finds
            if not ((given[name] >= 0) & (given[name] <= MOST)).all():
                raise ValueError(f"its {name} is {given[name].tolist()}: expected numbers from 0 to {MOST:g}")
        done = np.unpackbits(state["done"], count=len(self.done)).astype(bool)
        samples = self._samples_in(done)
        if self._fid is not None and (summed := int(state["fid.n"])) != samples:
            raise ValueError(f"its sums are of {summed} samples, its blocks of {samples}")
        if (self.done & done).any():
            raise ValueError(f"block {int((self.done & done).argmax())} is in both")
        told = [i for block in done.nonzero()[0].tolist() for i in self.indices(block)]
        for name in _TABLES:
            if f"{name}indices" in mine and state[f"{name}indices"].tolist() != told:
                raise ValueError(f"its {name}indices are of other samples than its sums")
        return done

    @property
    def max_bytes(self) -> int:
        """What a file of a state() takes at most."""
        image = 16 * N_SHOWN * math.prod(self._problem.image_shape)
        tables = [table for table in (self._table, self._logits) if table is not None]
        rows = sum(table.rows.nbytes + self._n * 8 for table in tables)
        return sum(array.nbytes for array in self.state().values()) + rows + image + 2**20

    def overlaps(self, state: Mapping[str, np.ndarray]) -> bool:
        """Whether a state() has blocks that are done here too."""
        return bool((np.packbits(self.done) & state["done"]).any())

    def statistics(self) -> Statistics:
        """What the FID and the Inception score are computed from; ValueError unless every sample was seen."""
        features = self._problem.features
        logits = None if self._logits is None else self._logits.complete().numpy()
        assert self._fid is not None  # Cell.check refuses keep_statistics where there are no features
        moments, reference_id = self._fid.sums.moments(), self._problem.reference_id
        return Statistics(moments, logits, features.name, features.id, reference_id)

    def compute(self) -> dict[str, float | None]:
        """All scores; RuntimeError unless every sample has been seen."""
        if not self.done.all():
            raise RuntimeError(f"{self._n - self.n_done} samples still wait for their block")
        self.warnings = []
        scores: dict[str, float | None] = dict.fromkeys(INCEPTION)
        reference = self._problem.reference
        if self._fid is not None and reference is not None:
            scores.update(self._fid.compute(reference))
        if self._infinite is not None and reference is not None:
            infinite = partial(self._infinite.compute, reference)
            scores.update(beside_fid(INFINITE, infinite, self.warnings))
        if self._is is not None:
            scores.update(beside_fid(INCEPTION, self._is.compute, self.warnings))
        if self._table is not None and self._problem.paths is not None:
            scores.update(trajectory_scores(self._table.complete()))
        if self._table is not None and (pairs := self._problem.pairs) is not None:
            features = self._table.complete()
            if pairs.kid_subsets:
                scores.update(beside_fid(KERNEL, partial(_kid, features, pairs), self.warnings))
            if pairs.neighbours:
                manifold = partial(precision_recall, pairs.rows, features, pairs.neighbours)
                scores.update(beside_fid(MANIFOLD, manifold, self.warnings))
        return scores


def beside_fid(
    names: Sequence[str], make: Callable[[], Mapping[str, float | None]], warnings: list[str]
) -> Mapping[str, float | None]:
    """make()'s scores, or None for each name, and the reason added to `warnings`, if they cannot be computed.

    No score beside the FID may take it down once the samples are drawn.
    """
    try:
        return make()
    except (ValueError, ArithmeticError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        warnings.append(f"no {', '.join(names)}: {' '.join(str(error).split())}")
        return dict.fromkeys(names)


def _joined(*extents: Any) -> np.ndarray:
    """Pairs of a largest |x| and a count as one: exact, in whatever order (counts stay far below 2^53)."""
    largest, beyond = np.array(extents).T
    return np.array([largest.max(), beyond.sum()])


def _part(state: Mapping[str, np.ndarray], name: str) -> State:
    return {key.removeprefix(f"{name}."): array for key, array in state.items() if key.startswith(f"{name}.")}


def _kid(features: Tensor, pairs: Pairs) -> dict[str, float]:
    """KID of samples' features (n, D), in subsets no larger than either set."""
    size = min(pairs.kid_subset_size, len(features), len(pairs.rows))
    return dict(zip(KERNEL, kernel_distance(features, pairs.rows, pairs.kid_subsets, size), strict=True))


def extractor_input(problem: Problem, x: Tensor) -> Tensor:
    """Samples as the extractor wants them, on the CPU: quantised to uint8 once, or float64 as they are."""
    return (to_uint8(x, problem.pixels) if problem.features.quantised else x.double()).cpu()


def fid_floor(problem: Problem, n: int, labels: Labels, sets: int) -> dict[str, float | None]:
    """Mean and standard deviation (None of one set) of `floor_fids`; both None where there are none."""
    fids = floor_fids(problem, n, labels, sets)
    if fids is None:
        return dict.fromkeys(FLOOR)
    return {"fid_floor": sum(fids) / sets, "fid_floor_std": stdev(fids) if sets > 1 else None}


def floor_fids(problem: Problem, n: int, labels: Labels, sets: int) -> tuple[float, ...] | None:
    """The FID of each of `sets` independent sets of n real samples, labelled as the cell's samples are.

    What a perfect sampler would score at this n: the error of so many samples itself. Where no
    other real images can be made, the sets are drawn from the real features, if these are at least twice
    as many (whatever the labels); else None. Made once for all networks with these features,
    reference and real images, and kept by what they are: by the problem, it would keep the network.
    """
    reference = problem.reference
    too_few = problem.pairs is None or 2 * n > len(problem.pairs.rows)
    if reference is None or (problem.real is None and too_few):
        return None
    ids = (problem.features.id, problem.reference_id, problem.real_id)
    key = (ids, problem.real, problem.denoiser.label_dim, n, labels, sets)
    if key not in _FLOORS:
        fids = []
        for k in range(sets):
            fid = FID(problem.features.dim, n, problem.features.bound)
            for features in _real_features(problem, n, labels, k):
                fid.sums.update(features)
            fids.append(fid.compute(reference)["fid"])
        _FLOORS[key] = tuple(fids)
    return _FLOORS[key]


def _real_features(problem: Problem, n: int, labels: Labels, k: int) -> Iterator[Tensor]:
    """Of n real samples, the k-th such set: in blocks as the samples' own, or rows of the real features."""
    if problem.real is None:
        assert problem.pairs is not None
        rows = problem.pairs.rows
        yield rows[random_subset(len(rows), n, FLOOR_SEEDS, k, 0)]
        return
    denoiser, block, seed = problem.denoiser, problem.features.block, FLOOR_SEEDS + k
    for indices in torch.arange(n).split(block * -(-FLOOR_BATCH // block)):
        classes = classes_of(indices, labels, denoiser.label_dim, seed, denoiser.class_weights)
        images = extractor_input(problem, problem.real(indices, classes, seed))
        yield from (features for features, _ in problem.features.each(images.split(block)))
