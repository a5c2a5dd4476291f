"""How a network of score SDE is told noise levels and what it puts out, from the words of its config."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from seedsbench.denoisers.preconditioning.discrete import DiscreteNoisePrediction
from seedsbench.denoisers.preconditioning.karras import Preconditioner, VPPreconditioner
from seedsbench.denoisers.preconditioning.score_sde import ScoreVE, SubVPPreconditioner
from seedsbench.diffusion.schedule import Discrete

SDE = Literal["vpsde", "subvpsde", "vesde"]


@dataclass(frozen=True)
class ScoreProcess:
    """Training options of one configuration of score SDE, under its names.

    centered, scale_by_sigma: None is what was published for the process.
    fractional: see DiscreteNoisePrediction.
    """

    sde: SDE
    continuous: bool
    centered: bool | None = None
    scale_by_sigma: bool | None = None
    beta_min: float = 0.1
    beta_max: float = 20.0
    num_scales: int = 1000
    fractional: bool = False

    def __post_init__(self) -> None:
        if self.sde not in get_args(SDE):
            raise ValueError(f"sde={self.sde!r} must be {', '.join(get_args(SDE))}")
        for name in ("continuous", "centered", "scale_by_sigma", "fractional"):
            value = getattr(self, name)
            if not isinstance(value, bool) and (value is not None or name in ("continuous", "fractional")):
                raise ValueError(f"{name}={value!r} must be true or false")
        if self.sde != "vesde" and (self.centered is False or self.scale_by_sigma):
            raise ValueError(f"centered=false and scale_by_sigma=true are for sde=vesde, not {self.sde}")
        if self.sde == "subvpsde" and not self.continuous:
            raise ValueError("sde=subvpsde is only trained with continuous=true")
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"beta_min={self.beta_min}, beta_max={self.beta_max}: 0 < beta_min < beta_max")

    def preconditioner(self, sigmas: Tensor | None, embedding: str | None) -> Preconditioner:
        """The preconditioner of a network.

        sigmas: its buffer of levels. embedding: fourier, positional or, without any, None.

        Raises ValueError where the network cannot have been trained so.
        """
        wanted = "fourier" if self.sde == "vesde" and self.continuous else "positional"
        if embedding not in (wanted, None):
            raise ValueError(
                f"sde={self.sde}, continuous={self.continuous} has a {wanted} embedding, not {embedding}"
            )
        slope = self.beta_max - self.beta_min
        if self.sde == "subvpsde":
            return SubVPPreconditioner(beta_d=slope, beta_min=self.beta_min)
        if self.sde == "vpsde" and self.continuous:
            return VPPreconditioner(beta_d=slope, beta_min=self.beta_min)
        if self.sde == "vpsde":
            n = self.num_scales
            low, high = self.beta_min / n, self.beta_max / n
            schedule = Discrete(num_train_timesteps=n, beta_start=low, beta_end=high)
            return DiscreteNoisePrediction(schedule, fractional=self.fractional)
        return self._exploding(sigmas)

    def _exploding(self, sigmas: Tensor | None) -> ScoreVE:
        if sigmas is None or sigmas.ndim != 1 or len(sigmas) < 2 or not bool((sigmas > 0).all()):
            raise ValueError("its model lacks the buffer `sigmas` with the noise levels of training")
        levels = sigmas.to(torch.float64)
        unit = 1.0 if self.centered else 2.0
        found = ScoreVE(
            sigma_min=unit * float(levels[-1]),
            sigma_max=unit * float(levels[0]),
            levels=0 if self.continuous else len(levels),
            unit_range=not self.centered,
            divided=self.scale_by_sigma is not False,
            fractional=self.fractional,
        )
        if found.sigma_min >= found.sigma_max:
            raise ValueError(
                f"`sigmas` go from {float(levels[0]):g} to {float(levels[-1]):g}: they must fall"
            )
        if found.levels and not torch.allclose(
            found.table.on(levels.device).flip(0), unit * levels, rtol=1e-5
        ):
            raise ValueError("`sigmas` are no geometric progression")
        return found
