"""Weights & Biases: one run a cell, grouped by study, and one run for the study with table and chart.

A cell's run is made when its row is there, so W&B never sits between a sampler and its result. Run ids
follow from study and run_key: a study that is resumed, or run again after an outage, fills in what is missing
and doubles nothing. wandb is imported when the first row is logged, not before.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal

from seedsbench.checks import Range, check_fields, nearest
from seedsbench.files.digests import digest
from seedsbench.tracking.base import Tracker, warn_once

_MODES = {mode: mode for mode in ("online", "offline", "disabled")}
# What WANDB_MODE may say. Runs are written by one process here: there is none to share them with.
_WANDB_MODES = {"run": "online", "dryrun": "offline", "shared": "online", **_MODES}
_SCORES = ("nfe", "fid", "trajectory_rms", "is_mean", "is_std", "fid_floor", "images_per_second")
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
# Kept here because every Hydra job builds its own tracker.
_FALLEN_BACK: set[str] = set()  # modes this process found not to work
_AGENT_RUNS: set[str] = set()  # run ids of a W&B agent that a cell has taken: it gives one a process


@dataclass(frozen=True)
class WandB(Tracker):
    """Tracker of `conf/tracker/wandb.yaml`.

    mode: "online", "offline" (send later with `wandb sync`) or "disabled"; None for what the environment
    variable WANDB_MODE says, and online where it is not set. Where online does not work
    (no login, no connection within `timeout` seconds), the rest of the process records offline, and one
    warning says so. Runs lie in `<study>/wandb`.
    """

    mode: str | None = None
    project: str = "seedsbench"
    entity: str | None = None
    timeout: Annotated[float, Range(0, 1e6, open_low=True)] = 30.0

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

    def log_row(self, study: Path, row: dict[str, Any], config: dict[str, Any]) -> None:
        """One run: `config` and `row` as nested configuration, scores as summary, the sample strip as image.

        Under a W&B agent the first run of a process is the agent's own. Exit code 1 for a failed cell.
        """
        if self.effective_mode == "disabled":
            return
        agents = os.environ.get("WANDB_RUN_ID", "")
        is_agents = "WANDB_SWEEP_ID" in os.environ and agents not in _AGENT_RUNS
        if is_agents:
            _AGENT_RUNS.add(agents)
        with nullcontext() if is_agents else _outside_sweep():
            self._log_cell(study, row, config)

    def finish_study(self, study: Path) -> None:
        """The study's run: `cells` (table), a `pareto/...` line chart a panel, and the report's figures."""
        if self.effective_mode != "disabled":
            with _outside_sweep():
                self._log_study(study)

    def _log_cell(self, study: Path, row: dict[str, Any], config: dict[str, Any]) -> None:
        import wandb

        from seedsbench.report.pictures import read_png

        name = f"{row['model']}/{row['regime']} {row['solver']} nfe={row['nfe_budget']} seed={row['seed']}"
        run = self._start(study, "cell", name, row["run_key"], {"cfg": config})
        run.define_metric("nfe")
        for score in _SCORES[1:]:
            run.define_metric(score, step_metric="nfe")
        logged: dict[str, Any] = {key: row[key] for key in _SCORES if isinstance(row.get(key), Real)}
        strip = study / "samples" / f"{row['run_key']}.png"
        if read_png(strip):
            logged["samples"] = wandb.Image(str(strip), caption=name)
        if logged:
            run.log(logged)
        run.summary.update({key: value for key, value in row.items() if isinstance(value, str | bool | Real)})
        run.finish(exit_code=int(row["status"] == "failed"))

    def _log_study(self, study: Path) -> None:
        import wandb

        from seedsbench.report.pareto import panels
        from seedsbench.report.pictures import read_png
        from seedsbench.report.rows import read_rows
        from seedsbench.report.texts import printable

        df, _ = read_rows(study)
        run = self._start(study, "study", f"study {study.name}", "study", {"study": study.name})
        columns: Any = [name for name in _TABLE if name in df]
        told = df[columns].astype(object)
        cells: Any = told.where(told.notna(), None).to_numpy().tolist()
        logged: dict[str, Any] = {"cells": wandb.Table(columns=columns, data=cells)}
        for panel in panels(df):
            scored = panel.points.dropna(subset=["nfe", "fid"]).sort_values("nfe")
            curves = {str(name): part for name, part in scored.groupby("curve", sort=False)}
            if curves:
                xs, ys = ([part[axis].tolist() for part in curves.values()] for axis in ("nfe", "fid"))
                title = f"{panel.score_name} against NFE: {panel.title}"
                chart = wandb.plot.line_series(xs, ys, keys=list(curves), title=title, xname="NFE")
                logged[f"pareto/{panel.slug}"] = chart
        for figure in filter(read_png, sorted((study / "figures").glob("*.png"))):
            logged[f"figures/{printable(figure.stem)}"] = wandb.Image(str(figure))
        run.log(logged)
        counts = {f"cells_{name}": int(count) for name, count in df["status"].value_counts().items()}
        run.summary.update({"cells": len(df), **counts})
        run.finish(exit_code=0)

    def _start(self, study: Path, kind: str, name: str, key: str, config: dict[str, Any]) -> Any:
        """A started run; offline where online was found not to work."""
        import wandb

        options = {"silent": True, "console": "off", "disable_git": True, "disable_code": True}
        options |= {"x_disable_stats": True, "init_timeout": self.timeout, "finish_timeout": self.timeout}
        known = wandb.Settings.model_fields  # an older wandb has no finish_timeout
        settings = wandb.Settings(**{name: options[name] for name in options if name in known})
        given: dict[str, Any] = {"group": study.name, "job_type": kind, "name": name, "config": config}
        in_sweep = "WANDB_SWEEP_ID" in os.environ
        if not in_sweep:
            run_id = digest(f"{study.name}/{key}".encode())
            given |= {"project": self.project, "entity": self.entity, "id": run_id}

        def started(mode: Literal["online", "offline"]) -> Any:
            resume = None if in_sweep or mode == "offline" else "allow"
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


@contextmanager
def _outside_sweep() -> Iterator[None]:
    """Runs started here do not belong to the W&B agent that started this process, if one did."""
    import wandb

    in_sweep = "WANDB_SWEEP_ID" in os.environ
    taken = {name: os.environ.pop(name) for name in _SWEEP_VARIABLES if name in os.environ}
    if in_sweep:
        wandb.teardown()  # it has read the variables
    try:
        yield
    finally:
        if in_sweep:
            wandb.teardown()
        os.environ.update(taken)
