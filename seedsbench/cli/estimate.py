"""How long cells would take here, by the rows this machine has made: of the same solver, else of any.

Where no row tells, the time is not known yet.
"""

import itertools
import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from seedsbench.bench.machine import device_of, duration, machine

START_AND_REPORT = 6.0
"""Seconds of a sweep that are not its cells: imports, loading the network, tables and figures."""
SHORTEST = 0.5
"""Seconds of sampling in a row that tells a speed; in less, the first calls count for too much."""


@dataclass(frozen=True)
class Speed:
    """Seconds an evaluation of one sample, an image's features and scores, and a whole floor take."""

    evaluation: float
    image: float
    floor: float


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
    wanted = {"model": chosen.model, "regime": chosen.regime, "dtype": cfg.dtype, "compile": cfg.compile}
    wanted |= {"device": device_of(cfg.device), "threads": torch.get_num_threads()}
    wanted |= {"network_precision": cfg.precision}
    unsaid = {"network_precision": "fp32", "compile": False}  # by rows of earlier versions
    near = [row for row in rows if all({**unsaid, **row}.get(key) == value for key, value in wanted.items())]
    near = [row for row in near if (row.get("seconds_sampling") or 0.0) >= SHORTEST and row.get("nfe")]
    near = [row for row in near if row.get("solver") == chosen.solver] or near
    near = [row for row in near if row.get("batch_size") == cfg.batch_size] or near
    if not near:
        return None
    return Speed(
        evaluation=_total(near, "seconds_sampling") / sum(row["nfe"] * row["samples"] for row in near),
        image=(_total(near, "seconds_features") + _total(near, "seconds_scoring")) / _total(near, "samples"),
        floor=max((row.get("seconds_floor") or 0.0) * cfg.samples / row["samples"] for row in near),
    )


def _total(rows: Iterable[dict[str, Any]], key: str) -> float:
    return sum(float(row.get(key) or 0.0) for row in rows)


def estimate_lines(cells: list[tuple[DictConfig, int, int]], study: Path) -> list[str]:
    """What is left to do, in words: time and disk. cells: (composed, evaluations a sample, seeds) each."""
    if not cells:
        return ["nothing to do"]
    rows, lines, floors, unknown, seconds, size = rows_of(study.parent), [], {}, [], START_AND_REPORT, 1e6
    for cfg, nfe, count in cells:
        size += count * (3000 + 8 * math.prod(cfg.model.get("shape") or (3, 16, 16)))  # a row, its preview
        chosen, speed = cfg.hydra.runtime.choices, from_rows(cfg, rows)
        if speed is None:
            unknown.append(f"{chosen.model}/{chosen.regime}")
            continue
        floors[chosen.model, chosen.regime, str(cfg.metrics), cfg.samples, str(cfg.labels)] = speed.floor
        seconds += count * cfg.samples * (nfe * speed.evaluation + speed.image)
    if floors:
        told = duration(seconds + sum(floors.values()))
        lines.append(f"estimated time: {told} on this machine, one cell after another (by its earlier rows)")
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))
        lines.append(f"time not known yet of {names}: no such cell has run on this machine")
    free = shutil.disk_usage(next(folder for folder in (study, *study.parents) if folder.exists())).free
    return [*lines, f"disk: about {size / 1e6:.1f} MB in {study} ({free / 1e9:.0f} GB free)"]
