"""SA-Solver (Xue et al. 2023, Algorithm 1): stochastic Adams predictor and corrector, one evaluation a step.

The variance-controlled SDE of strength tau, dx = (1 + tau^2)(D - x) dlambda + tau sqrt(2) sigma dW in
unscaled coordinates, has the right marginals for every tau(t). Its drift is interpolated over past
outputs (predictor) and, once the next step has evaluated, over these and the new one (corrector), with
the same noise. Drift order 3, weak order 2. tau is constant over a step and taken where it begins, so the
switch of tau falls on a level of the grid: two grids may solve two SDEs, of the same marginals. Hence the
strong order is 1 for a constant tau and none otherwise.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from seedsbench.checks import Range
from seedsbench.solvers.parts.exponential_adams import History, PredictorCorrector, TwoPoint


@dataclass(frozen=True)
class SASolver(PredictorCorrector):
    """tau is `tau_value` while sigma is in [tau_end, tau_start], 0 elsewhere; (0, inf) makes it constant.

    Defaults are the authors': tau 1 while the time of the VP process is in [0.2, 0.8], orders 3 and 4.
    predictor_order, corrector_order: values interpolated, the new one included; 0 for no corrector.
    lower_order_final, denoise_to_zero as in UniPC. slope: where two values are interpolated, the released
    codes replace the slope's weight in data prediction by its limit for small steps ("bh1"), which is
    not the paper's. tau 1, predictor_order 2, no corrector and "bh2" is DPM-Solver++(2M) SDE.
    """

    without_noise: ClassVar[dict[str, Any]] = {"tau_value": 0.0}
    predictor_order: Annotated[int, Range(1, 3)] = 3
    corrector_order: Annotated[int, Range(0, 4)] = 4
    tau_value: Annotated[float, Range(0, 2)] = 1.0
    tau_start: Annotated[float, Range(0, infinite=True)] = 25.1
    tau_end: Annotated[float, Range(0, 1e8)] = 0.72
    slope: TwoPoint = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau_start < self.tau_end:
            raise ValueError(
                f"SASolver: tau_start={self.tau_start} must lie in [{self.tau_end:g}, inf], from tau_end"
            )

    @property
    def order(self) -> int:
        # The warm-up's first step has a local error of order 3 if it is corrected: 4 cannot come out.
        p, c = self.predictor_order, self.corrector_order
        return min(c, p + 1, 3) if c > 0 else p

    @property
    def stochastic(self) -> bool:
        return self.tau_value > 0

    @property
    def weak_order(self) -> int | None:
        return min(self.order, 2) if self.stochastic else None

    @property
    def two_point(self) -> TwoPoint:
        return self.slope

    def tau(self, sigma: Tensor) -> float:
        return self.tau_value if self.tau_end <= float(sigma) <= self.tau_start else 0.0

    def points(self, state: History) -> tuple[int, int]:
        left = state.remaining + self.denoise_to_zero if self.lower_order_final else 4
        seen = len(state.outputs)
        return min(self.predictor_order, seen, left), min(self.corrector_order, seen + 1, left + 1)
