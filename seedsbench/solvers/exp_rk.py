"""Exponential Runge-Kutta with a tableau from a file (`tableaus/`): the published schemes by name.

Among them RES (Zhang et al. 2023, single step), ETD2RK to ETD4RK (Cox and Matthews 2002), Krogstad's,
Strehmel and Weiner's, Lawson's, and those of RES4LYF that depart from their sources, as they stand there
(`res4lyf_*`; results/certificate-field.md says at which coefficient). As many evaluations a step as stages.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from seedsbench.checks import Range, Share
from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process
from seedsbench.solvers.base import Solver, StepResult
from seedsbench.solvers.parts.exponential import ExponentialRungeKutta
from seedsbench.solvers.parts.tableau import ExponentialTableau
from seedsbench.solvers.parts.tableau_files import tableau_file


@dataclass(frozen=True)
class _Engine(ExponentialRungeKutta):
    name: str = "res_2s"

    @cached_property
    def tableau(self) -> ExponentialTableau:
        return tableau_file(self.name).coefficients


@dataclass(frozen=True)
class ExpRK(Solver):
    """tableau: the name of a file in `seedsbench/solvers/tableaus/`; the others as for SEEDS (seeds.py).

    eta = 0 is the probability-flow ODE; above it the same scheme is run on the reverse SDE of that strength,
    with stage noises of one Brownian path.
    """

    family: ClassVar[str] = "etd"
    tableau: str = "res_2s"
    prediction: Literal["data", "noise", "edm"] = "data"
    eta: Share = 0.0
    sigma_data: Annotated[float, Range(1e-3, 1e3)] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self._engine  # building it checks the name

    @cached_property
    def _engine(self) -> _Engine:
        return _Engine(self.prediction, self.eta, self.sigma_data, self.tableau)

    @property
    def order(self) -> int:
        return self._engine.order

    @property
    def stochastic(self) -> bool:
        return self._engine.stochastic

    @property
    def weak_order(self) -> int | None:
        return self._engine.weak_order

    def nfe(self, n_steps: int) -> int:
        return self._engine.nfe(n_steps)

    def step(
        self, process: Process, x: Tensor, t: Tensor, t_next: Tensor, state: None, noise: Noise
    ) -> StepResult:
        return self._engine.step(process, x, t, t_next, state, noise)
