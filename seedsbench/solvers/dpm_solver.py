"""DPM-Solver-1, 2, 3 (Lu et al. 2022a, eq. 3.7, Algorithms 4, 5) and DPM-Solver++(2S) (2022b, Algorithm 1).

Singlestep: one step of the grid is one whole step of the method, with 1, 2 or 3 evaluations at nodes
inside it, and nothing is kept for the next. The order is the number of evaluations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seedsbench.checks import Node
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process
from seedsbench.solvers.base import StepResult, Unscaled
from seedsbench.solvers.parts import dpm_rules as rules


@dataclass(frozen=True)
class Singlestep(Unscaled):
    """A subclass names its `rule`, to which its `nodes` are given."""

    family: ClassVar[str] = "dpm_solver"
    rule: ClassVar[Callable[..., rules.Taken]]
    nodes: ClassVar[tuple[float, ...]] = ()

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: None, noise: Noise
    ) -> StepResult:
        return StepResult(self.rule(process.predict, x, sigma, sigma_next, *self.nodes)[0])


@dataclass(frozen=True)
class DPMSolver1(Singlestep):
    """DDIM without noise."""

    order: ClassVar[int] = 1
    rule = staticmethod(rules.dpm1)


@dataclass(frozen=True)
class DPMSolver2(Singlestep):
    """r1: the node, as a share of the step in lambda; 1 ends the step there, as Heun does."""

    order: ClassVar[int] = 2
    evaluations: ClassVar[int] = 2
    rule = staticmethod(rules.dpm2)
    r1: Node = 0.5

    @property
    def nodes(self) -> tuple[float, ...]:
        return (self.r1,)


@dataclass(frozen=True)
class DPMpp2S(DPMSolver2):
    """The same with data prediction."""

    rule = staticmethod(rules.dpmpp2)


@dataclass(frozen=True)
class DPMSolver3(DPMSolver2):
    """r1, r2: the nodes, 0 < r1 < r2 <= 1; of order 3 for r2 = 2/3 alone, of order 2 elsewhere."""

    evaluations: ClassVar[int] = 3
    rule = staticmethod(rules.dpm3)
    r1: Node = 1 / 3
    r2: Node = 2 / 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.r1 < self.r2:
            raise ValueError(f"DPMSolver3: r1={self.r1} must be less than r2={self.r2}")

    @property
    def order(self) -> int:
        return 3 if abs(self.r2 - 2 / 3) < 1e-9 else 2

    @property
    def nodes(self) -> tuple[float, ...]:
        return self.r1, self.r2
