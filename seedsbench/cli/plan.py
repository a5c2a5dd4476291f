"""What cells would cost and which are done: the lines of plan=true. Writes and fetches nothing."""

from omegaconf import DictConfig

from seedsbench import registry
from seedsbench.api import steps_of
from seedsbench.bench.cell import study_folder
from seedsbench.bench.machine import device_of
from seedsbench.bench.problems.identity import Identity
from seedsbench.bench.rows.run_key import scientific
from seedsbench.bench.rows.store import ResultStore, run_key
from seedsbench.bench.run import problem_of
from seedsbench.cli.dry_run import still_to_fetch
from seedsbench.cli.estimate import estimate_lines
from seedsbench.solvers.base import BudgetError


def plan_text(cells: list[DictConfig]) -> str:
    """A count, one line a cell, then the time and disk that what is not done would take.

    A cell's line has its choices, steps and evaluations, or what is known of it where it is done.
    """
    lines, left = [], []
    for cfg in cells:
        told, nfe, count = _lines(cfg, _identity(cfg))
        lines += told
        if count:
            left.append((cfg, nfe, count))
    if not cells:
        return "0 cells"
    told = estimate_lines(left, study_folder(cells[0]))
    return "\n".join([f"{len(lines)} cell{'s' * (len(lines) != 1)}", *lines, *told])


def _identity(cfg: DictConfig) -> Identity | None:
    """Who the cell's problem is; None if its files are not here, so that no row of it can be known."""
    return None if still_to_fetch(cfg) else problem_of(cfg, device_of(cfg.device)).identity


def _lines(cfg: DictConfig, who: Identity | None) -> tuple[list[str], int, int]:
    """The lines of a cell, its evaluations a sample, and how many of its seeds are left to do."""
    chosen = cfg.hydra.runtime.choices
    solver, grid = registry.build(cfg.solver), registry.build(cfg.grid)
    store = ResultStore(study_folder(cfg))
    lines, nfe, left = [], 0, 0
    for seed in range(cfg.seed, cfg.seed + cfg.repeats):
        title = f"{chosen.model}/{chosen.regime} {chosen.solver} nfe={cfg.nfe} seed={seed}"
        try:
            steps = steps_of(solver, grid, cfg.nfe, cfg.final, afs=cfg.afs)
        except BudgetError as error:
            lines.append(f"  {title}: will be skipped, {error}")
            continue
        nfe = solver.total_nfe(steps, cfg.final, afs=cfg.afs)
        row = None
        if who is not None and not cfg.force:
            row = store.finished(run_key(scientific(cfg, who, seed)), adopt=False)
        left += row is None
        state = f"done, FID {row['fid']:.3f}" if row else f"{cfg.samples * nfe:,} evaluations to do"
        lines.append(f"  {title}: {steps} steps, NFE {nfe}, {state}")
    return lines, nfe, left
