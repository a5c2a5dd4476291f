"""How long cells would take here: from rows this machine has made, else from a short measurement.

A row tells seconds an evaluation and seconds an image of features. Rows of the same solver are best, then
rows of any solver on the same network; without either, a few steps of one batch are timed, which needs
torch. Imports none otherwise.
"""

import itertools
import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from seedsbench.bench.identity import Identity
from seedsbench.bench.machine import device_of, duration, machine, threads

START_AND_REPORT = 6.0
"""Seconds of a sweep that are not its cells: imports, loading the network, tables and figures."""


@dataclass(frozen=True)
class Speed:
    """Seconds an evaluation of one sample, an image's features, and a whole floor; where they are from."""

    evaluation: float
    image: float
    floor: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of what is left to do, and where the speeds are from."""

    seconds: float
    size: int
    sources: tuple[str, ...]


def speed_of(cfg: DictConfig, rows: list[dict[str, Any]]) -> Speed:
    """The speed of a cell: from `rows` if one of them fits, else measured. cfg: a composed cell."""
    known = from_rows(cfg, rows)
    if known is not None:
        return known
    from seedsbench.bench.measure import measured

    evaluation, image, floor = measured(cfg)
    return Speed(evaluation, image, floor, "a short measurement")


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
    near = [row for row in near if row.get("seconds_sampling") and row.get("nfe")]
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


def estimate(cells: list[tuple[DictConfig, Identity, int, int]], results: Path) -> Estimate:
    """What cells would take: (composed cell, its problem, evaluations a sample, how many seeds) each."""
    rows = rows_of(results)
    seconds, size, sources, floors = 0.0, 0, [], {}
    for cfg, who, nfe, count in cells:
        speed = speed_of(cfg, rows)
        sources.append(speed.source)
        floors[who.features_id, who.reference_id, cfg.samples, str(cfg.labels)] = speed.floor
        seconds += count * cfg.samples * (nfe * speed.evaluation + speed.image)
        size += count * (3000 + 8 * math.prod(cfg.model.get("shape") or (3, 16, 16)))  # and its preview
    if cells:
        seconds += sum(floors.values()) + START_AND_REPORT
        size += 1_000_000  # tables and figures
    return Estimate(seconds, size, tuple(dict.fromkeys(sources)))


def estimate_lines(found: Estimate, study: Path) -> list[str]:
    """The estimate in words: time, where the speed is from, and disk."""
    if not found.sources:
        return ["nothing to do"]
    place = next(folder for folder in (study, *study.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    return [
        f"estimated time: {duration(found.seconds)} on this machine, one cell after another "
        f"(speed from {' and '.join(found.sources)})",
        f"disk: about {found.size / 1e6:.1f} MB in {study} ({free / 1e9:.0f} GB free)",
    ]
