"""How a raw network becomes a denoiser: the preconditionings of Karras et al. 2022, Table 1, and flow's.

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)                                    (their Eq. 7)

Each preconditioner is one column of that table, or could be: the four coefficients and the noise levels that
the network knows. Coefficients are evaluated in the dtype of sigma; solvers pass float64.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn

from seedsbench.denoisers.base import Denoiser, check_labels, move
from seedsbench.diffusion.grid import iddpm_table
from seedsbench.diffusion.process import expand
from seedsbench.diffusion.schedule import VP, Discrete
from seedsbench.files.model_files import Latents


class Preconditioner(ABC):
    """A column of Table 1. sigma is () or (B,), in units of the data (which lives in [-1, 1])."""

    @property
    @abstractmethod
    def sigma_min(self) -> float:
        """The smallest noise level the network is trained for."""

    @property
    @abstractmethod
    def sigma_max(self) -> float:
        """The largest one."""

    @property
    def trained_at(self) -> Discrete | None:
        """The table of noise levels of training; None if it was continuous."""
        return None

    @abstractmethod
    def c_skip(self, sigma: Tensor) -> Tensor:
        """Factor of the noisy image in the result."""

    @abstractmethod
    def c_out(self, sigma: Tensor) -> Tensor:
        """Factor of the network's output in the result."""

    @abstractmethod
    def c_in(self, sigma: Tensor) -> Tensor:
        """Factor that brings the noisy image to the network's input scale."""

    @abstractmethod
    def c_noise(self, sigma: Tensor) -> Tensor:
        """The number by which the network is told its noise level."""

    @abstractmethod
    def sigma_of_noise(self, c_noise: Tensor) -> Tensor:
        """Inverse of `c_noise`."""

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest noise level the network knows; the identity where all levels are known."""
        return sigma


class NoisePreconditioner(Preconditioner):
    """What VP, VE and iDDPM share: the network predicts the noise (VE: minus the noise)."""

    def c_skip(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)

    def c_out(self, sigma: Tensor) -> Tensor:
        return -sigma

    def c_in(self, sigma: Tensor) -> Tensor:
        return 1 / (sigma**2 + 1).sqrt()


@dataclass(frozen=True)
class VPPreconditioner(NoisePreconditioner):
    """Variance preserving (Song et al. 2021, continuous): sigma(t)^2 = exp(beta_d t^2/2 + beta_min t) - 1.

    beta_d, beta_min: slope and offset of beta(t). M: number of steps of the original discretisation,
    which only sets the scale of c_noise. epsilon_t: smallest time seen in training.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    M: int = 1000
    epsilon_t: float = 1e-5

    @property
    def sigma_min(self) -> float:
        return self._end(self.epsilon_t)

    @property
    def sigma_max(self) -> float:
        return self._end(1.0)

    def _end(self, t: float) -> float:
        # Deliberately exp(.) - 1 in float32: published VP checkpoints computed their range this way and
        # grids start and end on it. (The exact value at t = 1e-5 is 1.0488e-3, not 2^-10.)
        exponent = torch.tensor(0.5 * self.beta_d * t**2 + self.beta_min * t, dtype=torch.float32)
        return float((exponent.exp() - 1).sqrt())

    @cached_property
    def _process(self) -> VP:
        return VP(beta_d=self.beta_d, beta_min=self.beta_min)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level at time t in (0, 1]."""
        return self._process.sigma(t)

    def sigma_inv(self, sigma: Tensor) -> Tensor:
        """Time at which the noise level is sigma."""
        return self._process.sigma_inv(sigma)

    def c_noise(self, sigma: Tensor) -> Tensor:
        return (self.M - 1) * self.sigma_inv(sigma)

    def sigma_of_noise(self, c_noise: Tensor) -> Tensor:
        return self.sigma(c_noise / (self.M - 1))


@dataclass(frozen=True)
class VEPreconditioner(NoisePreconditioner):
    """Variance exploding (Song et al. 2021): raw input, unit-size score as output."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def c_out(self, sigma: Tensor) -> Tensor:
        return sigma

    def c_in(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)

    def c_noise(self, sigma: Tensor) -> Tensor:
        return (0.5 * sigma).log()

    def sigma_of_noise(self, c_noise: Tensor) -> Tensor:
        return 2 * c_noise.exp()


@lru_cache(maxsize=16)
def _levels(c_1: float, c_2: float, m: int, device: torch.device) -> Tensor:
    # float32 throughout: the recursion amplifies rounding (5e-4 relative at the small end), and
    # published checkpoints come with the float32 table.
    return iddpm_table(c_1, c_2, m, dtype=torch.float32).to(device)


def _constant_levels(c_1: float, c_2: float, m: int, device: torch.device) -> Tensor:
    return _levels(c_1, c_2, m, device)


# Or torch.compile would follow the recursion, a thousand steps deep. All that torch.compiler's own
# assume_constant_result does, but for importing the whole compiler, which takes as long as torch itself.
_constant_levels._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


@dataclass(frozen=True)
class IDDPMPreconditioner(NoisePreconditioner):
    """Improved DDPM (Nichol and Dhariwal 2021): noise prediction at M discrete levels, cosine schedule.

    C_1 caps the growth of a step, C_2 is the schedule's offset s, M the number of levels.
    """

    C_1: float = 0.001
    C_2: float = 0.008
    M: int = 1000

    @property
    def sigma_min(self) -> float:
        return float(self.table("cpu")[self.M - 1])

    @property
    def sigma_max(self) -> float:
        return float(self.table("cpu")[0])

    def table(self, device: torch.device | str) -> Tensor:
        """All levels, decreasing, (M + 1,) float32; the last one is 0."""
        return _constant_levels(self.C_1, self.C_2, self.M, torch.device(device))

    @cached_property
    def trained_at(self) -> Discrete:
        return Discrete.at_levels(self.table("cpu")[:-1].flip(0).double())

    def index(self, sigma: Tensor) -> Tensor:
        """Index into `table` of the nearest level, int64, shaped like sigma."""
        # argmin (not bisection) so that ties and float32 rounding fall as in the released networks.
        distance = (sigma.to(torch.float32)[..., None] - self.table(sigma.device)).abs()
        return distance.argmin(dim=-1)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self.table(sigma.device)[self.index(sigma)].to(sigma.dtype)

    def c_noise(self, sigma: Tensor) -> Tensor:
        return (self.M - 1 - self.index(sigma)).to(sigma.dtype)

    def sigma_of_noise(self, c_noise: Tensor) -> Tensor:
        index = (self.M - 1 - c_noise.round().long()).clamp(0, self.M)
        # take, not []: a single index would be read back from the device
        return self.table(c_noise.device).take(index).to(c_noise.dtype)


@dataclass(frozen=True)
class EDMPreconditioner(Preconditioner):
    """Unit-variance input, target and effective weight at every level (Karras et al. 2022, App. B.6).

    sigma_data: standard deviation of the data. P_mean, P_std: training draws ln sigma ~ N(P_mean, P_std^2).
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    P_mean: float = -1.2
    P_std: float = 1.2

    def c_skip(self, sigma: Tensor) -> Tensor:
        return self.sigma_data**2 / (sigma**2 + self.sigma_data**2)

    def c_out(self, sigma: Tensor) -> Tensor:
        return sigma * self.sigma_data / (sigma**2 + self.sigma_data**2).sqrt()

    def c_in(self, sigma: Tensor) -> Tensor:
        return 1 / (sigma**2 + self.sigma_data**2).sqrt()

    def c_noise(self, sigma: Tensor) -> Tensor:
        return sigma.log() / 4

    def sigma_of_noise(self, c_noise: Tensor) -> Tensor:
        return (4 * c_noise).exp()


@dataclass(frozen=True)
class FlowPreconditioner(Preconditioner):
    """Flow matching (Lipman et al. 2023): a velocity network on the straight path between data and noise.

    The network sees x_t = (1 - t) data + t noise, t = sigma/(1 + sigma), and answers v = noise - data; so
    D = x_t - t v. data_first: it answers data - noise and is told 1 - t, the time from noise to data, as
    torchcfm's and SiT's are. time_scale: factor of the time it is told.
    """

    data_first: bool = False
    time_scale: float = 1000.0
    sigma_min: float = 0.0
    sigma_max: float = math.inf

    def time(self, sigma: Tensor) -> Tensor:
        """t, 0 at the data and 1 where there is noise only."""
        return sigma / (1 + sigma)

    def c_skip(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def c_out(self, sigma: Tensor) -> Tensor:
        return self.time(sigma) if self.data_first else -self.time(sigma)

    def c_in(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def c_noise(self, sigma: Tensor) -> Tensor:
        return self.time_scale * (self.c_in(sigma) if self.data_first else self.time(sigma))

    def sigma_of_noise(self, c_noise: Tensor) -> Tensor:
        told = c_noise / self.time_scale
        return 1 / told - 1 if self.data_first else told / (1 - told)


PRECONDITIONERS: dict[str, Preconditioner] = {
    "vp": VPPreconditioner(),
    "ve": VEPreconditioner(),
    "iddpm": IDDPMPreconditioner(),
    "edm": EDMPreconditioner(),
    "flow": FlowPreconditioner(),
}


class Preconditioned(Denoiser):
    """A network F(x_in, c_noise, labels) seen through a preconditioner, together a denoiser (Eq. 7).

    The network is handed its weights' floating-point type; everything around it is computed in that of x.
    Networks that also predict a variance (twice the channels) are cut to their first half. Gradients are the
    caller's affair. latents: what its samples are where they are no images, and its file says so.
    """

    def __init__(
        self,
        network: nn.Module,
        preconditioner: Preconditioner,
        *,
        img_channels: int,
        img_resolution: int,
        label_dim: int = 0,
        latents: Latents | None = None,
    ) -> None:
        self.network, self.preconditioner, self.latents = network, preconditioner, latents
        self.img_channels, self.img_resolution, self.label_dim = img_channels, img_resolution, label_dim
        self.sigma_min, self.sigma_max = preconditioner.sigma_min, preconditioner.sigma_max
        self.table = preconditioner.trained_at
        if isinstance(preconditioner, EDMPreconditioner):
            self.sigma_data = preconditioner.sigma_data
        if isinstance(preconditioner, FlowPreconditioner):
            self.prediction_type = "flow_prediction"
        self._dtype: torch.dtype | None = None

    def to(self, device: torch.device | str) -> "Preconditioned":
        """Move the network's weights, in place, as `move` does; returns self."""
        move(self.network, device)
        return self

    def with_network(self, change: Callable[[nn.Module], nn.Module]) -> "Preconditioned":
        changed = copy.copy(self)
        changed.network, changed._dtype = change(self.network), self._network_dtype()
        return changed

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return self.preconditioner.round_sigma(sigma)

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.label_dim, x.shape[0])
        sigma = sigma.to(x.dtype)
        output = self.output(x, sigma, labels).to(x.dtype)
        c_skip, c_out = self.preconditioner.c_skip(sigma), self.preconditioner.c_out(sigma)
        return expand(c_skip, x) * x + expand(c_out, x) * output

    def output(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """F(c_in x, c_noise, labels), (B, C, H, W) in the network's dtype."""
        dtype = self._network_dtype()
        x_in = (expand(self.preconditioner.c_in(sigma), x) * x).to(dtype)
        # Noise levels that all samples share are numbers of the host; no need to wait until a GPU has them.
        c_noise = self.preconditioner.c_noise(sigma).to(x.device, dtype, non_blocking=x.is_cuda)
        labels = None if labels is None else labels.to(dtype)
        return self.network(x_in, c_noise, labels)[:, : self.img_channels]

    def _network_dtype(self) -> torch.dtype:
        return self._dtype or next(self.network.parameters()).dtype
