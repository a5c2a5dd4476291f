"""Checkpoints of score SDE (Song et al. 2021), PyTorch: NCSN++, DDPM++ and DDPM, as VP, sub-VP or VE.

A file is what training saved: model (weights under `module.all_modules.N`), ema (averages, a list in the
order of the trainable parameters), optimizer, step; or the weights alone. The architecture is read off keys
and shapes, VE's noise levels off the buffer `sigmas`; the process and its conventions are not in the file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from seedsbench.denoisers.checkpoints.reading import CheckpointError, read_torch
from seedsbench.denoisers.checkpoints.score_sde.ddpm import ddpm_layout
from seedsbench.denoisers.checkpoints.score_sde.modules import PREFIX, module_entries
from seedsbench.denoisers.checkpoints.score_sde.ncsnpp import ncsnpp_layout
from seedsbench.denoisers.checkpoints.states import (
    is_dense,
    is_state,
    network_of,
    understood,
    without_prefix,
)
from seedsbench.denoisers.networks.unet_blocks import check_size
from seedsbench.denoisers.preconditioning.discrete import DiscreteNoisePrediction
from seedsbench.denoisers.preconditioning.karras import Preconditioned, Preconditioner, VPPreconditioner
from seedsbench.denoisers.preconditioning.score_sde import ScoreVE, SubVPPreconditioner
from seedsbench.diffusion.schedule import Discrete

_SDE = Literal["vpsde", "subvpsde", "vesde"]
_SIGMAS = "sigmas"


def load_score_sde(
    path: str | Path,
    *,
    image_size: int,
    sde: _SDE,
    continuous: bool,
    name: Literal["ncsnpp", "ddpm"] = "ncsnpp",
    fir: bool | None = None,
    skip_rescale: bool = True,
    centered: bool | None = None,
    scale_by_sigma: bool | None = None,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    num_scales: int = 1000,
    weights: Literal["ema", "raw"] = "ema",
    fractional_timesteps: bool = False,
) -> Preconditioned:
    """The unconditional denoiser in a checkpoint_N.pth; float32, on the CPU. Hints have the config's names.

    sde, continuous: training.sde and training.continuous. name: model.name (NCSN++ and DDPM++ are both
        "ncsnpp"). fir, skip_rescale: model.fir, needed where the file does not tell it (true for NCSN++,
        false for DDPM++), and model.skip_rescale.
    centered: data.centered; by default as published, true but for VE. scale_by_sigma: likewise, true for VE.
    beta_min, beta_max, num_scales: of VP and sub-VP; VE has its levels in the file.
    weights: "ema" (averages) or "raw"; of weights alone there is one kind.
    fractional_timesteps: see DiscreteNoisePrediction.fractional.

    Raises FileNotFoundError, and ValueError for another kind of file or hints that do not fit it.
    """
    state = _state(read_torch(path), weights, path)
    sigmas = state.pop(_SIGMAS, None)
    with understood(path):
        found = module_entries(state)
        if name == "ddpm":
            layout = ddpm_layout(found)
        else:
            layout = ncsnpp_layout(found, image_size=image_size, fir=fir, skip_rescale=skip_rescale)
    network = network_of(layout.build, layout.state, path)
    check_size(image_size, len(layout.shape.channels))
    embedding = "fourier" if sde == "vesde" and continuous else "positional"
    if layout.shape.embedding not in (embedding, None):
        raise ValueError(
            f"sde={sde}, continuous={continuous} has a {embedding} embedding, not {layout.shape.embedding}"
        )
    if sde == "vesde":
        divided = scale_by_sigma is not False
        preconditioner = _exploding(sigmas, continuous, not centered, divided, fractional_timesteps)
    elif centered is False or scale_by_sigma:
        raise ValueError(f"centered=false and scale_by_sigma=true are for sde=vesde, not {sde}")
    else:
        preconditioner = _preserving(sde, continuous, beta_min, beta_max, num_scales, fractional_timesteps)
    return Preconditioned(
        network, preconditioner, img_channels=layout.shape.img_channels, img_resolution=image_size
    )


def _state(content: Any, weights: str, path: str | Path) -> dict[str, Tensor]:
    """Keys sigmas and all_modules.N..., of the averaged or of the raw weights."""
    if bare := is_state(content):  # as its state_dict() alone was saved
        content = {"model": content}
    if not isinstance(content, Mapping) or not is_state(content.get("model")):
        raise CheckpointError(
            f"{path} has no state dict under `model`: a score SDE checkpoint has model and ema"
        )
    state = without_prefix(content["model"])
    foreign = [key for key in state if not key.startswith(PREFIX) and key != _SIGMAS]
    if foreign:
        raise CheckpointError(f"{path} is no score SDE checkpoint: its model has {foreign[0][:80]}")
    if weights == "raw" or bare:
        return state
    averages = content.get("ema")
    if not isinstance(averages, Mapping) or not isinstance(averages.get("shadow_params"), list | tuple):
        raise CheckpointError(f"{path} holds no averaged weights (ema.shadow_params): use weights=raw")
    return state | _averaged(state, averages["shadow_params"], path)


def _averaged(state: Mapping[str, Tensor], shadow: Sequence[Any], path: str | Path) -> dict[str, Tensor]:
    """The list of averages by name. Frequencies of a Fourier embedding are not trained and not in it."""
    names = [key for key in state if key not in (_SIGMAS, f"{PREFIX}0.W")]
    if len(names) != len(shadow):
        raise CheckpointError(f"{path}: ema has {len(shadow)} tensors for {len(names)} trained parameters")
    averages = dict(zip(names, shadow, strict=True))
    for name, average in averages.items():
        if not is_dense(average) or average.shape != state[name].shape:
            raise CheckpointError(f"{path}: the average of {name} has another shape than the parameter")
    return averages


def _preserving(
    sde: str, continuous: bool, beta_min: float, beta_max: float, num_scales: int, fractional: bool
) -> Preconditioner:
    if not 0 < beta_min < beta_max:
        raise ValueError(f"beta_min={beta_min}, beta_max={beta_max}: 0 < beta_min < beta_max")
    if sde == "subvpsde" and not continuous:
        raise ValueError("sde=subvpsde is only trained with continuous=true")
    if continuous:
        process = SubVPPreconditioner if sde == "subvpsde" else VPPreconditioner
        return process(beta_d=beta_max - beta_min, beta_min=beta_min)
    low, high = beta_min / num_scales, beta_max / num_scales
    schedule = Discrete(num_train_timesteps=num_scales, beta_start=low, beta_end=high)
    return DiscreteNoisePrediction(schedule, fractional=fractional)


def _exploding(
    sigmas: Tensor | None, continuous: bool, unit_range: bool, divided: bool, fractional: bool
) -> ScoreVE:
    """sigmas: the network's buffer of noise levels, largest first, in the units of its data."""
    if sigmas is None or sigmas.ndim != 1 or len(sigmas) < 2 or not bool((sigmas > 0).all()):
        raise ValueError("its model lacks the buffer `sigmas` with the noise levels of training")
    levels = (2.0 if unit_range else 1.0) * sigmas.to(torch.float64)
    low, high = float(levels[-1]), float(levels[0])
    if low >= high:
        raise ValueError(f"`sigmas` go from {sigmas[0]:g} to {sigmas[-1]:g}: they must fall")
    count = 0 if continuous else len(levels)
    found = ScoreVE(low, high, count, unit_range=unit_range, divided=divided, fractional=fractional)
    if count and not torch.allclose(found.table.on(levels.device).flip(0), levels, rtol=1e-5):
        raise ValueError("`sigmas` are no geometric progression")
    return found
