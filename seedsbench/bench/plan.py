"""What a cell would cost and whether it is done: the lines of plan=true. Evaluates no network."""

from pathlib import Path

from omegaconf import DictConfig

from seedsbench import registry
from seedsbench.api import steps_of
from seedsbench.bench.cell import device_of, problem_of, scientific
from seedsbench.bench.store import ResultStore, run_key
from seedsbench.solvers.base import BudgetError


def plan_lines(cfg: DictConfig) -> list[str]:
    """One line for each repeat of a cell: its choices, steps, evaluations, and what is done already."""
    chosen = cfg.hydra.runtime.choices
    solver, grid = registry.build(cfg.solver), registry.build(cfg.grid)
    problem = problem_of(cfg, device_of(cfg.device))
    store = ResultStore(Path(cfg.results_dir) / cfg.study)
    lines = []
    for seed in range(cfg.seed, cfg.seed + cfg.repeats):
        title = f"{chosen.model}/{chosen.regime} {chosen.solver} nfe={cfg.nfe} seed={seed}"
        try:
            steps = steps_of(solver, grid, cfg.nfe, cfg.final, afs=cfg.afs)
        except BudgetError as error:
            lines.append(f"  {title}: will be skipped, {error}")
            continue
        nfe = solver.total_nfe(steps, cfg.final, afs=cfg.afs)
        row = store.finished(run_key(scientific(cfg, problem, seed)), adopt=False)
        state = f"done, FID {row['fid']:.3f}" if row else f"{cfg.samples * nfe:,} evaluations to do"
        lines.append(f"  {title}: {steps} steps, NFE {nfe}, {state}")
    return lines
