"""Rules that choose levels of a teacher: (teacher, n_levels, solver, schedule) -> levels and their cost."""

import itertools
import math
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from seedsbench.denoisers.base import Denoiser
from seedsbench.diffusion.noise import Silent
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Schedule
from seedsbench.files.digests import digest
from seedsbench.searching.cheapest import cheapest
from seedsbench.searching.teacher import Teacher, deviation
from seedsbench.solvers.base import Solver

REMEMBERED = 256
"""Answers of the network that are kept: those of the longest run in work, and more."""


@dataclass(frozen=True)
class Found:
    """sigmas: (n,) decreasing levels. evaluations: of the network, beside the teacher's, over all samples."""

    sigmas: Tensor
    evaluations: int = 0


def gits(
    teacher: Teacher, n_levels: int, solver: Solver, schedule: Schedule, *, growth: float = 1.15
) -> Found:
    """GITS (Chen et al. 2024, arXiv 2405.11326): the path of least error of single Euler steps.

    The cost of a step is the distance of an Euler step from the teacher's state to the teacher's next one;
    what comes after counts `growth` times more with each step (their coefficient, 1.15). The solver is not
    asked: one grid for all. Here the way to the data is a step as well, so that the last level is chosen too.
    """
    m = len(teacher.sigmas)
    cost = torch.full((m, m + 1), math.inf, dtype=torch.float64)
    for i in range(m):
        cost[i, i + 1 :] = deviation(teacher.stepped(i), teacher.ahead(i))
    return Found(teacher.sigmas[cheapest(cost, n_levels, growth)])


def constant_rotation(teacher: Teacher, n_levels: int, solver: Solver, schedule: Schedule) -> Found:
    """Levels between which the paths turn by the same angle, on the average over the samples.

    Paths of the ODE are nearly plane and bend in one place (Chen et al. 2024); the angle is that between
    successive directions dx/dsigma. The last step, to the data, has the same share as the others.
    """
    directions = torch.nn.functional.normalize(teacher.noise.flatten(2), dim=2)
    # The chord is exact at small angles, where the arc cosine of a product is all rounding.
    angles = 2 * ((directions[1:] - directions[:-1]).norm(dim=2) / 2).asin().mean(dim=1)
    turned = torch.cat([angles.new_zeros(1), angles.cumsum(0)])
    wanted = torch.arange(n_levels, dtype=torch.float64) / n_levels * turned[-1]
    place = torch.searchsorted(turned, wanted, right=True).clamp(1, len(turned) - 1)
    share = (wanted - turned[place - 1]) / (turned[place] - turned[place - 1])
    logs = teacher.sigmas.log()
    return Found((logs[place - 1] + share * (logs[place] - logs[place - 1])).exp())


def oss(teacher: Teacher, n_levels: int, solver: Solver, schedule: Schedule) -> Found:
    """OSS (Pei et al. 2025, arXiv 2503.21774): the solver's own run, each time from its best state so far.

    After k steps the solver may be at any level of the teacher's; of the ways there the one is kept whose
    state is nearest to the teacher's, and goes on. Last, the level is chosen from which the final step leads
    nearest to the finished samples. A solver that draws noise is searched without it (`Solver.noise_free`).
    """
    student = Student(teacher, solver.noise_free, schedule)
    m, paths = len(teacher.sigmas), {0: (0,)}
    if n_levels > m:
        raise ValueError(f"{n_levels} levels of the {m} that the teacher has: give it more steps")
    for left in range(n_levels - 1, 0, -1):
        nearest: dict[int, tuple[float, tuple[int, ...]]] = {}
        for i, path in paths.items():
            for j in range(i + 1, m - left + 1):
                error = float(deviation(student.state((*path, j), left - 1), teacher.x[j]))
                nearest[j] = min(nearest.get(j, (math.inf, ())), (error, (*path, j)))
        paths = {j: path for j, (_, path) in nearest.items()}
    ends = {path: float(deviation(student.finished(path), teacher.finished)) for path in paths.values()}
    best = min(ends, key=ends.__getitem__)
    return Found(teacher.sigmas[list(best)], student.denoiser.evaluated)


class Student:
    """Runs of a solver over some of the teacher's levels, from the teacher's start."""

    def __init__(self, teacher: Teacher, solver: Solver, schedule: Schedule) -> None:
        self.denoiser = Remembering(teacher.denoiser)
        self._teacher, self._solver, self._schedule = teacher, solver, schedule
        self._process = Process(self.denoiser, schedule, teacher.x.shape[1], teacher.labels)
        self._times = schedule.sigma_inv(teacher.sigmas)
        self._silent = Silent(teacher.x.shape[1:])

    def state(self, path: tuple[int, ...], left: int) -> Tensor:
        """(B, C, H, W), unscaled, at the last level of a path, of a run that has `left` more levels to go."""
        # A multistep method plans its run beforehand: those to come are the next ones.
        times = self._times[[*path, *range(path[-1] + 1, path[-1] + 1 + left)]]
        x = self._teacher.x[0] * self._scale(0)
        state = self._solver.init(self._process, x, times)
        for t, t_next in itertools.pairwise(times[: len(path)]):
            step = self._solver.step(self._process, x, t, t_next, state, self._silent)
            x, state = step.x, step.state
        return x / self._scale(path[-1])

    def finished(self, path: tuple[int, ...]) -> Tensor:
        """(B, C, H, W): where a run over this path ends."""
        return self._process.predict(self.state(path, 0), self._teacher.sigmas[path[-1]])

    def _scale(self, i: int) -> Tensor:
        return self._schedule.scale_at(self._teacher.sigmas[i])


class Remembering:
    """A denoiser that remembers its latest answers: runs that begin alike ask the same again.

    evaluated: how many samples it was really asked for, each time as many as the denoiser evaluates.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser, self._answers = denoiser, OrderedDict[str, Tensor]()
        self.evaluations, self.evaluated = denoiser.evaluations, 0

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        key = digest(x.cpu().numpy().tobytes() + sigma.cpu().numpy().tobytes())
        if key not in self._answers:
            cost = self._denoiser.evaluations_at(sigma)
            self.evaluated += int(cost.expand(len(x)).sum()) if isinstance(cost, Tensor) else cost * len(x)
            self._answers[key] = self._denoiser(x, sigma, labels)
        self._answers.move_to_end(key)
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return self._answers[key]


METHODS = {"gits": gits, "oss": oss, "constant_rotation": constant_rotation}
