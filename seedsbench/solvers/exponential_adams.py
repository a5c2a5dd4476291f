"""What exponential multistep solvers share: their history, and the weights of exponential Adams methods.

In lambda = -log sigma both forms of the diffusion ODE are d(x/A)/dlambda = (g/A) N with an exact linear
part A (Hochbruck and Ostermann 2010, section 2.6). N is replaced by the polynomial through its values
N_j at lambda_s + r_j h, r_j in steps (0 the present, negative the past, 1 the end of the step), so that

    x_t = (A_t/A_s) x_s + gain h sum_j w_j N_j,      sum_j w_j r_j^m = m! phi_(m+1)(z) for each power m.

Data prediction: N = D, A = sigma, gain 1, z = -h. Noise prediction: N = (x - D)/sigma, A = 1,
gain -sigma_t, z = h (Zhao et al. 2023, eqs. 3 and 9). Every decreasing grid is fine.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, expand
from seedsbench.solvers.base import StepResult
from seedsbench.solvers.tableau import phi
from seedsbench.solvers.unscaled import Unscaled

Prediction = Literal["data", "noise"]
TwoPoint = Literal["exact", "bh1", "bh2"]


@dataclass(frozen=True)
class History:
    """State of a multistep run.

    remaining, taken: steps still to take, steps taken. outputs: past N, newest first; steps: the h of
    the step that began at each. extra: what else the solver carries from one step to the next.
    """

    remaining: int
    taken: int = 0
    outputs: tuple[Tensor, ...] = ()
    steps: tuple[Tensor, ...] = ()
    extra: Any = None

    def order(self, wanted: int, lower_order_final: bool, denoise_to_zero: bool) -> int:
        """The order of the step about to be taken, its own evaluation already in `outputs`.

        Warm-up: no more than there are outputs. With lower_order_final the orders fall to 1 at the last
        step of the path, which is the denoising one to zero if there is one.
        """
        left = self.remaining + denoise_to_zero if lower_order_final else wanted
        return max(1, min(wanted, len(self.outputs), left))

    def seen(self, output: Tensor, h: Tensor, keep: int) -> "History":
        """With a new evaluation, from which a step of h begins; only the `keep` newest are held."""
        return replace(self, outputs=(output, *self.outputs)[:keep], steps=(h, *self.steps)[:keep])

    def stepped(self, extra: Any = None) -> "History":
        """After a step."""
        return replace(self, remaining=self.remaining - 1, taken=self.taken + 1, extra=extra)

    def nodes(self) -> list[Tensor]:
        """Where the outputs lie, in units of the newest step from its start: 0 and negative numbers."""
        places = [torch.zeros_like(self.steps[0])]
        for h in self.steps[1:]:
            places.append(places[-1] - h / self.steps[0])
        return places


def output_of(prediction: Prediction, x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """N: what the method interpolates; x unscaled."""
    return denoised if prediction == "data" else (x - denoised) / expand(sigma, x)


def adams_weights(z: Tensor, nodes: Sequence[Tensor], two_point: TwoPoint = "exact") -> list[Tensor]:
    """w_j for values at `nodes` (in steps from the start of the step). z: 0-dim; each node 0-dim.

    two_point: with two nodes the slope's weight phi_2(z) may be replaced by its limit 1/2 ("bh1") or by
    phi_1(z)/2 ("bh2"), which keeps the order (Zhao et al. 2023, section 3.3: B(h) = h and exp(h) - 1).
    """
    if len(nodes) == 1:
        return [phi(1, z)]
    if len(nodes) == 2:
        phi1 = phi(1, z)
        slope = {"exact": lambda: phi(2, z), "bh1": lambda: torch.full_like(z, 0.5), "bh2": lambda: phi1 / 2}
        second = (slope[two_point]() - nodes[0] * phi1) / (nodes[1] - nodes[0])
        return [phi1 - second, second]
    factorial, moments = 1.0, []
    for m in range(len(nodes)):
        factorial *= max(m, 1)
        moments.append(factorial * phi(m + 1, z))
    powers = torch.stack(list(nodes)) ** torch.arange(len(nodes), dtype=torch.float64)[:, None]
    return list(torch.linalg.solve(powers, torch.stack(moments)))


def combine(weights: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor:
    """sum_j w_j N_j."""
    total = expand(weights[0], outputs[0]) * outputs[0]
    for weight, output in zip(weights[1:], outputs[1:], strict=True):
        total = total + expand(weight, output) * output
    return total


@dataclass(frozen=True)
class Step:
    """A step of an exponential Adams method before its polynomial is chosen.

    base: (A_t/A_s) x and the noise. gain: factor of the weighted sum, h included. corrector: how many
    values the corrector will interpolate, 0 for none.
    """

    base: Tensor
    gain: Tensor
    z: Tensor
    corrector: int

    def end(self, nodes: Sequence[Tensor], outputs: Sequence[Tensor], two_point: TwoPoint) -> Tensor:
        """x_t with the polynomial through `outputs` at `nodes`."""
        weights = adams_weights(self.z, nodes, two_point)
        return self.base + combine([self.gain * weight for weight in weights], outputs)


@dataclass(frozen=True)
class PredictorCorrector(Unscaled):
    """An exponential Adams predictor whose corrector reuses the next step's evaluation: one a step.

    The step is of the SDE dx = (1 + tau^2)(D - x) dlambda + tau sqrt(2) sigma dW, tau constant over it
    and 0 unless a subclass says otherwise (the ODE). The value at the end of the step is first taken from
    past outputs; once the next step has evaluated there, the step is done again with that output (and the
    same noise). So histories hold outputs at predicted states, and the last state is not corrected.
    """

    family: ClassVar[str] = "multistep"
    prediction: Prediction = "data"
    lower_order_final: bool = True
    denoise_to_zero: bool = True

    @property
    @abstractmethod
    def two_point(self) -> TwoPoint:
        """Weight of the slope where two values are interpolated (see `adams_weights`)."""

    @abstractmethod
    def points(self, state: History) -> tuple[int, int]:
        """How many values predictor and corrector (0: none) of the step to be taken interpolate."""

    def tau(self, sigma: Tensor) -> float:
        """Strength of the noise of the step that begins at sigma."""
        return 0.0

    def init(self, process: Process, x: Tensor, times: Tensor) -> History:
        return History(remaining=len(times) - 1)

    def nfe(self, n_steps: int) -> int:
        return n_steps

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: History, noise: Noise
    ) -> StepResult:
        output = output_of(self.prediction, x, process.predict(x, sigma), sigma)
        last: Step | None = state.extra
        if last is not None and last.corrector > 0:
            nodes = [torch.ones_like(sigma), *state.nodes()][: last.corrector]
            x = last.end(nodes, (output, *state.outputs)[: last.corrector], self.two_point)
        state = state.seen(output, (sigma / sigma_next).log(), keep=4)
        predictor, corrector = self.points(state)
        step = self._linear(x, sigma, sigma_next, corrector, noise)
        x = step.end(state.nodes()[:predictor], state.outputs[:predictor], self.two_point)
        return StepResult(x, state.stepped(step))

    def _linear(self, x: Tensor, sigma: Tensor, sigma_next: Tensor, corrector: int, noise: Noise) -> Step:
        """All of a step but its polynomial. Noise clocks as in solvers/splitting.py, with eta = tau."""
        h, tau = (sigma / sigma_next).log(), self.tau(sigma)
        k = 1 + tau**2
        if self.prediction == "data":
            amplitude, z, gain = sigma_next**k, -k * h, k * h
            base = expand((sigma_next / sigma) ** k, x) * x
            clocks = [s ** (-2 * tau**2) for s in (sigma, sigma_next)]
        else:
            amplitude, z, gain = torch.ones_like(h), h, -k * h * sigma_next
            base = x
            clocks = [-((tau * s) ** 2) for s in (sigma, sigma_next)]
        if tau > 0:
            base = base + expand(amplitude, x) * noise.increment(*clocks)
        return Step(base, gain, z, corrector)
