"""A row with what is at hand to check it by: the cell of its command, the problem, the statistics it left.

A row is anyone's text. Its command is composed but not run: folders that it names are not looked in, nothing
is downloaded, and no class is loaded but the package's, and those in folders that who checks has named.
"""

import itertools
import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from omegaconf import OmegaConf

from seedsbench import registry
from seedsbench.bench.cell import NUMERICS_VERSION, Cell
from seedsbench.bench.machine import has_cuda
from seedsbench.bench.problems.base import Problem
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.columns import identity_of
from seedsbench.bench.rows.run_key import PLACES, outside
from seedsbench.bench.rows.statistics import Statistics, read_kept_statistics
from seedsbench.bench.rows.store import ResultStore
from seedsbench.checks import in_one_line
from seedsbench.cli.command import GROUPS, parse
from seedsbench.cli.compose import Bases, compose_each
from seedsbench.cli.errors import hydra_error_line
from seedsbench.files.rows import Row

_IDS = ("model_id", "extractor_id", "reference_id", "real_id")


class NotHere(Exception):
    """What a check needs is not on this machine; the message says what."""


class BadCommand(NotHere):
    """A command that makes no cell."""


@dataclass(frozen=True)
class Claim:
    """A row of a study. bases: what Hydra has composed for other rows; made within `composing()`.

    What it is asked for raises NotHere where that is not at hand.
    """

    row: Row
    study: Path
    bases: Bases

    @property
    def done(self) -> bool:
        return self.row["status"] == "done"

    @property
    def statistics_path(self) -> Path:
        """Where its statistics lie, if it has any."""
        return ResultStore(self.study).statistics_path(self.row["run_key"])

    @property
    def statistics(self) -> Statistics | None:
        """What is there and can be read."""
        try:
            return read_kept_statistics(self.statistics_path)
        except (FileNotFoundError, ValueError):
            return None

    @cached_property
    def cell(self) -> Cell:
        """The cell that its command makes."""
        version = self.row.get("numerics_version")
        if version not in (None, NUMERICS_VERSION):
            raise NotHere(f"a package of numerics_version {version}")
        cell = self._composed()
        for group in GROUPS:
            self._check_class(group, cell)
        on_gpu = str(self.row.get("device")).startswith("cuda")
        if cell.seeding != "philox" and on_gpu and not has_cuda():
            raise NotHere(f"a CUDA device, whose generators seeding={cell.seeding} draws from")
        return cell if on_gpu else replace(cell, device="cpu")

    @cached_property
    def problem(self) -> Problem:
        """What its cell is scored on."""
        cell = self.cell
        try:
            found = problem_of(cell, "cpu")
            ids = identity_of(found)
        except Exception as error:  # files of any kind, and whatever reading them raises
            raise NotHere(in_one_line(error)) from error
        theirs = cell.model.get("path") or outside(cell.model) or any(map(cell.metrics.get, PLACES))
        if theirs and any(ids[name] != self.row.get(name) for name in _IDS):
            raise NotHere("its own model or reference: what its command names is another here")
        return found

    def _composed(self) -> Cell:
        """Of its command; BadCommand for none, NotHere where its own folder is needed."""
        try:
            words = shlex.split(self.row.get("command") or "")
            if words[:1] != ["seedsbench"]:
                raise ValueError(f"it is {' '.join(words)!r:.60}")
            command = parse(words[1:])
        except Exception as error:
            raise BadCommand(f"its command cannot be read ({in_one_line(error)})") from error
        try:
            (words,) = itertools.product(*command.choices)
            cell = compose_each([(*words, "offline=true")], "study", self.bases)[0].cell
            cell.check()
        except registry.NotThere as error:
            raise NotHere(f"a file that its command names: {error}") from error
        except Exception as error:  # OmegaConf and Hydra raise what they like
            if command.config_dirs:
                folders = ", ".join(command.config_dirs)
                raise NotHere(f"what its command names in {folders}: give it as --config-dir") from error
            raise BadCommand(f"its command makes no cell ({hydra_error_line(error)})") from error
        return cell

    def _check_class(self, group: str, cell: Cell) -> None:
        """NotHere for a choice whose class is not a trusted file's, or has another source than the row's."""
        config, name = getattr(cell, group, None), cell.choices.get(group)
        if not isinstance(config, dict) or "_target_" not in config:
            return
        path = registry.path_of(group, name) if name in registry.names(group) else None
        if path is None or OmegaConf.select(OmegaConf.load(path), "_target_") != config["_target_"]:
            raise NotHere(f"{group}={name}, whose class is no file's own")
        if group == "model" and config.get("format") == "python":
            raise NotHere("the Python file of its model, which is not run for this")
        here, said = outside(config).get("source_id"), self.row.get(f"{group}_params")
        if here is not None and isinstance(said, dict) and said.get("source_id") != here:
            raise NotHere(f"its {group}={name}: the one here has another source")
