"""What a solver from outside the package is written with."""

from seedsbench.solvers.base import OneStage, Solver, StepResult, Unscaled
from seedsbench.solvers.parts.adaptive import AdaptiveSolver

__all__ = ["AdaptiveSolver", "OneStage", "Solver", "StepResult", "Unscaled"]
