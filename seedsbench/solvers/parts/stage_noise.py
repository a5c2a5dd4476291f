"""The law of a step's noises as data: the joint covariance of those of its stages and of its end.

In the splitting's coordinates (parts/splitting.py) the SDE has the noise dB(q) of a standard Brownian path B.
A stage at clock reading q_i has a noise of its own, Gaussian, and only its covariances count for the
distribution of what the solver draws. On the path they are min(q_i, q_j) - q_0; other laws change some of
them, which is what weak order 3 takes (parts/weak_conditions.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import add_weighted

Covariance = list[list[Tensor]]


def path_covariance(times: Sequence[Tensor]) -> Covariance:
    """Of one Brownian path at such times since the step's start."""
    return [[torch.minimum(one, other) for other in times] for one in times]


def brownian_path(clocks: list[Tensor], noise: Noise) -> list[Tensor]:
    """W(q_i) - W(q_0) at each clock reading, whatever their order; increments drawn in order of time.

    clocks: q_0 first, all others larger. A reading that occurs twice costs one draw.
    """
    key = [float(q.flatten()[0]) for q in clocks]
    order = sorted(range(len(clocks)), key=key.__getitem__)
    values: dict[int, Tensor] = {}
    total, last = torch.zeros((), dtype=torch.float64), order[0]
    for i in order:
        if key[i] > key[last]:
            total = total + noise.increment(clocks[last], clocks[i])
            last = i
        values[i] = total
    return [values[i] for i in range(len(clocks))]


@dataclass(frozen=True)
class StageNoise(ABC):
    """The joint law of the noises of one step."""

    @abstractmethod
    def covariance(self, times: Sequence[Tensor], ratio: Tensor) -> Covariance:
        """Of the noises at the stages inside the step, in their order, and last of that at its end.

        times: readings of the noise's clock since the step's start, in that order; those of the path's
        variance. ratio: of the step's noise levels, end to start, in (0, 1); 1 in the limit of short steps.
        """

    def draw(self, nodes: Sequence[float], clocks: list[Tensor], ratio: Tensor, noise: Noise) -> list[Tensor]:
        """The noise at each of `nodes`, which are 0 first and 1 last; a stage at 1 has that of the end.

        clocks: readings there. One normal for each stage inside the step, and one for the end.
        """
        places = inside(nodes)
        times = [(clocks[i] - clocks[0]).abs() for i in places]
        normals: list[Tensor] = []
        drawn: list[Tensor] = []
        for row in factor(self.covariance(times, ratio)):
            normals.append(noise.normal())
            drawn.append(add_weighted(torch.zeros_like(normals[0]), row, normals, owned=True))
        known = dict(zip([*places[:-1], len(nodes) - 1], drawn, strict=True))
        start, end = torch.zeros_like(drawn[-1]), drawn[-1]
        return [known.get(i, start if node == 0 else end) for i, node in enumerate(nodes)]


def inside(nodes: Sequence[float]) -> list[int]:
    """Places of the stages strictly inside a step, and of its end, which is the last node."""
    return [i for i, node in enumerate(nodes[:-1]) if 0 < node < 1] + [len(nodes) - 1]


def factor(covariance: Covariance) -> list[list[Tensor]]:
    """Rows L_i, of i + 1 numbers each, with covariance_ij = L_i . L_j (Cholesky), elementwise over samples.

    A pivot that rounding made negative is 0: that noise follows from the ones before it.
    """
    rows: list[list[Tensor]] = []
    for i, wanted in enumerate(covariance):
        row: list[Tensor] = []
        for j in range(i):
            rest = wanted[j] - sum((row[k] * rows[j][k] for k in range(j)), torch.zeros_like(wanted[j]))
            pivot = rows[j][j]
            row.append(torch.where(pivot > 0, rest / pivot, torch.zeros_like(rest)))
        left = wanted[i] - sum((entry**2 for entry in row), torch.zeros_like(wanted[i]))
        rows.append([*row, left.clamp(min=0).sqrt()])
    return rows


@dataclass(frozen=True)
class OnPath(StageNoise):
    """All read off one Brownian path, at any nodes: no covariance is ever typed."""

    def covariance(self, times: Sequence[Tensor], ratio: Tensor) -> Covariance:
        return path_covariance(times)

    def draw(self, nodes: Sequence[float], clocks: list[Tensor], ratio: Tensor, noise: Noise) -> list[Tensor]:
        """One normal for each distinct reading after the first: increments of a path that runs may share."""
        return brownian_path(clocks, noise)


PATH = OnPath()


@dataclass(frozen=True)
class Redrawn(StageNoise):
    """The path, but that the last two stages inside the step, at one node, are not one point of it.

    Each is drawn anew from the Brownian bridge between the stage before them (the step's start if there is
    none) and the end. correlation: of the two, these given; 1 is the path.
    """

    correlation: float

    def covariance(self, times: Sequence[Tensor], ratio: Tensor) -> Covariance:
        found = path_covariance(times)
        *before, here, _, end = times
        start = before[-1] if before else torch.zeros_like(end)
        bridge = (here - start) * (end - here) / (end - start)
        found[-2][-3] = found[-3][-2] = here - (1 - self.correlation) * bridge
        return found


@dataclass(frozen=True)
class Tilted(StageNoise):
    """The path, but that the first of two stages inside the step has less in common with the end.

    By `tilt` ratio^power of its variance, or as much as a Gaussian law can have: on long steps, which are
    far from the limit that the tilt is for, it fades and the path is left.
    """

    tilt: float
    power: float = 1.0

    def covariance(self, times: Sequence[Tensor], ratio: Tensor) -> Covariance:
        found = path_covariance(times)
        first, second, end = times
        most = ((second - first) * (end - second) / (first * second)).clamp(min=0).sqrt()
        found[0][-1] = found[-1][0] = first * (1 - torch.minimum(self.tilt * ratio**self.power, most))
        return found
