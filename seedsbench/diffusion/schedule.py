"""Noise schedules sigma(t) and signal scales s(t): which differential equation is integrated.

The state of a sampler is x = s(t) (data + sigma(t) noise) (Karras et al. 2022, eq. 4). A schedule
says nothing about where the sampler stops on the way (that is a grid) nor about how the network was
trained (that ends in the denoiser).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from seedsbench.checks import Level, Range, check_fields, filled

Scaling = Literal["none", "vp", "subvp", "flow"]
BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "const", "jsd"]
EarliestTime = Annotated[float, Range(1e-6, 0.5)]
Beta = Annotated[float, Range(1e-10, 1, open_high=True)]  # below, 1 - beta loses it

# Values of alphas_cumprod. Below this a float32 state of unit variance holds nothing of the data.
LEAST_SIGNAL = 2.0**-48
# Stands for 0 (sigma 4096). The signal left over changes a state by 2**-12, about what float32 rounds off in
# formulas that subtract states of that size.
STAND_IN = 2.0**-24
LIMIT = 1e-30  # stands for 0 (sigma 1e15) for solvers that are exact there


@dataclass(frozen=True)
class Schedule(ABC):
    """sigma(t), its derivative and inverse, and the signal scale; all take float64 tensors of any shape.

    scaling: "none" keeps s = 1; "vp" keeps the variance of unit-variance data at 1, s = 1/sqrt(1+sigma^2);
    "subvp" has sigma = (1 - s^2)/s, the sub-VP process (Song et al. 2021, eq. 29); "flow" has
    s = 1/(1 + sigma), a straight line from data to noise.
    """

    scaling: Scaling = "none"

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise level (data std units) at time t."""

    @abstractmethod
    def dsigma(self, t: Tensor) -> Tensor:
        """d sigma / dt."""

    @abstractmethod
    def sigma_inv(self, sigma: Tensor) -> Tensor:
        """The time t at which sigma(t) is `sigma`."""

    def scale_at(self, sigma: Tensor) -> Tensor:
        """Signal scale s where the noise level is `sigma`."""
        if self.scaling == "subvp":
            return 2 / (sigma + (sigma**2 + 4).sqrt())
        if self.scaling == "flow":
            return 1 / (1 + sigma)
        return (1 + sigma**2).rsqrt() if self.scaling == "vp" else torch.ones_like(sigma)

    def scale(self, t: Tensor) -> Tensor:
        """Signal scale s(t)."""
        return self.scale_at(self.sigma(t))

    def dscale(self, t: Tensor) -> Tensor:
        """ds / dt."""
        if self.scaling == "none":
            return torch.zeros_like(t)
        sigma = self.sigma(t)
        scale = self.scale_at(sigma)
        if self.scaling == "subvp":
            return -self.dsigma(t) * scale**2 / (1 + scale**2)
        if self.scaling == "flow":
            return -self.dsigma(t) * scale**2
        return -sigma * self.dsigma(t) * scale**3

    def through(self, sigma_min: float, sigma_max: float) -> "Schedule":
        """This schedule, fitted to the range it will be used on where it has free constants."""
        return self

    def short_of_limit(self) -> "Schedule":
        """This schedule with a little signal where it has none, for all that is not exact without any."""
        return self

    def of_network(self, table: "Discrete | None") -> "Schedule":
        """This schedule for a network trained at the levels of a table (None: at no table)."""
        return self


@dataclass(frozen=True)
class Linear(Schedule):
    """sigma(t) = t (Karras et al. 2022, section 3)."""

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def dsigma(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        return sigma


@dataclass(frozen=True)
class VE(Schedule):
    """sigma(t) = sqrt(t): the variance-exploding SDE in the time of Karras et al. 2022, Table 1."""

    def sigma(self, t: Tensor) -> Tensor:
        return t.sqrt()

    def dsigma(self, t: Tensor) -> Tensor:
        return 0.5 / t.sqrt()

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        return sigma**2


@dataclass(frozen=True)
class VP(Schedule):
    """sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1) (Song et al. 2021, app. C; EDM Table 1).

    fit_range: choose beta_d and beta_min so that sigma(1) and sigma(epsilon_s) are the ends of the
    sampled range (what EDM's ablation does; on the VP range itself that gives 19.9 and 0.1 back).
    Without it, or for a range that ends too high for a fit, the constants are used as given. Only
    solvers that step in t (euler, heun) can tell the difference; exponential solvers step in sigma.
    """

    scaling: Scaling = "vp"
    beta_d: Annotated[float, Range(0, 1000, open_low=True)] = 19.9
    beta_min: Annotated[float, Range(-100, 100)] = 0.1
    epsilon_s: EarliestTime = 1e-3
    fit_range: bool = True

    def sigma(self, t: Tensor) -> Tensor:
        return torch.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t).sqrt()

    def dsigma(self, t: Tensor) -> Tensor:
        sigma = self.sigma(t)
        return 0.5 * (self.beta_min + self.beta_d * t) * (sigma + 1 / sigma)

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        return self.when(torch.log1p(sigma**2))

    def when(self, integral: Tensor) -> Tensor:
        """The time at which the integral of beta, beta_d t^2 / 2 + beta_min t, has this value."""
        root = (self.beta_min**2 + 2 * self.beta_d * integral).sqrt()
        return (root - self.beta_min) / self.beta_d

    def integral(self, sigma: float) -> float:
        """The integral of beta up to the time of this noise level."""
        return math.log1p(sigma**2)

    def through(self, sigma_min: float, sigma_max: float) -> "VP":
        if not self.fit_range:
            return self
        low, high = self.integral(sigma_min), self.integral(sigma_max)
        beta_d = 2 * (low / self.epsilon_s - high) / (self.epsilon_s - 1)
        if beta_d <= 0:
            return self
        return replace(self, beta_d=beta_d, beta_min=high - 0.5 * beta_d, fit_range=False)


@dataclass(frozen=True)
class SubVP(VP):
    """The sub-VP process of Song et al. 2021 (eq. 29): VP's signal scale, variance (1 - s^2)^2.

    With B the integral of beta, s = exp(-B/2) and sigma = (1 - s^2)/s = 2 sinh(B/2). Constants as VP's.
    """

    scaling: Scaling = "subvp"

    def sigma(self, t: Tensor) -> Tensor:
        return 2 * torch.sinh(0.25 * self.beta_d * t**2 + 0.5 * self.beta_min * t)

    def dsigma(self, t: Tensor) -> Tensor:
        return 0.5 * (self.beta_min + self.beta_d * t) * (self.sigma(t) ** 2 + 4).sqrt()

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        return self.when(2 * torch.asinh(sigma / 2))

    def integral(self, sigma: float) -> float:
        return 2 * math.asinh(sigma / 2)


@dataclass(frozen=True)
class Flow(Schedule):
    """The straight path x = (1 - t) data + t noise of flow matching: sigma(t) = t/(1 - t), s(t) = 1 - t.

    Lipman et al. 2023, Liu et al. 2023; their velocity is dx/dt = noise - data. sigma is infinite at t = 1:
    grids start before it (`grid.FlowUniform.start`).
    """

    scaling: Scaling = "flow"

    def sigma(self, t: Tensor) -> Tensor:
        return t / (1 - t)

    def dsigma(self, t: Tensor) -> Tensor:
        return 1 / (1 - t) ** 2

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma)


@dataclass(frozen=True)
class Geometric(Schedule):
    """sigma(t) = sigma_0 (sigma_1 / sigma_0)^t: the variance-exploding SDE in the time of Song et al. 2021.

    fit_range: sigma_0 and sigma_1 are the ends of the sampled range (t = 0 and 1), as Song et al. choose
    them; without it they are used as given. `VE` is the same process in the time of Karras et al.
    """

    sigma_0: Level = 0.01
    sigma_1: Level = 50.0
    fit_range: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma_0 < self.sigma_1:
            raise ValueError(
                f"Geometric: sigma_0={self.sigma_0}, sigma_1={self.sigma_1}; need 0 < sigma_0 < sigma_1"
            )

    def _rate(self) -> float:
        return math.log(self.sigma_1 / self.sigma_0)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_0 * (self._rate() * t).exp()

    def dsigma(self, t: Tensor) -> Tensor:
        return self._rate() * self.sigma(t)

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        return (sigma / self.sigma_0).log() / self._rate()

    def through(self, sigma_min: float, sigma_max: float) -> "Geometric":
        if not self.fit_range:
            return self
        return replace(self, sigma_0=sigma_min, sigma_1=sigma_max, fit_range=False)


NOT_GIVEN: Any = None
DDPM_TABLE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": (),
    "rescale_betas_zero_snr": False,
}


def make_betas(name: BetaSchedule, n: int, beta_start: float, beta_end: float) -> Tensor:
    """(n,) float64 variances of the forward process, by diffusers' and the DDIM authors' names for them.

    linear; scaled_linear, linear in sqrt(beta); sigmoid, a logistic curve from -6 to 6 between beta_start
    and beta_end; const, beta_end throughout; jsd, 1/n, 1/(n - 1), ... 1, and squaredcos_cap_v2, which
    have neither. The last of jsd leaves no signal.
    """
    if name == "linear":
        return torch.linspace(beta_start, beta_end, n, dtype=torch.float64)
    if name == "scaled_linear":
        return torch.linspace(beta_start**0.5, beta_end**0.5, n, dtype=torch.float64) ** 2
    if name == "sigmoid":
        rise = torch.linspace(-6, 6, n, dtype=torch.float64).sigmoid()
        return beta_start + rise * (beta_end - beta_start)
    if name == "const":
        return torch.full((n,), beta_end, dtype=torch.float64)
    if name == "jsd":
        return 1 / torch.arange(n, 0, -1, dtype=torch.float64)
    edges = torch.arange(n + 1, dtype=torch.float64) / n
    alpha_bar = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


@dataclass(frozen=True)
class Discrete(Schedule):
    """A table of alphas_cumprod, t its (real) index: sqrt((1-a)/a) log-linear between entries.

    Built from betas as DDPM-style models are (Ho et al. 2020; Nichol and Dhariwal 2021 for
    "squaredcos_cap_v2"; the other names: `make_betas`). Beyond the table the end slopes
    go on, so that solver stages never fall off it.

    Where none of the options that describe the table is given, it is the network's own (`of_network`), and
    DDPM's 1,000 linear betas where there is none; where one is, those left out are DDPM's.

    trained_betas: the betas themselves, num_train_timesteps of them, in place of a named schedule. The last
        one may be 1, as in a table that was rescaled already.
    rescale_betas_zero_snr: no signal at the last entry (Lin et al. 2024, Algorithm 1). A network that
        predicts the noise knows nothing of the data there: that needs v or sample prediction.
    terminal_alpha_cumprod: what stands for the 0 at the end of such a table, whose sigma would be infinite.
        None: 1e-30, but only for solvers that are exact there in float32 too (Solver.zero_snr: ddim and ddpm,
        where diffusers has 0). All others, and networks, have the table `short_of_limit`: 2**-24 (sigma
        4096, as in diffusers' Euler-type schedulers), or a quarter of the entry before (twice its sigma)
        where that is less. That changes samples by 2e-4 of the data's size at most; 1e-30 would cost these
        solvers digits, some of them all.
    """

    scaling: Scaling = "vp"
    num_train_timesteps: Annotated[int, Range(2, 10**6)] = NOT_GIVEN
    beta_start: Beta = NOT_GIVEN
    beta_end: Beta = NOT_GIVEN
    beta_schedule: BetaSchedule = NOT_GIVEN
    trained_betas: tuple[Annotated[float, Range(1e-10, 1)], ...] = NOT_GIVEN
    rescale_betas_zero_snr: bool = NOT_GIVEN
    terminal_alpha_cumprod: Annotated[float | None, Range(0, 1e-3, open_low=True)] = None
    given: bool = field(init=False, repr=False, compare=False)
    no_signal: bool = field(default=False, init=False, repr=False, compare=False)  # at the last entry
    log_sigmas: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", filled(self, DDPM_TABLE))
        if not isinstance(self.trained_betas, (list, tuple)):
            raise ValueError(f"trained_betas={self.trained_betas!r} must be a list of numbers in (0, 1)")
        object.__setattr__(self, "trained_betas", tuple(self.trained_betas))
        super().__post_init__()
        alphas_cumprod = torch.cumprod(1 - self._betas(), 0)
        if self.rescale_betas_zero_snr:
            roots = alphas_cumprod.sqrt()  # shifted to end at 0 and stretched to begin where they did
            alphas_cumprod = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
        *_, before, last = alphas_cumprod.tolist()
        if last < min(LEAST_SIGNAL, before / 2):
            object.__setattr__(self, "no_signal", True)
            alphas_cumprod[-1] = self.terminal_alpha_cumprod or min(LIMIT, before / 4)
        log_sigmas = 0.5 * ((1 - alphas_cumprod) / alphas_cumprod).log()
        growing = log_sigmas[:-1] if self.no_signal else log_sigmas  # a stand-in given may lie below
        if not bool(log_sigmas.isfinite().all() and (growing.diff() > 0).all()):
            betas = "trained_betas" if self.trained_betas else "beta_start and beta_end"
            raise ValueError(
                f"Discrete: num_train_timesteps={self.num_train_timesteps} with these {betas}: noise levels "
                "must grow with every timestep and stay numbers: use smaller betas or fewer timesteps"
            )
        object.__setattr__(self, "log_sigmas", log_sigmas)

    def short_of_limit(self) -> "Discrete":
        if not self.no_signal or self.terminal_alpha_cumprod is not None:
            return self
        before = float((-2 * self.log_sigmas[-2]).exp())  # alphas_cumprod, but for what is nothing there
        return replace(self, terminal_alpha_cumprod=min(STAND_IN, before / 4))

    def _betas(self) -> Tensor:
        n = self.num_train_timesteps
        if self.trained_betas and len(self.trained_betas) != n:
            raise ValueError(
                f"trained_betas has {len(self.trained_betas)} entries and num_train_timesteps={n}: "
                f"set num_train_timesteps={len(self.trained_betas)}"
            )
        if self.trained_betas:
            betas = torch.tensor(self.trained_betas, dtype=torch.float64)
        else:
            betas = make_betas(self.beta_schedule, n, self.beta_start, self.beta_end)
        if not bool(((betas > 0) & (betas < 1))[:-1].all() and 0 < betas[-1] <= 1):
            raise ValueError("Discrete: betas must lie in (0, 1), the last one in (0, 1]")
        return betas

    @classmethod
    def at_levels(cls, sigmas: Tensor) -> "Discrete":
        """The table of given noise levels: (n,) float64, increasing."""
        alphas_cumprod = 1 / (1 + sigmas**2)
        ratios = alphas_cumprod / torch.cat([torch.ones_like(sigmas[:1]), alphas_cumprod[:-1]])
        return cls(num_train_timesteps=len(sigmas), trained_betas=tuple((1 - ratios).tolist()))

    def of_network(self, table: "Discrete | None") -> "Discrete":
        if self.given or table is None:
            return self
        return replace(table, scaling=self.scaling, terminal_alpha_cumprod=self.terminal_alpha_cumprod)

    def differs(self, table: "Discrete") -> bool:
        """Whether other levels are in it, to 1e-3; but for the last, which may stand for no signal."""
        mine, others = self.log_sigmas[:-1], table.log_sigmas[:-1]
        return len(mine) != len(others) or not torch.allclose(mine, others, rtol=0, atol=1e-3)

    def _interval(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Index of the entry at or before time t, its log sigma, and how much larger the next one's is."""
        table = self.log_sigmas.to(t.device)
        i = t.floor().long().clamp(0, len(table) - 2)
        return i, table[i], table[i + 1] - table[i]

    def sigma(self, t: Tensor) -> Tensor:
        i, start, slope = self._interval(t)
        return (start + slope * (t - i)).exp()

    def dsigma(self, t: Tensor) -> Tensor:
        return self.sigma(t) * self._interval(t)[2]

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        log_sigma, table = sigma.log(), self.log_sigmas.to(sigma.device)
        i = (torch.searchsorted(table, log_sigma.contiguous()) - 1).clamp(0, len(table) - 2)
        return i + (log_sigma - table[i]) / (table[i + 1] - table[i])
