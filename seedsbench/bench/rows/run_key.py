"""What of a configuration can change a row's numbers: the part of it that names the row."""

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from seedsbench.bench.cell import NUMERICS_VERSION
from seedsbench.bench.labels import labels_of
from seedsbench.bench.machine import has_cuda
from seedsbench.bench.problems.identity import Identity
from seedsbench.files.model_files import CIRCUMSTANCES

if TYPE_CHECKING:
    from seedsbench.bench.problems.base import Problem

PLACES = ("weights", "reference", "real")
"""Options of a metrics group that say where something is; rows are keyed by what it is."""


def options_of(node: DictConfig, without: tuple[str, ...] = ("_target_",)) -> dict[str, Any]:
    """A group's entries, resolved, less some."""
    values: Any = OmegaConf.to_container(node, resolve=True)
    return {key: value for key, value in values.items() if key not in without}


def changed_arithmetic(cfg: DictConfig) -> dict[str, Any]:
    """How the network runs, where not in plain float32: so that keys of plain rows stay what they were."""
    precision = {} if cfg.precision == "fp32" else {"precision": cfg.precision}
    return {**precision, **({"compile": True} if cfg.compile else {})}


def scientific(cfg: DictConfig, problem: "Problem | Identity | None", seed: int) -> dict[str, Any]:
    """All that can change a row's numbers, and nothing else: what `run_key` hashes."""
    who = problem if problem is None or isinstance(problem, Identity) else problem.identity
    groups = ("schedule", "grid", "solver", "metrics")
    science: dict[str, Any] = {
        "numerics_version": NUMERICS_VERSION,
        "model": options_of(cfg.model, without=() if who is None else CIRCUMSTANCES),
        **{group: OmegaConf.to_container(cfg[group], resolve=True) for group in groups},
        "model_id": None if who is None else who.model_id,
        "features_id": None if who is None else who.features_id,
        "reference_id": None if who is None else who.reference_id,
        "regime": cfg.regime.name,
        "nfe": cfg.nfe,
        "samples": cfg.samples,
        "seed": seed,
        "labels": labels_of(cfg.labels),
        "final": cfg.final,
        "afs": cfg.afs,
        "dtype": cfg.dtype,
        **changed_arithmetic(cfg),
    }
    for place in PLACES:  # known by features_id, reference_id and real_id
        science["metrics"].pop(place, None)
    if who is not None and who.real_id is not None:
        science["real_id"] = who.real_id
    if cfg.seeding != "philox":  # torch's generators are the device's own
        science["seeding"] = [cfg.seeding, "cpu" if str(cfg.device) == "cpu" or not has_cuda() else "cuda"]
    return science
