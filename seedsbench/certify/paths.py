"""Runs of any step length along one Brownian path, for strong orders and weak ones by sampling."""

from collections.abc import Sequence

import torch
from torch import Tensor

from seedsbench import api
from seedsbench.certify.problems import END, START, AnySolver, as_solver, fixed_steps, log_levels, mixture
from seedsbench.diffusion.noise import Philox, latents
from seedsbench.diffusion.path import BrownianPath, NoPathError

CERTIFY = 0x200  # stream of the certificate's own draws, apart from sampling's and the data sets'


def ends_along_one_path(
    solver: AnySolver, counts: Sequence[int], *, paths: int, fresh: bool = False
) -> list[Tensor]:
    """Final states (paths, 2) of runs on the mixture from START to END, one a step count, longest first.

    All runs follow the same Brownian paths, which live in the solver's own clock and are refined by exact
    bridges. NoPathError for a solver without noise or with normals that are increments of no path; with fresh
    it draws these anew in each run.
    """
    normals = Philox(torch.arange(paths), (2, 1, 1), stream=CERTIFY)
    normals.normal()  # of the first reading, once, when it still took one: certificates keep their numbers
    beside = Philox(torch.arange(paths), (2, 1, 1), stream=CERTIFY + 1) if fresh else None
    method, path = fixed_steps(as_solver(solver)), BrownianPath(normals, normals, beside)
    if not method.stochastic:
        raise NoPathError("this solver has no noise: it follows no path")
    start = latents(torch.arange(paths), (2, 1, 1), seed=0)
    ends = []
    for n in sorted(counts, reverse=True):  # the finest first: coarser ones find its readings
        levels = log_levels(n, START, END)
        run = api.sample(mixture(), start, solver=method, sigmas=levels, final="stop", noise=path)
        ends.append(run.x.flatten(1))
    return ends
