"""What the cells of a command need from outside: the text of dry_run=true. Fetches nothing."""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from seedsbench.files.download import cached_path
from seedsbench.files.extractor_files import compared, extractor_files
from seedsbench.files.model_files import Wanted, listing, resolve, wanted_files

UNSCORED = "a network from a file brings no features to be scored on: add metrics=inception (or values)"


def files_of(configurations: Iterable[DictConfig]) -> dict[str, list[Wanted] | ValueError]:
    """The files of each model, regime and metrics group among composed configurations, by their overrides.

    In place of files, what is wrong: a regime a model has no weights for, a missing model.path.
    """
    found: dict[str, list[Wanted] | ValueError] = {}
    for cfg in configurations:
        chosen = cfg.hydra.runtime.choices
        title = f"model={chosen.model} regime={cfg.regime.name}"
        title += "" if chosen.metrics == "default" else f" metrics={chosen.metrics}"
        try:
            found[title] = files_of_cell(cfg)
        except ValueError as error:
            found[title] = error
    return found


def files_of_cell(cfg: DictConfig) -> list[Wanted]:
    """The files that a cell's model and metrics group ask for; ValueError for what has none."""
    model, metrics = (_plain(cfg[group]) for group in ("model", "metrics"))
    return [*compared(metrics, wanted_files(model, cfg.regime.name)), *extractor_files(metrics)]


def still_to_fetch(cfg: DictConfig) -> bool:
    """Whether a cell would first have to download something; FetchError for a path that is not there."""
    missing = False
    for wanted in files_of_cell(cfg):
        if wanted.remote is not None:
            missing |= not cached_path(wanted.remote).is_file()
        elif not (wanted.path and wanted.path.exists()):
            resolve(wanted, offline=True)
    return missing


def dry_run_text(configurations: Iterable[DictConfig]) -> str:
    """For each model, regime and metrics group: each file, from where, to where, its size and its licence.

    What cannot run is a line among several; alone, it is the ValueError.
    """
    found = files_of(configurations)
    lines: list[str] = []
    known: list[Wanted] = []
    for title, files in found.items():
        if isinstance(files, ValueError):
            if len(found) == 1:
                raise files
            lines.append(f"{title}: {files}")
            continue
        lines += listing(title, files, known)
        known += files
        if any(file.role == "weights" for file in files) and " metrics=" not in title:
            lines.append(f"  {UNSCORED}")
    return "\n".join(lines)


def unscored(cfg: DictConfig) -> bool:
    """Whether a cell has a network from a file and no metrics group that brings features."""
    return ("files" in cfg.model or "path" in cfg.model) and "_target_" not in cfg.metrics


def _plain(node: DictConfig) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(node, resolve=True)
    return {str(key): value for key, value in values.items()}
