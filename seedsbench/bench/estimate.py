"""How long cells would take here: from rows this machine has made, else from what is known of the model.

A row tells seconds an evaluation and seconds an image of features. Rows of the same solver are best, then
rows of any solver on the same network. Without either, an embedded model on the CPU is judged by its cost
in products of matrices and one such product timed here; of another, a few steps of one batch are timed,
which alone needs torch.
"""

import itertools
import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from seedsbench import registry
from seedsbench.bench.identity import Identity
from seedsbench.bench.machine import device_of, duration, machine, threads
from seedsbench.bench.probe import probe

SPEEDS = Path(registry.__file__).with_name("assets") / "speeds.json"
"""Of the embedded models: (evaluation, features, real image) in products; by scripts/measure_speeds.py."""

START_AND_REPORT = 6.0
"""Seconds of a sweep that are not its cells: imports, loading the network, tables and figures."""

SHORTEST = 0.5
"""Seconds of sampling in a row that tells a speed; in less, the first calls count for too much."""


@dataclass(frozen=True)
class Speed:
    """Seconds an evaluation of one sample, an image's features, and a whole floor; where they are from."""

    evaluation: float
    image: float
    floor: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of what is left to do, and where the speeds are from.

    unknown: models whose files are not here, of which no row tells either; their time is in no sum.
    """

    seconds: float
    size: int
    sources: tuple[str, ...]
    unknown: tuple[str, ...] = ()


def speed_of(cfg: DictConfig, rows: list[dict[str, Any]]) -> Speed:
    """The speed of a cell whose files are here: from `rows` if one of them fits, else as said above."""
    return from_rows(cfg, rows) or from_products(cfg) or _measured(cfg)


def from_products(cfg: DictConfig) -> Speed | None:
    """The speed of an embedded model as it comes, on the CPU in strict fp32; None for any other."""
    model = str(cfg.hydra.runtime.choices.model)
    products = _products().get(model, {}).get(str(cfg.regime.name))
    plain = (cfg.precision, cfg.compile, device_of(cfg.device)) == ("fp32", False, "cpu")
    if products is None or not plain or cfg.model != registry.load("model", model):
        return None
    evaluation, image, real = (value * _product() for value in products)
    return _speed(cfg, evaluation, image, real, "the time of a product of matrices")


def _measured(cfg: DictConfig) -> Speed:
    from seedsbench.bench.measure import measured

    return _speed(cfg, *measured(cfg), "a short measurement")


def _speed(cfg: DictConfig, evaluation: float, image: float, real: float, source: str) -> Speed:
    return Speed(evaluation, image, cfg.metrics.floor_sets * cfg.samples * (real + image), source)


@lru_cache(maxsize=1)
def _products() -> dict[str, dict[str, list[float]]]:
    return json.loads(SPEEDS.read_text())


_product = lru_cache(maxsize=1)(probe)


def rows_of(results: Path) -> list[dict[str, Any]]:
    """Finished rows that this machine has made, of the studies of a results folder; of many, some 1,000."""
    found = []
    for path in itertools.islice(results.glob("*/rows/*.json"), 1000):  # more tell no more, and take long
        try:
            row = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(row, dict) and row.get("status") == "done" and row.get("machine") == machine():
            found.append(row)
    return found


def from_rows(cfg: DictConfig, rows: list[dict[str, Any]]) -> Speed | None:
    """The mean speed of rows of this network and device; those of the same solver if there are any."""
    chosen = cfg.hydra.runtime.choices
    wanted = {"model": chosen.model, "regime": chosen.regime, "dtype": cfg.dtype}
    wanted |= {"device": device_of(cfg.device)}
    wanted |= {} if (count := threads()) is None else {"threads": count}
    wanted |= {"network_precision": cfg.precision, "compile": cfg.compile}
    unsaid = {"network_precision": "fp32", "compile": False}  # by rows of earlier versions
    near = [row for row in rows if all({**unsaid, **row}.get(key) == value for key, value in wanted.items())]
    near = [row for row in near if (row.get("seconds_sampling") or 0.0) >= SHORTEST and row.get("nfe")]
    near = [row for row in near if row.get("solver") == chosen.solver] or near
    near = [row for row in near if row.get("batch_size") == cfg.batch_size] or near
    if not near:
        return None
    most = max(row.get("threads") or 0 for row in near)  # torch's own number, if none was wanted
    near = [row for row in near if (row.get("threads") or 0) == most]
    images = _total(near, "samples")
    floors = [(row.get("seconds_floor") or 0.0) * cfg.samples / row["samples"] for row in near]
    return Speed(
        evaluation=_total(near, "seconds_sampling") / sum(row["nfe"] * row["samples"] for row in near),
        image=(_total(near, "seconds_features") + _total(near, "seconds_scoring")) / images,
        floor=max(floors),
        source="earlier rows",
    )


def _total(rows: Iterable[dict[str, Any]], key: str) -> float:
    return sum(float(row.get(key) or 0.0) for row in rows)


def estimate(cells: list[tuple[DictConfig, Identity | None, int, int]], results: Path) -> Estimate:
    """What cells would take: (composed cell, its problem, evaluations a sample, how many seeds) each.

    Of a problem that is None the files are not here: only rows can tell.
    """
    rows = rows_of(results)
    seconds, size, sources, floors, unknown = 0.0, 0, [], {}, []
    for cfg, who, nfe, count in cells:
        size += count * (3000 + 8 * math.prod(cfg.model.get("shape") or (3, 16, 16)))  # and its preview
        speed = from_rows(cfg, rows) if who is None else speed_of(cfg, rows)
        if speed is None:
            unknown.append(str(cfg.hydra.runtime.choices.model))
            continue
        sources.append(speed.source)
        scored = who and (who.features_id, who.reference_id)
        floors[scored, cfg.samples, str(cfg.labels)] = speed.floor
        seconds += count * cfg.samples * (nfe * speed.evaluation + speed.image)
    if cells:
        seconds += sum(floors.values()) + START_AND_REPORT
        size += 1_000_000  # tables and figures
    return Estimate(seconds, size, tuple(dict.fromkeys(sources)), tuple(dict.fromkeys(unknown)))


def estimate_lines(found: Estimate, study: Path) -> list[str]:
    """The estimate in words: time, where the speed is from, and disk."""
    if not found.sources and not found.unknown:
        return ["nothing to do"]
    told = []
    if found.sources:
        told = [
            f"estimated time: {duration(found.seconds)} on this machine, one cell after another "
            f"(speed from {' and '.join(found.sources)})"
        ]
    if found.unknown:
        names = ", ".join(f"model={name}" for name in found.unknown)
        told.append(f"time not known of {names}: the files are not here yet (dry_run=true lists them)")
    place = next(folder for folder in (study, *study.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    return [
        *told,
        f"disk: about {found.size / 1e6:.1f} MB in {study} ({free / 1e9:.0f} GB free)",
    ]
