"""What exponential multistep solvers share: their history, and the weights of exponential Adams methods.

In lambda = -log sigma both forms of the diffusion ODE are d(x/A)/dlambda = (g/A) N with an exact linear part
A. N is replaced by the polynomial through its values N_j at lambda_s + r_j h (r_j: 0 the present, negative
the past, 1 the end of the step), so that

    x_t = (A_t/A_s) x_s + gain h sum_j w_j N_j,      sum_j w_j r_j^m = m! phi_(m+1)(z) for each power m.

Data prediction: N = D, A = sigma, gain 1, z = -h. Noise prediction: N = (x - D)/sigma, A = 1, gain -sigma_t,
z = h. These are exponential Adams methods (Hochbruck and Ostermann 2010), for any decreasing grid.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from seedsbench.diffusion.noise import Noise
from seedsbench.diffusion.process import Process, add_weighted, expand
from seedsbench.solvers.base import StepResult, Unscaled
from seedsbench.solvers.parts.splitting import SPLITTINGS
from seedsbench.solvers.parts.tableau import phi

DataOrNoise = Literal["data", "noise"]
TwoPoint = Literal["exact", "bh1", "bh2"]
FACTORIALS = torch.tensor([1.0, 1.0, 2.0, 6.0], dtype=torch.float64)


def phi_table(z: Tensor) -> Tensor:
    """phi_1 to phi_4 at each z: (n,) to (n, 4). One call a run, not one a step: it is slow."""
    return torch.stack([phi(k, z) for k in range(1, 5)], dim=1)


def adams_weights(phis: Tensor, nodes: Sequence[Tensor], two_point: TwoPoint) -> list[Tensor]:
    """w_j for values at `nodes` (in steps from the start of the step). phis: (4,), each node 0-dim.

    two_point: with two nodes the slope's weight phi_2(z) may be replaced by its limit 1/2 ("bh1") or by
    phi_1(z)/2 ("bh2"), which keeps the order (Zhao et al. 2023: B(h) = h and exp(h) - 1).
    """
    n = len(nodes)
    if n == 1:
        return [phis[0]]
    if n == 2:
        slope = {"exact": phis[1], "bh1": 0.5, "bh2": phis[0] / 2}[two_point]
        second = (slope - nodes[0] * phis[0]) / (nodes[1] - nodes[0])
        return [phis[0] - second, second]
    powers = torch.stack(list(nodes)) ** torch.arange(n)[:, None]
    return list(torch.linalg.solve(powers, phis[:n] * FACTORIALS[:n]))


@dataclass(frozen=True)
class Step:
    """A step of an exponential Adams method before its polynomial is chosen.

    base: (A_t/A_s) x and the noise. gain: factor of the weighted sum, h included. phis: as in
    `adams_weights`. corrector: how many values the corrector will interpolate, 0 for none.
    """

    base: Tensor
    gain: Tensor
    phis: Tensor
    corrector: int

    def end(self, nodes: Sequence[Tensor], outputs: Sequence[Tensor], two_point: TwoPoint) -> Tensor:
        """x_t with the polynomial through `outputs` at `nodes`."""
        weights = adams_weights(self.phis, nodes, two_point)
        return add_weighted(self.base, [self.gain * weight for weight in weights], outputs)


@dataclass(frozen=True)
class History:
    """State of a multistep run.

    phis: (n_steps, 4), phi_1 to phi_4 at the z of each step. taken: steps taken. outputs: past N, newest
    first; steps: the h of the step that began at each. last: the step taken last, for its corrector.
    """

    phis: Tensor
    taken: int = 0
    outputs: tuple[Tensor, ...] = ()
    steps: tuple[Tensor, ...] = ()
    last: Step | None = None

    @property
    def remaining(self) -> int:
        """Steps still to take."""
        return len(self.phis) - self.taken

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

    def nodes(self) -> list[Tensor]:
        """Where the outputs lie, in units of the newest step from its start: 0 and negative numbers."""
        places = [torch.zeros_like(self.steps[0])]
        for h in self.steps[1:]:
            places.append(places[-1] - h / self.steps[0])
        return places


@dataclass(frozen=True)
class PredictorCorrector(Unscaled):
    """An exponential Adams predictor whose corrector reuses the next step's evaluation: one a step.

    The step is of the SDE dx = (1 + tau^2)(D - x) dlambda + tau sqrt(2) sigma dW, tau constant over it
    and 0 unless a subclass says otherwise (the ODE). The value at the end of the step is first taken from
    past outputs; once the next step has evaluated there, the step is done again with that output (and the
    same noise). So histories hold outputs at predicted states, and the last state is not corrected.
    """

    family: ClassVar[str] = "multistep"
    prediction: DataOrNoise = "data"
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
        sigmas = process.schedule.sigma(times)
        h = (sigmas[:-1] / sigmas[1:]).log()
        decay = [-1 - self.tau(sigma) ** 2 if self.prediction == "data" else 1.0 for sigma in sigmas[:-1]]
        return History(phi_table(h * torch.tensor(decay, dtype=h.dtype)))

    def advance(
        self, process: Process, x: Tensor, sigma: Tensor, sigma_next: Tensor, state: History, noise: Noise
    ) -> StepResult:
        output = SPLITTINGS[self.prediction](0.0).nonlinear(x, process.predict(x, sigma), sigma)
        last = state.last
        if last is not None and last.corrector > 0:
            nodes = [torch.ones_like(sigma), *state.nodes()][: last.corrector]
            x = last.end(nodes, (output, *state.outputs)[: last.corrector], self.two_point)
        h = (sigma / sigma_next).log()
        state = state.seen(output, h, keep=4)
        predictor, corrector = self.points(state)
        base, gain = self._linear(x, sigma, sigma_next, noise)
        step = Step(base, gain * h, state.phis[state.taken], corrector)
        x = step.end(state.nodes()[:predictor], state.outputs[:predictor], self.two_point)
        return StepResult(x, replace(state, taken=state.taken + 1, last=step))

    def _linear(
        self, x: Tensor, sigma: Tensor, sigma_next: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor | float]:
        """(A_t/A_s) x with the noise, and the gain."""
        splitting = SPLITTINGS[self.prediction](self.tau(sigma))
        base, gain = x, -splitting.k * sigma_next
        if self.prediction == "data":
            base, gain = expand((sigma_next / sigma) ** splitting.k, x) * x, splitting.k
        if splitting.eta > 0:
            change = noise.increment(splitting.noise_clock(sigma), splitting.noise_clock(sigma_next))
            base = base + expand(splitting.amplitude(sigma_next), x) * change
        return base, gain
