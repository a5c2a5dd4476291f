"""The adapter: a diffusers scheduler over `Solver.step`. Its subclasses add their configurations."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from seedsbench.denoisers.prediction import check_prediction
from seedsbench.diffusion.noise import Noise, OfType
from seedsbench.diffusion.schedule import Discrete
from seedsbench.integrations.library import (
    BaseOutput,
    ConfigMixin,
    KarrasDiffusionSchedulers,
    SchedulerMixin,
)
from seedsbench.integrations.numbered import noise_of
from seedsbench.integrations.replay import Path, Run, check_replayable, keeps_images, recorded
from seedsbench.integrations.trained import (
    FLOW,
    Spread,
    Trained,
    TrainedOnFlow,
    TrainedOnTable,
    check_falling,
    checked_levels,
)
from seedsbench.solvers.base import Final, Solver

COMPATIBLE = [scheduler.name for scheduler in KarrasDiffusionSchedulers]
SPREADS: dict[str, Spread] = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}


@dataclass
class SolverSchedulerOutput(BaseOutput):
    """prev_sample: (B, C, H, W) where the network is evaluated next, or the finished sample.

    pred_original_sample: (B, C, H, W), the denoised image at the sample given. Both are of its type.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class SolverBridge(SchedulerMixin, ConfigMixin):
    """What the schedulers share: one adapter over `Solver.step`.

    order: the evaluations of a step (1 for a solver whose steps differ). timesteps: (n,) of each
    evaluation, whole numbers or, between two of a table, real ones. sigmas: (n + 1,) their noise levels,
    then 0. init_noise_sigma: standard deviation of a first sample. alphas_cumprod: of a table, float32.
    Samples are scaled as the network's inputs are. The first is the state at the first evaluation: a solver
    that begins with noise (churn) takes it for the state with that noise.
    """

    _compatibles: ClassVar[list[str]] = [*COMPATIBLE, "FlowMatchEulerDiscreteScheduler"]
    order = 1

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """A scheduler with the configuration of another; of a FlowMatch one it takes the flow.

        What that configuration overrides is kept and its defaults are not. kwargs: options in their place.
        """
        flow = isinstance(config, dict) and "shift" in config and "beta_schedule" not in config
        given = {"prediction_type": FLOW, **kwargs} if flow else kwargs
        return super().from_config(config, return_unused_kwargs, **given)

    @abstractmethod
    def make_solver(self) -> Solver:
        """The solver that the configuration names."""

    def _set_up(self) -> None:
        """Check the configuration; what there is before set_timesteps."""
        self._solver = self.make_solver()
        check_replayable(self._solver)
        costs = [self._solver.nfe(n) for n in (1, 2, 8)]
        self.order = costs[0] if costs == [costs[0] * n for n in (1, 2, 8)] else 1
        self._spread()
        self._trained = self._make_trained()
        if isinstance(self._trained, TrainedOnTable):
            self.alphas_cumprod = self._trained.alphas_cumprod.float()
        self.num_inference_steps: int | None = None
        last = self._trained.steps
        everything = torch.arange(last, 0, -1) - int(isinstance(self._trained, TrainedOnTable))
        self._show(everything, self._trained.level(everything), None)
        self._path: Path | None = None
        self._reset()

    def _show(self, timesteps: Tensor, sigmas: Tensor, device: Any) -> None:
        self.timesteps = timesteps.to(device)
        self.sigmas = torch.cat([self._trained.shown(sigmas), sigmas.new_zeros(1)]).float()
        first = sigmas[0]
        self.init_noise_sigma = float(first * self._trained.scale_at(first))

    def _reset(self) -> None:
        self._begin_index: int | None = None
        self._index: int | None = None
        self._run: Run | None = None
        self._x, self._returned = torch.empty(0), torch.empty(0)

    def _spread(self) -> Spread:
        chosen: list[Spread] = [spread for option, spread in SPREADS.items() if getattr(self.config, option)]
        if len(chosen) > 1:
            raise ValueError(f"only one of {', '.join(SPREADS)} can be true, got {len(chosen)}")
        return chosen[0] if chosen else "timesteps"

    def _make_trained(self) -> Trained:
        config: Any = self.config
        if config.prediction_type == FLOW or config.use_flow_sigmas:
            if config.prediction_type == "v_prediction":
                raise ValueError(
                    "prediction_type='v_prediction' with use_flow_sigmas=True: use flow_prediction"
                )
            dynamic = config.time_shift_type if config.use_dynamic_shifting else "none"
            shift = config.flow_shift if config.use_flow_sigmas else config.shift
            return TrainedOnFlow(
                config.num_train_timesteps,
                config.prediction_type,
                shift=shift,
                to_lowest=not config.use_flow_sigmas,
                time_shift=dynamic,
                terminal=config.shift_terminal,
            )
        check_prediction(config.prediction_type)
        betas = () if config.trained_betas is None else tuple(map(float, config.trained_betas))
        table = Discrete(
            num_train_timesteps=len(betas) or config.num_train_timesteps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            beta_schedule=config.beta_schedule,
            trained_betas=betas,
            rescale_betas_zero_snr=config.rescale_betas_zero_snr,
        )
        return TrainedOnTable(
            table,
            config.prediction_type,
            config.timestep_spacing,
            config.steps_offset,
            exact_end=self._solver.zero_snr,
        )

    def __len__(self) -> int:
        return self._trained.steps

    # --- the run -----------------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
    ) -> None:
        """Plan a run: num_inference_steps noise levels, or the levels of given timesteps or sigmas.

        timesteps, sigmas: decreasing; those of the solver's steps, stages not among them. sigmas are as in
        `self.sigmas`, may end in 0 and are shifted where flow matching shifts. mu: of dynamic shifting,
        which the pipeline computes. Raises ValueError for none or several of them and for levels that do
        not fall.
        """
        self._reset()
        self._path = None
        self._trained = self._make_trained()
        levels = self._levels(num_inference_steps, timesteps, sigmas, mu)
        self._times = self._schedule.sigma_inv(levels)
        self._path = self._recorded(self._times)
        self._sigmas = self._path.sigmas.unbind()
        self._scales = self._trained.scale_at(self._path.sigmas).unbind()
        self.num_inference_steps = len(levels)
        told = self._trained.timesteps(self._path.sigmas)
        whole = bool((told == told.round()).all()) and isinstance(self._trained, TrainedOnTable)
        self._show(told.long() if whole else told.float(), self._path.sigmas, device)

    def _levels(self, n: int | None, timesteps: Any, sigmas: Any, mu: float | None) -> Tensor:
        """(n,) float64 sigmas of the solver's steps."""
        if timesteps is not None and sigmas is not None:
            raise ValueError("give timesteps or sigmas, not both: one follows from the other")
        if timesteps is None and sigmas is None:
            if isinstance(n, bool) or not isinstance(n, int) or n < 1:
                raise ValueError(
                    f"num_inference_steps={n} must be an integer from 1, or give timesteps or sigmas"
                )
            return self._trained.levels(n, self._spread(), mu)
        name = "sigmas" if timesteps is None else "timesteps"
        given = checked_levels(sigmas if timesteps is None else timesteps, name)
        if n is not None and n != len(given):
            raise ValueError(f"num_inference_steps={n} with {len(given)} {name}: leave it out")
        if timesteps is not None:
            levels = self._trained.level(given)
        elif isinstance(self._trained, TrainedOnFlow):
            levels = self._trained.from_shown(self._trained.shifted(given, mu))
        else:
            levels = given
        check_falling(levels, name)
        return levels

    @property
    def _schedule(self) -> Any:
        native = dict(self.config).get("native_time", True)
        return self._trained.schedule if native else self._trained.in_sigma

    def _recorded(self, times: Tensor) -> Path:
        return recorded(self._solver, self._schedule, times, self._final, self._trained.round_sigma)

    @property
    def _final(self) -> Final:
        return dict(self.config)["final"]

    @property
    def _seed(self) -> int:
        return dict(self.config)["seed"]

    @property
    def step_index(self) -> int | None:
        """The number of the evaluation whose output `step` takes next; None before the first."""
        return self._index

    @property
    def begin_index(self) -> int | None:
        """Where in `timesteps` the run begins; None: at the timestep of the first `step`."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin the run at timesteps[begin_index], as image-to-image does: at order times a step's number."""
        self._begin_index = begin_index

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """The sample itself: it has the scale of the network's input already."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generator | list[Generator] | None = None,
        return_dict: bool = True,
        *,
        noise: Noise | None = None,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
    ) -> SolverSchedulerOutput | tuple[Tensor, Tensor]:
        """From the network's output at `sample` to where it is evaluated next.

        model_output, sample: (B, C, H, W). A sample other than the one returned last (inpainting, a
        callback) counts, pixel by pixel. timestep: of the first call, one of `timesteps`; later ones follow
        in order. generator: one, or one an image: its seed numbers the noise, nothing is drawn from it.
        noise: an object of `seedsbench.noise` in its place. Both are read at the first step of a run. eta,
        use_clipped_model_output: DDIM's, which some pipelines pass to any scheduler; they must be off.
        """
        if self._path is None:
            raise ValueError("step before set_timesteps: call set_timesteps(num_inference_steps) first")
        if eta or use_clipped_model_output:
            name = f"eta={eta}" if eta else "use_clipped_model_output=True"
            own = f"{type(self).__name__}.from_config(config, ...)"
            raise ValueError(f"{name} in the call is DDIM's: set the solver's own options, as in {own}")
        if self._index is None:
            self._begin(self._path, timestep, sample, generator, noise)
        assert self._index is not None
        if self._index == len(self._sigmas):
            raise ValueError("the run is over: call set_timesteps before another one")
        sigma, channels = self._sigmas[self._index], sample.shape[1]
        x = self._taken(sample)
        if model_output.shape[1] == 2 * channels:
            model_output = model_output[:, :channels]  # what follows is a learnt variance
        denoised = self._trained.denoised(model_output, x, sigma)
        self._index += 1
        if self._run is not None:
            self._run.answer(denoised)
            self._x = self._run.x
        else:
            self._x = self._led(x, denoised)
            self._start_run(self._path)
        over = self._index == len(self._sigmas)
        wide = torch.promote_types(sample.dtype, torch.float32)
        scaled = self._x.to(wide, copy=True)
        if not over:
            scaled = scaled.mul_(self._scales[self._index])
        previous, predicted = scaled.to(sample.dtype), denoised.to(sample.dtype)
        self._returned = previous.clone()  # whoever has the other one may write to it
        return SolverSchedulerOutput(previous, predicted) if return_dict else (previous, predicted)

    def _begin(self, path: Path, timestep: Any, sample: Tensor, generator: Any, noise: Noise | None) -> None:
        dtype = torch.float32 if sample.device.type == "mps" else torch.float64  # which has no float64
        self._index = self._index_of(path, timestep) if self._begin_index is None else self._begin_index
        if not 0 <= self._index < len(path.sigmas):
            raise ValueError(f"begin_index={self._index} must lie in [0, {len(path.sigmas)})")
        source = noise_of(generator, self._seed, sample) if noise is None else noise
        self._noise = OfType(source, dtype)
        self._x, self._returned = sample.to(dtype) / self._scales[self._index], sample
        self._start_run(path)

    def _index_of(self, path: Path, timestep: Any) -> int:
        """The evaluation at a timestep: the first of a step, where it is that of several."""
        t = float(torch.as_tensor(timestep).flatten()[0])
        found = ((self.timesteps.cpu() - t).abs() < 1e-3).nonzero().flatten().tolist()
        if not found:
            raise ValueError(
                f"timestep={t:g} is none of this run: the first step takes one of scheduler.timesteps, or "
                "set_begin_index says where to begin"
            )
        return next((i for i in found if i in path.starts), found[0])

    def _start_run(self, path: Path) -> None:
        """Start the solver at the present point, if it is the first of a step."""
        if self._index not in path.starts or self._index == len(path.sigmas):
            return
        first = path.starts.index(self._index)
        times, state = self._times[first:], path.states[first] if first else None
        if first and keeps_images(state):
            state, again = None, self._recorded(times).sigmas
            planned = path.sigmas[self._index :]
            if len(again) != len(planned) or not torch.allclose(again, planned, rtol=1e-6):
                raise ValueError(
                    f"{type(self._solver).__name__} begins a run with other evaluations than it goes on "
                    "with, so it cannot begin in the middle: begin at timesteps[0] or use another solver"
                )
        given = self._solver, self._schedule, times, self._final, path.at_start[first:]
        self._run = Run(*given, self._trained.round_sigma, self._x, self._noise, state)

    def _taken(self, sample: Tensor) -> Tensor:
        """The sample, unscaled, at full precision: what was returned last, but for pixels changed since."""
        if sample.shape != self._x.shape:
            raise ValueError(f"sample has shape {tuple(sample.shape)}, the run {tuple(self._x.shape)}")
        returned = self._returned.to(sample.dtype)
        # On the CPU a look saves the rest; to ask a GPU is to wait until it has nothing to do.
        if sample.device.type == "cpu" and torch.equal(sample, returned):
            return self._x
        given = sample.to(self._x.dtype) / self._scales[self._index or 0]
        x = torch.where(sample == returned, self._x, given)
        if self._run is not None:
            self._run.move_to(x)
        return x

    def _led(self, x: Tensor, denoised: Tensor) -> Tensor:
        """A step of DDIM to the next level: for the rest of a step in whose middle a run begins."""
        at = self._index or 0
        if at == len(self._sigmas):
            return denoised
        before, after = self._sigmas[at - 1 : at + 1]
        return denoised + after / before * (x - denoised)

    # --- training's side ---------------------------------------------------------------------------------

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noised images at timesteps of (), (1,) or (B,) numbers: scaled, in the type of the images."""
        given = torch.as_tensor(timesteps, device=original_samples.device)
        if given.ndim > 1 or (given.ndim == 1 and len(given) not in (1, len(original_samples))):
            raise ValueError(
                f"timesteps have shape {tuple(given.shape)}: expected (1,) or ({len(original_samples)},)"
            )
        return self._trained.noised(original_samples, noise.to(original_samples), given)
