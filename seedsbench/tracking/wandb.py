"""Weights & Biases: a run for each cell or curve, grouped by study, and one of the study with its chart.

A cell's run begins when it has been running for a while, or else when its row is there: W&B may delay a cell
but is no part of its times. Run ids follow from study and run_key: a study that is resumed, or run again
after an outage, fills in what is missing and doubles nothing. wandb is imported when first needed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from seedsbench.checks import Range, check_fields, nearest
from seedsbench.files.digests import digest
from seedsbench.files.rows import CellProgress, Row, read_row
from seedsbench.tracking.base import Tracker, warn_once
from seedsbench.tracking.logged import (
    GOALS,
    SCORES,
    curve_config,
    flat_config,
    scores_of,
    summary_of_row,
    tags_of,
)

_MODES = {mode: mode for mode in ("online", "offline", "disabled")}
# What WANDB_MODE may say. Runs are written by one process here: there is none to share them with.
_WANDB_MODES = {"run": "online", "dryrun": "offline", "shared": "online", **_MODES}
# fmt: off
_TABLE = (
    "model", "regime", "schedule", "grid", "solver", "solver_params", "guidance", "guidance_params",
    "nfe_budget", "nfe", "fid", "fid_floor", "trajectory_rms",
    "is_mean", "is_std", "images_per_second", "seconds_sampling", "samples", "labels", "seed", "status",
    "reason", "extractor", "run_key",
)
_SWEEP_VARIABLES = (
    "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_GROUP", "WANDB_NAME",
    "WANDB_RESUME",
)
# fmt: on
_POINT = {"curve": "solver", "nfe_budget": "nfe_budget", "nfe": "nfe", "fid": "score", "n": "runs"}
# Kept here because every Hydra job builds its own tracker.
_FALLEN_BACK: set[str] = set()  # modes this process found not to work
_AGENT_RUNS: dict[str, str] = {}  # run id of a W&B agent, which gives one a process -> the cell that has it
_OPEN: dict[str, Any] = {}  # the runs of cells that are running, by run_key


@dataclass(frozen=True)
class WandB(Tracker):
    """Tracker of `conf/tracker/wandb.yaml`.

    mode: "online", "offline" (send later with `wandb sync`) or "disabled"; None for what the environment
    variable WANDB_MODE says, and online where it is not set. Where online does not work
    (no login, no connection within `timeout` seconds), the rest of the process records offline, and one
    warning says so. Runs lie in `<study>/wandb`.
    runs: "cell", or "curve": one run for each solver with its options, regime, model and seed, with nfe as
    its axis, made of the study's rows at its end. progress: seconds between telling how far a cell is.
    """

    mode: str | None = None
    project: str = "seedsbench"
    entity: str | None = None
    timeout: Annotated[float, Range(0, 1e6, open_low=True)] = 30.0
    runs: Literal["cell", "curve"] = "cell"
    progress: Annotated[float, Range(0, 1e6, open_low=True)] = 30.0

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.effective_mode

    @property
    def effective_mode(self) -> str:
        """online, offline or disabled; ValueError for a mode, or a WANDB_MODE, that is unknown."""
        what, mode, known = "tracker.mode", self.mode, _MODES
        if mode is None:
            what, mode, known = "WANDB_MODE", os.environ.get("WANDB_MODE", "online"), _WANDB_MODES
        if mode not in known:
            raise ValueError(f"{nearest(mode, known, what=what)} (one of {', '.join(known)})")
        return known[mode]

    @property
    def progress_every(self) -> float:
        return self.progress

    def log_progress(self, study: Path, progress: CellProgress) -> None:
        """`progress/images`, `progress/share` and `progress/seconds_left` of the run of a cell that runs."""
        if self._passes(progress.row) or (_in_sweep() and not _is_agents(progress.row)):
            return
        run = self._of_cell(study, progress.row, progress.title)
        told = {"images": progress.done, "share": progress.done / progress.samples}
        if progress.seconds_left is not None:
            told["seconds_left"] = progress.seconds_left
        run.log({f"progress/{key}": value for key, value in told.items()})

    def log_row(self, study: Path, row: dict[str, Any], title: str) -> None:
        """One run: a flat configuration, scores as summary and against nfe, the strip of samples as image.

        Under a W&B agent the first run of a process is the agent's own. Exit code 1 for a failed cell.
        """
        if self._passes(row):
            return
        with nullcontext() if _is_agents(row) else _outside_sweep():
            self._log_cell(study, row, title)

    def finish_study(self, study: Path) -> None:
        """The study's run: `cells` and `pareto_table` (tables), a `pareto/...` line chart a panel, and the
        report's figures; before it the curves, where these are wanted."""
        if self.effective_mode == "disabled":
            return
        with _outside_sweep():
            if self.runs == "curve":
                self._log_curves(study)
            self._log_study(study)

    def _passes(self, row: Row) -> bool:
        """Whether a cell has no run of its own. An agent's has, or the agent would have no score."""
        return self.effective_mode == "disabled" or (self.runs == "curve" and not _is_agents(row))

    def _of_cell(self, study: Path, row: Row, title: str) -> Any:
        """The run of a cell, which is started if it was not."""
        key = row["run_key"]
        if key not in _OPEN:
            run = self._start(study, "cell", title, key, flat_config(row), tags_of(row))
            run.define_metric("nfe")
            for score in SCORES[1:]:
                run.define_metric(score, step_metric="nfe")
            _OPEN[key] = run
        return _OPEN[key]

    def _log_cell(self, study: Path, row: Row, title: str) -> None:
        import wandb

        from seedsbench.report.pictures import read_png

        run = self._of_cell(study, row, title)
        del _OPEN[row["run_key"]]
        run.config.update(flat_config(row), allow_val_change=True)  # what is known only now, as the device
        logged: dict[str, Any] = dict(scores_of(row))
        strip = study / "samples" / f"{row['run_key']}.png"
        if read_png(strip):
            logged["sample_images"] = wandb.Image(str(strip), caption=title)
        if logged:
            run.log(logged)
        run.summary.update(summary_of_row(row))
        run.finish(exit_code=int(row["status"] == "failed"))

    def _log_curves(self, study: Path) -> None:
        """One run for each curve and seed of the study's rows, which replaces an earlier one of it."""
        from seedsbench.report.pareto import panels
        from seedsbench.report.points import newest
        from seedsbench.report.rows import read_rows, take

        for panel in panels(read_rows(study)[0]):
            rows = newest(panel.rows)
            held: dict[tuple[str, Any], list[Row]] = {}
            for found in take(rows, rows["status"] == "done").sort_values("nfe").to_dict("records"):
                row = read_row(study / "rows" / f"{found['run_key']}.json")
                held.setdefault((found["curve"], found["run"]), []).append(row)
            for (curve, run), cells in held.items():
                self._log_curve(study, cells, curve, f"curve {panel.full_title} {curve} {run}")

    def _log_curve(self, study: Path, rows: list[Row], curve: str, key: str) -> None:
        first = rows[0]
        name = f"{first['model']}/{first['regime']} {curve} seed={first['seed']}"
        run = self._start(study, "curve", name, key, curve_config(first), tags_of(first))
        run.define_metric("nfe")
        for score in SCORES[1:]:
            run.define_metric(score, step_metric="nfe", summary=GOALS.get(score))
        for row in rows:
            run.log(scores_of(row))
        run.summary.update({"status": "done", "cells": len(rows)})
        run.finish(exit_code=0)

    def _log_study(self, study: Path) -> None:
        import wandb

        from seedsbench.report.pareto import panels
        from seedsbench.report.pictures import read_png
        from seedsbench.report.rows import read_rows
        from seedsbench.report.texts import printable

        df, _ = read_rows(study)
        run = self._start(study, "study", f"study {study.name}", "study", {"study": study.name}, ["study"])
        columns: Any = [name for name in _TABLE if name in df]
        told = df[columns].astype(object)
        cells: Any = told.where(told.notna(), None).to_numpy().tolist()
        logged: dict[str, Any] = {"cells": wandb.Table(columns=columns, data=cells)}
        points: list[Any] = []
        for panel in panels(df):
            scored = panel.points.dropna(subset=["nfe", "fid"]).sort_values("nfe")
            points += ([panel.full_title, *line] for line in scored[list(_POINT)].to_numpy().tolist())
            curves = {str(name): part for name, part in scored.groupby("curve", sort=False)}
            if curves:
                xs, ys = ([part[axis].tolist() for part in curves.values()] for axis in ("nfe", "fid"))
                title = f"{panel.score_name} against NFE: {panel.title}"
                chart = wandb.plot.line_series(xs, ys, keys=list(curves), title=title, xname="NFE")
                logged[f"pareto/{panel.slug}"] = chart
        logged["pareto_table"] = wandb.Table(columns=["panel", *_POINT.values()], data=points)
        for figure in filter(read_png, sorted((study / "figures").glob("*.png"))):
            logged[f"figures/{printable(figure.stem)}"] = wandb.Image(str(figure))
        run.log(logged)
        counts = {f"cells_{name}": int(count) for name, count in df["status"].value_counts().items()}
        run.summary.update({"cells": len(df), **counts})
        run.finish(exit_code=0)

    def _start(
        self, study: Path, kind: str, name: str, key: str, config: dict[str, Any], tags: list[str]
    ) -> Any:
        """A started run; offline where online was found not to work. key: what its id follows from.

        A run of this id is gone on with, but for a curve's, which a new one replaces.
        """
        import wandb

        options = {"silent": True, "console": "off", "disable_git": True, "disable_code": True}
        options |= {"git_commit": config.get("git_commit")}
        options |= {"x_disable_stats": True, "init_timeout": self.timeout, "finish_timeout": self.timeout}
        known = wandb.Settings.model_fields  # an older wandb has no finish_timeout
        settings = wandb.Settings(**{name: options[name] for name in options if name in known})
        given: dict[str, Any] = {"group": study.name, "job_type": kind, "name": name, "config": config}
        given["tags"] = tags
        in_sweep = _in_sweep()
        if not in_sweep:
            run_id = digest(f"{study.name}/{key}".encode())
            given |= {"project": self.project, "entity": self.entity, "id": run_id}

        def started(mode: Literal["online", "offline"]) -> Any:
            resume = None if in_sweep or mode == "offline" or kind == "curve" else "allow"
            return wandb.init(mode=mode, resume=resume, dir=str(study), settings=settings, **given)

        if self.effective_mode == "online" and "online" not in _FALLEN_BACK:
            try:
                if not _logged_in(wandb):
                    raise RuntimeError("no login: run `wandb login`, or set WANDB_API_KEY")
                return started("online")
            except Exception as error:
                _FALLEN_BACK.add("online")
                wandb.teardown()  # it still holds the run that did not start
                send = f"wandb sync {study / 'wandb'}/offline-run-*"
                said = " ".join(str(error).split())[:200]
                warn_once(f"W&B cannot be reached ({said}); recorded offline, to be sent with: {send}")
        return started("offline")


def _logged_in(wandb: Any) -> bool:
    """Whether there are credentials, without asking for any at the keyboard."""
    wandb.setup(settings=wandb.Settings(silent=True, mode="online"))  # whatever WANDB_MODE says
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # before wandb 0.31, which has no such option; init will tell
        return True


def _in_sweep() -> bool:
    """Whether a W&B agent started this process."""
    return "WANDB_SWEEP_ID" in os.environ


def _is_agents(row: Row) -> bool:
    """Whether a cell has the run of the W&B agent that started this process: the first that asks."""
    agents = os.environ.get("WANDB_RUN_ID", "")
    return _in_sweep() and _AGENT_RUNS.setdefault(agents, row["run_key"]) == row["run_key"]


@contextmanager
def _outside_sweep() -> Iterator[None]:
    """Runs started here do not belong to the W&B agent that started this process, if one did."""
    import wandb

    in_sweep = _in_sweep()
    taken = {name: os.environ.pop(name) for name in _SWEEP_VARIABLES if name in os.environ}
    if in_sweep:
        wandb.teardown()  # it has read the variables
    try:
        yield
    finally:
        if in_sweep:
            wandb.teardown()
        os.environ.update(taken)
