"""What the ranks other than 0 do: their share of each cell that rank 0 announces, and nothing else.

They read no command, run no Hydra and write nothing but their own sums.
"""

import sys
from contextlib import suppress
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from seedsbench.bench.cell import problem_of
from seedsbench.bench.machine import device_of
from seedsbench.bench.ranks import Ranks, blamed, in_step, messages, task_of
from seedsbench.bench.sampling import batch_size_for
from seedsbench.bench.scoring import Scorer
from seedsbench.bench.share import Job, draw, gather, plan_of
from seedsbench.bench.stopping import Stopped
from seedsbench.bench.store import ResultStore
from seedsbench.config import study_folder


def follow(ranks: Ranks) -> None:
    """Take part in every cell until rank 0 says that it was the last. Raises Stopped when told to stop."""
    row = None
    try:
        for number, message in messages(ranks):
            cfg = OmegaConf.create(message["cfg"])
            assert isinstance(cfg, DictConfig)
            with suppress(Exception):  # while rank 0 does so too; what went wrong is said if the cell is run
                problem_of(cfg, device_of(cfg.device, ranks.local_rank))
            task = task_of(ranks, number)
            if task is not None:
                row = task["row"]
                _take_part(ranks, number, cfg, message["seed"], task)
                row = None
    except Stopped:
        failed = blamed(ranks, row or {})
        if failed is not None:
            print(f"seedsbench: {failed['reason']}", file=sys.stderr)
        if failed is not None and row is not None:
            ResultStore(study_folder(cfg)).write(failed)
        raise


def _take_part(ranks: Ranks, number: int, cfg: DictConfig, seed: int, task: dict[str, Any]) -> None:
    made: list[tuple[Job, Scorer]] = []

    def work() -> None:
        device = device_of(cfg.device, ranks.local_rank)
        problem = problem_of(cfg, device)
        if problem.model_id != task["row"]["model_id"]:
            raise ValueError("the model is another one in each process: let what builds it seed its numbers")
        store = ResultStore(study_folder(cfg))
        plan = plan_of(cfg, problem, seed)
        size = batch_size_for(problem.denoiser, plan, cfg.batch_size, device)
        job = Job(cfg, problem, plan, size, device, store, task["row"], ranks, number)
        mine = job.scorer()
        packed = np.frombuffer(bytes.fromhex(task["done"]), np.uint8)
        made.append((job, mine))
        draw(job, np.unpackbits(packed, count=len(mine.done)).astype(bool), mine)

    if in_step(ranks, number, work):
        gather(*made[0])
