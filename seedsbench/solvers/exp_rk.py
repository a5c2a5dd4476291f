"""Exponential Runge-Kutta with a tableau from a file (`tableaus/`): the published schemes by name.

Among them RES (Zhang et al. 2023, single step), ETD2RK to ETD4RK (Cox and Matthews 2002), Krogstad's,
Strehmel and Weiner's, Lawson's, and those of RES4LYF that depart from their sources, as they stand there
(`res4lyf_*`; results/certificate-field.md says at which coefficient). As many evaluations a step as stages.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from seedsbench.checks import Share
from seedsbench.solvers.parts.exponential import ExponentialRungeKutta
from seedsbench.solvers.parts.tableau import ExponentialTableau
from seedsbench.solvers.parts.tableau_files import tableau_file


@dataclass(frozen=True)
class ExpRK(ExponentialRungeKutta):
    """tableau: the name of a file in `seedsbench/solvers/tableaus/`; the others as for SEEDS (seeds.py).

    eta = 0 is the probability-flow ODE; above it the same scheme is run on the reverse SDE of that strength,
    with stage noises of one Brownian path.
    """

    family: ClassVar[str] = "etd"
    eta: Share = 0.0
    tableau: str = "res_2s"

    @cached_property
    def coefficients(self) -> ExponentialTableau:
        return tableau_file(self.tableau).coefficients
