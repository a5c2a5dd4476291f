"""Finished samples to features and scores, in fixed blocks of consecutive sample indices.

A network may round differently for another batch shape, so features are never computed on whatever
batch the sampler happened to use: samples wait until a block of consecutive indices is whole.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seedsbench.bench.labels import Labels, classes_of
from seedsbench.bench.problems.base import Pairs, Problem
from seedsbench.bench.rows.previews import Strip
from seedsbench.bench.sampling import SampleBatch
from seedsbench.data.uint8 import to_uint8
from seedsbench.metrics.base import FeatureTable, State
from seedsbench.metrics.fid import FID
from seedsbench.metrics.inception_score import InceptionScore
from seedsbench.metrics.kid import kernel_distance, random_subset
from seedsbench.metrics.precision_recall import precision_recall

FLOOR_SEEDS = 2**40
"""Seeds of the floor's real sets start here, away from those of cells."""
KERNEL = ("kid_mean", "kid_std")
MANIFOLD = ("precision", "recall", "density", "coverage")
FLOOR_BATCH = 2048
"""Real images made at a time, so that memory does not grow with their number."""
_FLOORS: dict[Hashable, float | None] = {}


class Scorer:
    """FID and IS of n_total samples with indices 0 .. n_total - 1, fed in any order and split.

    update() takes finished samples and returns how many went through the extractor; compute() gives
    fid, is_mean, is_std, and what real features allow (kid_mean, kid_std, precision, recall, density,
    coverage). A score beside FID that cannot be computed is None, and `warnings` holds the reason.

    A block of samples counts once it is whole, for the scores as for the evaluations and sizes. So state() is
    exact at any time: what was seen of another run of the same cell, or by another rank, is added with
    add(), and the scores are those of one run, to the bit.

    done: (blocks,) which have gone through. nfe, nfe_max: their samples' evaluations. extent: (2,) their
    largest |x|, and how many of their values no data can have. seconds: spent on sampling and on features;
    told, not measured here.
    """

    def __init__(self, problem: Problem, n_total: int, splits: int) -> None:
        features = problem.features
        self._problem, self._n = problem, n_total
        self._fid = FID(features.dim, n_total, features.bound)
        self._is = InceptionScore(n_total, features.n_classes, splits) if features.n_classes else None
        self._table = FeatureTable(n_total, features.dim) if problem.pairs is not None else None
        self._waiting: dict[int, dict[int, tuple[Tensor, int, list[float]]]] = {}
        self.done = np.zeros(-(-n_total // features.block), dtype=bool)
        self.nfe, self.nfe_max = 0, 0
        self.extent = np.zeros(2)
        self.warnings: list[str] = []
        self.seconds = np.zeros(2)
        self.shown = Strip()

    def update(
        self, indices: Tensor, images: Tensor, nfe: Tensor | None = None, extents: Tensor | None = None
    ) -> int:
        """indices (B,), images (B, C, H, W) as prepared(), nfe (B,) evaluations each of them cost, extents
        (B, 2) of `sanity.extents`."""
        size = self._problem.features.block
        before = sum(map(len, self._waiting.values())) + len(indices)
        costs = [0] * len(indices) if nfe is None else nfe.tolist()
        sizes = [[0.0, 0.0]] * len(indices) if extents is None else extents.tolist()
        for index, sample in zip(indices.tolist(), zip(images, costs, sizes, strict=True), strict=True):
            self._waiting.setdefault(index // size, {})[index] = sample
        whole = [block for block, held in self._waiting.items() if len(held) == len(self.indices(block))]
        self._score({block: self._waiting.pop(block) for block in sorted(whole)})
        return before - sum(map(len, self._waiting.values()))

    def indices(self, block: int) -> range:
        """Sample indices of a block."""
        size = self._problem.features.block
        return range(block * size, min((block + 1) * size, self._n))

    @property
    def n_done(self) -> int:
        """Samples in the blocks that have gone through."""
        return sum(len(self.indices(block)) for block in self.done.nonzero()[0].tolist())

    def _score(self, blocks: dict[int, dict[int, tuple[Tensor, int, list[float]]]]) -> None:
        images = [torch.stack([samples[i][0] for i in sorted(samples)]) for samples in blocks.values()]
        found = self._problem.features.each(images)
        for (block, samples), shown, (features, logits) in zip(blocks.items(), images, found, strict=True):
            self._count(block, shown, features, logits)
            _, costs, sizes = zip(*samples.values(), strict=True)
            self.nfe, self.nfe_max = self.nfe + sum(costs), max(self.nfe_max, *costs)
            self.extent = _joined(self.extent, *sizes)
            self.done[block] = True

    def _count(self, block: int, images: Tensor, features: Tensor, logits: Tensor | None) -> None:
        indices = torch.tensor(self.indices(block))
        self._fid.update(features, None, indices)
        if self._table is not None:
            self._table.update(features, None, indices)
        if self._is is not None:
            assert logits is not None, "an extractor with classes must give logits"
            self._is.update(features, logits.double().cpu(), indices)
        self.shown.add(indices, images)

    def state(self) -> State:
        """All that add() needs of the blocks done; arrays may change with the next update."""
        parts = {"fid": self._fid.sums, "is": self._is, "table": self._table, "shown": self.shown}
        state = {
            f"{name}.{key}": array
            for name, part in parts.items()
            if part is not None
            for key, array in part.state().items()
        }
        counts = {"nfe": np.array([self.nfe, self.nfe_max]), "extent": self.extent, "seconds": self.seconds}
        return {**state, **counts, "done": np.packbits(self.done)}

    def add(self, state: Mapping[str, np.ndarray], *, alongside: bool = False) -> None:
        """Add what another Scorer of the same problem and samples has seen: other blocks than this one's.

        alongside: they ran at the same time, so that the longer seconds count and not their sum.
        ValueError, with nothing changed, if that is not what it is.
        """
        done = self._blocks_of(state)
        self._fid.sums.add(_part(state, "fid"))
        if self._is is not None:
            self._is.add(_part(state, "is"))
        if self._table is not None:
            self._table.add(_part(state, "table"))
        self.shown.merge(_part(state, "shown"))
        total, most = state["nfe"].tolist()
        self.nfe, self.nfe_max = self.nfe + total, max(self.nfe_max, most)
        self.extent = _joined(self.extent, state["extent"])
        theirs = state["seconds"]
        self.seconds = np.maximum(self.seconds, theirs) if alongside else self.seconds + theirs
        self.done |= done

    def _blocks_of(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """The blocks of a state() that fits and overlaps with nothing here."""
        mine = self.state()
        for name in mine.keys() | {key for key in state if not key.startswith("shown.")}:
            if name.startswith("shown."):
                continue
            if name not in state or name not in mine:
                raise ValueError(f"its {name} is {'there' if name in state else 'missing'}")
            rows = 1 if name.startswith("table.") else 0
            expected, found = mine[name], state[name]
            if (expected.dtype, expected.shape[rows:]) != (found.dtype, found.shape[rows:]):
                raise ValueError(f"its {name} is {found.dtype} {found.shape}, not {expected.shape}")
        done = np.unpackbits(state["done"], count=len(self.done)).astype(bool)
        samples = sum(len(self.indices(block)) for block in done.nonzero()[0].tolist())
        if int(state["fid.n"]) != samples:
            raise ValueError(f"its sums are of {int(state['fid.n'])} samples, its blocks of {samples}")
        if (self.done & done).any():
            raise ValueError(f"block {int((self.done & done).nonzero()[0][0])} is in both")
        return done

    def overlaps(self, state: Mapping[str, np.ndarray]) -> bool:
        """Whether a state() has blocks that are done here too."""
        return bool((np.packbits(self.done) & state["done"]).any())

    def compute(self) -> dict[str, float | None]:
        """All scores; RuntimeError unless every sample has been seen."""
        if not self.done.all():
            raise RuntimeError(f"{self._n - self.n_done} samples still wait for their block")
        scores: dict[str, float | None] = {"is_mean": None, "is_std": None}
        scores.update(self._fid.compute(self._problem.reference))
        self.warnings = []
        if self._is is not None:
            scores.update(beside_fid(("is_mean", "is_std"), self._is.compute, self.warnings))
        if self._table is not None and (pairs := self._problem.pairs) is not None:
            features = self._table.complete()
            for names, asked in (
                (KERNEL, replace(pairs, neighbours=0)),
                (MANIFOLD, replace(pairs, kid_subsets=0)),
            ):
                scores.update(beside_fid(names, partial(pair_scores, features, asked), self.warnings))
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


def pair_scores(features: Tensor, pairs: Pairs) -> dict[str, float]:
    """KID and precision, recall, density, coverage of samples' features (n, D), as far as asked for.

    KID's subsets are no larger than either set.
    """
    scores = {}
    if pairs.kid_subsets:
        size = min(pairs.kid_subset_size, len(features), len(pairs.rows))
        mean, std = kernel_distance(features, pairs.rows, pairs.kid_subsets, size)
        scores.update(kid_mean=mean, kid_std=std)
    if pairs.neighbours:
        scores.update(precision_recall(pairs.rows, features, pairs.neighbours))
    return scores


def prepared(problem: Problem, batch: SampleBatch) -> Tensor:
    """Samples as the extractor wants them, on the CPU: quantised to uint8 once, or float64 as they are."""
    finite = batch.x.isfinite().flatten(1).all(1).cpu()
    if not bool(finite.all()):
        index = int(batch.indices[~finite][0])
        raise ValueError(
            f"sample {index} has non-finite values (and {int((~finite).sum()) - 1} more in its batch)"
        )
    return (to_uint8(batch.x) if problem.features.quantised else batch.x.double()).cpu()


def floor(problem: Problem, n: int, labels: Labels, splits: int, sets: int) -> float | None:
    """Mean FID of `sets` independent sets of n real samples, labelled as the cell's samples are.

    What a perfect sampler would score at this n: the sampling error of the yardstick itself. Where no
    other real images can be made, the sets are drawn from the real features, if these are at least twice
    as many (whatever the labels); else None. Made once for all networks with these features, reference and
    real images, and kept by what they are: by the problem, it would keep the network.
    """
    yardstick = (replace(problem.identity, model_id=""), problem.real, problem.denoiser.label_dim)
    key = (yardstick, n, labels, splits, sets)
    if key not in _FLOORS:
        _FLOORS[key] = _floor(problem, n, labels, splits, sets)
    return _FLOORS[key]


def _floor(problem: Problem, n: int, labels: Labels, splits: int, sets: int) -> float | None:
    if problem.real is None:
        return _floor_of_features(problem, n, sets)
    values = []
    for k in range(sets):
        seed = FLOOR_SEEDS + k
        scorer = Scorer(replace(problem, pairs=None), n, splits=min(splits, n))
        for indices in torch.arange(n).split(FLOOR_BATCH):
            denoiser = problem.denoiser
            weights = getattr(denoiser, "class_weights", None)
            classes = classes_of(indices, labels, denoiser.label_dim, seed, weights)
            images = problem.real(indices, classes, seed)
            scorer.update(indices, to_uint8(images) if problem.features.quantised else images.double())
        values.append(scorer.compute()["fid"])
    return sum(values) / len(values)


def _floor_of_features(problem: Problem, n: int, sets: int) -> float | None:
    if problem.pairs is None or 2 * n > len(problem.pairs.rows):
        return None
    values = []
    for k in range(sets):
        rows = random_subset(len(problem.pairs.rows), n, FLOOR_SEEDS, k, 0)
        fid = FID(problem.features.dim, n, problem.features.bound)
        fid.update(problem.pairs.rows[rows], None, rows)
        values.append(fid.compute(problem.reference)["fid"])
    return sum(values) / len(values)
