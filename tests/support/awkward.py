"""Mixtures that befall a worker: copied into a --config-dir, where the processes of a sweep find them."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import torch

from seedsbench.bench.problems.analytic import mixture_problem
from seedsbench.denoisers.base import FixedBatch


class Awkward(FixedBatch):
    """Waits from its call `late` on for a file `told`; or, beside a file `fatal`, kills its process."""

    def __init__(self, denoiser, dies, late):
        super().__init__(denoiser)
        self.dies, self.late = dies, late

    def __call__(self, x, sigma, labels=None):
        self.late -= 1
        if self.dies and Path("fatal").exists():
            Path("told").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        elif not self.dies and self.late <= 0:
            Path("waits").touch()
            for _ in range(600):
                if Path("told").exists():
                    break
                time.sleep(0.1)
        return super().__call__(x, sigma, labels)


def problem(regime, dies=False, late=0, device="cpu"):
    found = mixture_problem(regime, f"awkward {dies}", [[0.3, -0.2]], [1.0], 0.5)
    return replace(found, denoiser=Awkward(found.denoiser, dies, late))


def refused(regime, device="cpu"):
    raise ValueError(f"{torch.get_num_threads()} threads")


def fatal_to_a_rank(regime, device="cpu"):
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return problem(regime, dies=True)
