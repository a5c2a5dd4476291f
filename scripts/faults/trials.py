"""A trial: a command suffers a fault, the same command is run again, and the rows must be the right ones."""

import json
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from scripts.faults.processes import Ended, Server

COMMAND = (
    *("-m", "model=gaussian_mixture", "solver=euler", "nfe=6,8", "samples=300", "batch_size=128"),
    *("device=cpu", "save_every=0", "study=s"),
)
"""Two cells of three blocks of samples, whose sums are saved after each."""
CIRCUMSTANCES = {
    *("time_utc", "commit", "invocation", "command"),
    *("batch_size", "images_per_second", "world_size", "threads"),
    *("seconds_sampling", "seconds_features", "seconds_scoring", "seconds_floor"),
}
"""Columns that say when, where and how fast a row was made."""
FAILED, REFUSED = 1, 2
KILLED = -signal.SIGKILL
STOPPED = {signal.SIGTERM: (-signal.SIGTERM, 143), signal.SIGINT: (130,)}
"""Exit codes of a process that a signal ended: before and after Python's handler was there."""
_OWN = (".report.lock", ".hydra", ".submitit")


@dataclass(frozen=True)
class Outcome:
    """What was wrong in a trial, as counts: all 0 where nothing was. left: files of writers that are gone.

    inputs: of a fuzzer. note: of what was wrong, or skipped.
    """

    lost: int = 0
    wrong: int = 0
    tracebacks: int = 0
    hangs: int = 0
    codes: int = 0
    left: int = 0
    seconds: float = 0.0
    inputs: int = 0
    skipped: int = 0
    note: str = ""

    def __add__(self, other: "Outcome") -> "Outcome":
        mine, theirs = asdict(self), asdict(other)
        total = {key: mine[key] + theirs[key] for key in mine if key not in ("seconds", "note")}
        note = " | ".join(filter(None, (self.note, other.note)))
        return Outcome(**total, seconds=max(self.seconds, other.seconds), note=note)

    @property
    def bad(self) -> bool:
        """Whether anything was wrong."""
        return any(getattr(self, name) for name in BAD)


BAD = tuple(field.name for field in fields(Outcome))[:6]


def ended_as(ended: Ended, codes: Iterable[int]) -> Outcome:
    """What was wrong with the end of a process that may have these exit codes."""
    allowed = ended.hang or ended.code in codes
    found = Outcome(0, 0, int(ended.traceback), int(ended.hang), int(not allowed), 0, ended.seconds)
    said = f"exit {ended.code}: {(ended.err or ended.out)[-600:]}" if found.bad else ""
    return found + Outcome(note=said)


class Bench:
    """Where trials run: a server of processes, folders that go away, and the rows of undisturbed runs."""

    def __init__(self, seed: int, root: Path) -> None:
        self.seed, self.root, self.server = seed, root, Server()
        self._rows: dict[tuple[str, ...], dict[str, Any]] = {}
        self._lock = threading.RLock()
        self._kept: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What make() gives, made once in a campaign."""
        with self._lock:
            if name not in self._kept:
                self._kept[name] = make()
            return self._kept[name]

    def folder(self) -> Path:
        """A new one."""
        return Path(tempfile.mkdtemp(dir=self.root))

    def run(self, folder: Path, words: Iterable[str] = COMMAND, **how: Any) -> Ended:
        """A command from its start to its end; how: as of Server.start."""
        return self.server.start(list(words), folder, **how).wait()

    def expected(self, words: Iterable[str] = COMMAND) -> dict[str, Any]:
        """The rows of an undisturbed run: run_key -> what is no circumstance."""
        words = tuple(words)
        with self._lock:
            if words not in self._rows:
                folder = self.folder()
                ended = self.run(folder, words)
                if ended.code:
                    raise RuntimeError(f"the undisturbed run failed: {ended.out}{ended.err}")
                self._rows[words] = rows_of(folder)
            return self._rows[words]

    def finished(self) -> Path:
        """A copy of a folder in which COMMAND has run."""

        def make() -> Path:
            folder = self.folder()
            self.run(folder)
            return folder

        return self._copy(self.once("finished", make))

    def begun(self) -> Path:
        """A copy of a folder in which COMMAND was killed with sums of its first cell saved."""

        def make() -> Path:
            folder = self.folder()
            self.run(folder, fault={"do": "kill", "at": 2, "named": "rank-0.npz"})
            if not list(folder.glob("results/s/partial/*/rank-0.npz")):
                raise RuntimeError("no sums were saved")
            return folder

        return self._copy(self.once("begun", make))

    def _copy(self, source: Path) -> Path:
        folder = self.folder()
        shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
        return folder

    def changes(self) -> int:
        """How many changes of files COMMAND makes."""

        def make() -> int:
            folder, to = self.folder(), self.root / "changes"
            self.run(folder, fault={"do": "count", "to": str(to)})
            return to.stat().st_size

        return self.once("changes", make)

    def again(self, folder: Path, words: Iterable[str] = COMMAND) -> Outcome:
        """Run the command undisturbed: what of its rows is lost or wrong after that, and what is left."""
        return ended_as(self.run(folder, words), (0,)) + self.judged(folder, words)

    def judged(self, folder: Path, words: Iterable[str] = COMMAND, *, ended: bool = False) -> Outcome:
        """What of the rows is lost or wrong now, and what is left of writers that are gone.

        ended: a process was, and what it left may stay until the next run.
        """
        expected, found = self.expected(words), rows_of(folder)
        lost = [key for key in expected if key not in found]
        wrong = [key for key in expected if key in found and found[key] != expected[key]]
        study = folder / "results" / "s"
        left = [path for path in study.rglob(".*") if not path.name.startswith(_OWN)]
        left += [path for path in study.glob("partial/*") if path.name in expected]
        left = [] if ended else left
        differing = {
            name
            for key in wrong
            for name in expected[key].keys() | found[key]
            if expected[key].get(name) != found[key].get(name)
        }
        told = ((f"lost {lost}", lost), (f"wrong {sorted(differing)}", wrong), (f"left {left}", left))
        note = "; ".join(text for text, there in told if there)
        return Outcome(lost=len(lost), wrong=len(wrong), left=len(left), note=note)

    def suffered(self, folder: Path, ended: Ended, codes: Iterable[int]) -> Outcome:
        """Judge a command that a fault met, which may have one of these exit codes, then run it again.

        An exit code of 0 claims that all rows are there and right: that is looked at first.
        """
        outcome = ended_as(ended, {0, *codes})
        if ended.code == 0:
            before = self.judged(folder, ended=True)
            outcome += Outcome(codes=int(before.lost + before.wrong > 0), note=before.note)
        return outcome + self.again(folder)

    def close(self) -> None:
        """End the server."""
        self.server.close()


@dataclass(frozen=True)
class Kind:
    """A kind of fault. cases: what its trials are of; quick: how many of them the quick part takes."""

    name: str
    trial: Callable[[Bench, Any, random.Random], Outcome]
    cases: Callable[[Bench], list[Any]]
    quick: int = 1


def rows_of(folder: Path) -> dict[str, Any]:
    """The readable rows of the study in a folder, less their circumstances: run_key -> row."""
    found = {}
    for path in (folder / "results" / "s" / "rows").glob("*.json"):
        if not path.is_file():  # a device has no end
            continue
        with suppress(OSError, ValueError):
            row = json.loads(path.read_bytes())
            if row["status"] == "done":
                found[path.stem] = {key: row[key] for key in row if key not in CIRCUMSTANCES}
    return found
