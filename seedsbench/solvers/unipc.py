"""UniPC (Zhao et al. 2023, Algorithms 1 and 2): unified predictor-corrector, one evaluation a step.

UniP-p is an exponential Adams method on p values; UniC-p does the step again with the value at its end as
one more, which raises the order by one, to 3 at most: the first step, with no history, is UniPC-1, whose
local error is of order 3. B(h) is h (bh1) or exp(h) - 1 (bh2): it matters only where two values are
interpolated, for there the authors take a_1 = 1/2 rather than solve for it; with more values B(h) cancels.
The corrector reuses the next step's evaluation, so the last state is predicted only, as in every release.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from seedsbench.checks import Range
from seedsbench.solvers.parts.exponential_adams import History, PredictorCorrector, TwoPoint


@dataclass(frozen=True)
class UniPC(PredictorCorrector):
    """Deterministic. solver_order: the paper's p.

    lower_order_final: p falls to 1 at the last step of the path. denoise_to_zero: whether that step is
    the one to zero (false for final: stop). corrector: false is UniP. disable_corrector: so many first
    steps are left as predicted, for the corrector can do harm at high levels under strong guidance.
    """

    solver_order: Annotated[int, Range(1, 3)] = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    corrector: bool = True
    disable_corrector: Annotated[int, Range(0, 10**6)] = 0

    @property
    def order(self) -> int:
        if not self.corrector:
            return self.solver_order
        # A first step that is not corrected has a local error of order 2.
        return min(self.solver_order + 1, 3) if self.disable_corrector == 0 else 2

    @property
    def two_point(self) -> TwoPoint:
        return self.variant

    def points(self, state: History) -> tuple[int, int]:
        p = state.order(self.solver_order, self.lower_order_final, self.denoise_to_zero)
        return p, p + 1 if self.corrector and state.taken >= self.disable_corrector else 0
