"""A scheduler of diffusers on its way through a run: what it asks a denoiser, what it makes of the answer."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seedsbench.denoisers.prediction import raw_output_of
from seedsbench.integrations.schedulers import KNOWN, Coordinates, build_scheduler, default_of, takes
from seedsbench.integrations.torch_randn import InPlaceOfTorch

_LARGEST = 1e15  # stands for infinity: the end of a table without signal, and the start of a flow


@dataclass(frozen=True)
class Driven:
    """A point of a run. The scheduler is never stepped itself, a copy of it is: points can be returned to.

    done: timesteps behind it. calls: network evaluations of each of the run's steps, the final one included.
    index: steps behind it. x: the scheduler's own sample, (B, C, H, W), None until a run starts.
    """

    scheduler: Any
    kind: Coordinates
    calls: tuple[int, ...]
    done: int = 0
    index: int = 0
    x: Tensor | None = None

    @classmethod
    def started(
        cls, name: str, config: Mapping[str, Any], n: int, levels: Tensor | None, device: torch.device
    ) -> "Driven":
        """At the start of n levels: these ones (n,) float64, or, where None, the scheduler's own."""
        kind = KNOWN[name].kind
        if levels is None:
            scheduler = build_scheduler(name, config)
            _set_timesteps(scheduler, n, device)
        else:
            scheduler = _of_levels(name, kind, config, levels, device)
        return cls(scheduler, kind, _calls_of(len(scheduler.timesteps), n))

    @staticmethod
    def most_levels(name: str, config: Mapping[str, Any]) -> int:
        """The most levels the scheduler can choose."""
        default = default_of(name, "num_train_timesteps")
        return int(config.get("num_train_timesteps", default or 1000)) - 1

    @property
    def init_noise_sigma(self) -> float:
        """What standard normal latents are multiplied with to be its first sample."""
        return float(getattr(self.scheduler, "init_noise_sigma", 1.0))

    @property
    def level(self) -> Tensor:
        """The noise level, () float64, of the timestep that is next."""
        t = self.scheduler.timesteps[self.done].double()
        config = self.scheduler.config
        if self.kind == "edm" or config.get("timestep_type") == "continuous":
            sigma = (4 * t).exp()
        elif self.kind == "flow":
            share = t / config.num_train_timesteps
            sigma = share / (1 - share)
        elif self.kind == "ipndm":
            sigma = (t * math.pi / 2).tan().abs()
        else:
            sigma = _from_table(self.scheduler.alphas_cumprod, t)
        return sigma.clamp(max=_LARGEST)

    def scale(self, sigma: Tensor) -> Tensor:
        """The factor a of its sample, a (data + sigma noise), where the noise level is sigma."""
        if self.kind in ("vp", "ipndm"):
            return (1 + sigma**2).rsqrt()
        return 1 / (1 + sigma) if self.kind == "flow" else torch.ones_like(sigma)

    def question(self) -> tuple[Tensor, Tensor]:
        """(x, sigma), x = data + sigma noise: where it wants the data estimated."""
        level = self.level
        return self._input() / self._input_scale(level), level

    def advanced(self, denoised: Tensor, options: Mapping[str, Any], noise: InPlaceOfTorch) -> "Driven":
        """After one call of its step with the answer to the question. options: of that step."""
        scheduler = copy.copy(self.scheduler)
        for name, value in vars(scheduler).items():
            if isinstance(value, list):  # of past outputs, which it overwrites
                setattr(scheduler, name, list(value))
        after = replace(self, scheduler=scheduler, done=self.done + 1)
        here = replace(self, scheduler=scheduler)
        output, t = here._output(denoised), scheduler.timesteps[self.done]
        with noise:
            x = scheduler.step(output, t, self.x, return_dict=False, **options)[0]
        return replace(after, x=x.to(denoised.dtype))

    def _input(self) -> Tensor:
        """What the network is given."""
        assert self.x is not None
        if not hasattr(self.scheduler, "scale_model_input"):
            return self.x
        return self.scheduler.scale_model_input(self.x, self.scheduler.timesteps[self.done])

    def _input_scale(self, level: Tensor) -> Tensor:
        if self.kind == "edm":
            return (level**2 + self.scheduler.config.sigma_data**2).rsqrt()
        return 1 / (1 + level) if self.kind == "flow" else (1 + level**2).rsqrt()

    def _output(self, denoised: Tensor) -> Tensor:
        """What its network would have put out."""
        given, level, config = self._input(), self.level, self.scheduler.config
        if self.kind == "flow":
            return (given - denoised) * (1 + 1 / level)
        if self.kind == "edm":
            spread, data = level**2 + config.sigma_data**2, config.sigma_data
            sign = -1 if config.prediction_type == "v_prediction" else 1
            skipped = given * spread.sqrt() * (data**2 / spread)
            return sign * (denoised - skipped) / (level * data / spread.sqrt())
        prediction = "v_prediction" if self.kind == "ipndm" else config.prediction_type
        return raw_output_of(prediction, denoised, given, level)


def _set_timesteps(scheduler: Any, n: int, device: torch.device) -> None:
    try:
        scheduler.set_timesteps(n, device=device)
    except (ValueError, IndexError, RuntimeError, AssertionError, TypeError) as error:
        name = type(scheduler).__name__
        raise ValueError(f"{name} cannot take {n} steps: {' '.join(str(error).split())}") from error


def _of_levels(
    name: str, kind: Coordinates, config: Mapping[str, Any], levels: Tensor, device: torch.device
) -> Any:
    """A scheduler whose timesteps are these levels. It computes in float32 where it always does."""
    n, levels = len(levels), levels.cpu()
    if kind in ("vp", "ve"):
        table = levels
        if takes(name, "timestep_spacing"):
            config = {**config, "timestep_spacing": "trailing"}
        else:  # spaced from the last entry to the one after the first
            table = torch.cat([levels, levels[-1:] / 2])
        scheduler = build_scheduler(name, {**config, "num_train_timesteps": len(table)})
        scheduler.alphas_cumprod = (1 / (1 + table**2)).flip(0)
        if float(getattr(scheduler, "final_alpha_cumprod", 1.0)) != 1:
            scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
        _set_timesteps(scheduler, n, device)
        return scheduler
    scheduler = build_scheduler(name, config)
    _set_timesteps(scheduler, n, device)
    shares = levels if kind == "edm" else levels / (1 + levels)
    scheduler.sigmas = torch.cat([shares, torch.zeros(1, dtype=shares.dtype)])
    times = 0.25 * levels.log() if kind == "edm" else shares * scheduler.config.num_train_timesteps
    scheduler.timesteps = times.to(device)
    return scheduler


def _calls_of(timesteps: int, n: int) -> tuple[int, ...]:
    """Evaluations of each of n steps that make so many together; the last step, to zero, has one.

    Methods of two stages ask twice in all others; PNDM four times in each of three, or twice in the first.
    """
    extra = timesteps - n
    if extra == n - 1:
        return (*[2] * (n - 1), 1)
    first = (4, 4, 4) if extra == 9 and n > 3 else (1 + extra,)
    return (*first, *[1] * (n - len(first)))


def _from_table(alphas_cumprod: Tensor, t: Tensor) -> Tensor:
    """The level at a timestep of a table, log sigma linear between its entries; infinite without signal."""
    table = alphas_cumprod.double().cpu()
    log_sigmas = 0.5 * ((1 - table) / table).log()
    place = t.cpu().clamp(0, len(table) - 1)
    low = place.floor().long()
    share = place - low
    if float(share) == 0:
        return log_sigmas[low].exp()
    return torch.lerp(log_sigmas[low], log_sigmas[low + 1], share).exp()
