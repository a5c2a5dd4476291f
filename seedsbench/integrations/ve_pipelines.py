"""The two variance-exploding pipelines of diffusers over our solvers: KarrasVe and ScoreSdeVe.

Their calls are diffusers'; what they compute is right by default. compat="diffusers" is what that library
computes, with the noise that it draws from the generator: KarrasVe's levels are the squares of the paper's,
ScoreSdeVe's steps depend on an image's neighbours in the batch. Any number of channels; theirs make three.
"""

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from seedsbench.api import sample
from seedsbench.diffusion.grid import VEGrid
from seedsbench.diffusion.noise import FromNormals
from seedsbench.diffusion.schedule import Geometric, Linear
from seedsbench.integrations.library import (
    ConfigMixin,
    DiffusionPipeline,
    ImagePipelineOutput,
    SchedulerMixin,
    randn_tensor,
    register_to_config,
)
from seedsbench.integrations.numbered import noise_of

Compat = Literal["none", "diffusers"]


def _check_compat(compat: str) -> None:
    if compat not in ("none", "diffusers"):
        raise ValueError(f"compat={compat!r} must be none or diffusers")


class KarrasVeScheduler(SchedulerMixin, ConfigMixin):
    """The settings of `KarrasVePipeline`: EDM's stochastic sampler (Karras et al. 2022, Algorithm 2).

    sigma_min, sigma_max: range of noise levels, for images in [-1, 1]. s_noise, s_churn, s_min, s_max: of the
    churn. compat: "diffusers" squares the levels, as that library does by mistake.
    """

    @register_to_config
    def __init__(
        self,
        sigma_min: float = 0.02,
        sigma_max: float = 100.0,
        s_noise: float = 1.007,
        s_churn: float = 80.0,
        s_min: float = 0.05,
        s_max: float = 50.0,
        compat: Compat = "none",
    ) -> None:
        _check_compat(compat)

    def settings(self, n: int) -> dict[str, Any]:
        """Keywords of `seedsbench.sample` for a run over n >= 2 noise levels."""
        config: Any = self.config
        squared = config.compat == "diffusers"
        solver = {f"S_{key}": float(config[f"s_{key}"]) for key in ("noise", "churn", "min", "max")}
        solver |= {"name": "karras_ve", "compat": "diffusers" if squared else "paper"}
        levels = VEGrid().levels(n, config.sigma_min, config.sigma_max, Linear())
        return {"solver": solver, "sigmas": levels**2 if squared else levels, "schedule": Linear()}


class ScoreSdeVeScheduler(SchedulerMixin, ConfigMixin):
    """The settings of `ScoreSdeVePipeline`: predictor-corrector sampling (Song et al. 2021, Algorithm 4).

    sigma_min, sigma_max: range of noise levels, for images in [0, 1]. snr: of the corrector. sampling_eps:
    the last time; the first is 1. correct_steps: corrector steps at each level; 0 for none. compat:
    "diffusers" takes the corrector's step from means over the batch, and the predictor's from a table of as
    many levels as there are times.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 2000,
        snr: float = 0.15,
        sigma_min: float = 0.01,
        sigma_max: float = 1348.0,
        sampling_eps: float = 1e-5,
        correct_steps: int = 1,
        compat: Compat = "none",
    ) -> None:
        _check_compat(compat)

    def settings(self, n: int) -> dict[str, Any]:
        """Keywords of `seedsbench.sample` for a run over n >= 2 noise levels."""
        config: Any = self.config
        theirs = config.compat == "diffusers"
        solver: dict[str, Any] = {"name": "pc_ve", "corrector": "none"}
        if config.correct_steps:
            solver |= {"corrector": "langevin", "corrector_steps": config.correct_steps, "snr": config.snr}
        if theirs:
            solver |= {"norms": "batch", "discretization": "reference"}
        schedule = Geometric(
            sigma_0=float(config.sigma_min), sigma_1=float(config.sigma_max), fit_range=False
        )
        times = torch.linspace(1, config.sampling_eps, n, dtype=torch.float64)
        return {"solver": solver, "sigmas": schedule.sigma(times), "schedule": schedule}


class _FromGenerator(FromNormals):
    """The noise that diffusers draws: float32 normals, one after the other, from its generator."""

    def __init__(self, generator: Any, like: Tensor) -> None:
        self._generator, self._like = generator, like

    def normal(self) -> Tensor:
        drawn = randn_tensor(tuple(self._like.shape), generator=self._generator)
        return drawn.to(self._like.device, torch.float64)


class _VePipeline(DiffusionPipeline):
    """unet: a UNet2DModel; scheduler: the settings. A subclass says what the network's output means."""

    unet: Any
    scheduler: Any

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @abstractmethod
    def _denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised image at x, in the type of the network; sigma: ()."""

    def _run(self, batch_size: int, n: int, generator: Any) -> Tensor:
        """(B, C, H, W) samples, float64, of the network's own range."""
        if n < 2:
            raise ValueError(f"num_inference_steps={n} must be at least 2: a first and a last noise level")
        config = self.unet.config
        size = config.sample_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        shape = (batch_size, config.in_channels, *sides)
        latents = randn_tensor(shape, generator=generator, device=self.device)
        theirs = self.scheduler.config.compat == "diffusers"
        noise = _FromGenerator(generator, latents) if theirs else noise_of(generator, 0, latents)

        def denoiser(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
            return self._denoised(x.to(self.unet.dtype), sigma.to(x.device, self.unet.dtype))

        return sample(denoiser, latents, noise=noise, **self.scheduler.settings(n)).x

    def _finished(self, images: Tensor, output_type: str | None, return_dict: bool) -> Any:
        """What diffusers' pipelines return of images in [0, 1]."""
        array: Any = images.float().cpu().permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            array = self.numpy_to_pil(array)
        return ImagePipelineOutput(images=array) if return_dict else (array,)


class KarrasVePipeline(_VePipeline):
    """EDM's stochastic sampler for variance-exploding networks, at 2 num_inference_steps - 1 evaluations."""

    def _denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        # Karras et al. 2022, eq. 213: the network is one of [0, 1], where the noise is half as large.
        return x + sigma * (sigma / 2) * self.unet((x + 1) / 2, sigma / 2).sample

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        num_inference_steps: int = 50,
        generator: Generator | list[Generator] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Images, as diffusers' own returns them: PIL images, or an array (B, H, W, C) in [0, 1].

        num_inference_steps: noise levels, at least 2. generator: one, or one an image: latents are drawn from
        it, and its seed numbers the noise.
        """
        images = self._run(batch_size, num_inference_steps, generator)
        return self._finished((images / 2 + 0.5).clamp(0, 1), output_type, return_dict)


class ScoreSdeVePipeline(_VePipeline):
    """Predictor-corrector sampling of variance-exploding networks, whose output is the score.

    It costs num_inference_steps (1 + correct_steps) evaluations.
    """

    def _denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x + sigma**2 * self.unet(x, sigma.expand(len(x))).sample

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        num_inference_steps: int = 2000,
        generator: Generator | list[Generator] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Images; see `KarrasVePipeline`."""
        images = self._run(batch_size, num_inference_steps, generator)
        return self._finished(images.clamp(0, 1), output_type, return_dict)
