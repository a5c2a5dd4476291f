"""seedsbench's solvers as schedulers of diffusers: `SEEDSScheduler`, and `SolverScheduler` for any other.

    pipe.scheduler = SEEDSScheduler.from_config(pipe.scheduler.config)
    pipe.scheduler = SolverScheduler.from_config(pipe.scheduler.config, solver="unipc")

No formula of a solver is written again: the solver's own step runs, an evaluation at a time (replay.py). As
with diffusers' Heun scheduler, num_inference_steps is a number of noise levels, N: the run takes N - 1
steps and ends in the denoised image of the last, so a solver of k evaluations a step costs k (N - 1) + 1.

Noise is counter-based: image i of a batch with one generator draws from (the generator's seed, i), an image
with a generator of its own from (that seed, 0), and without any from (`seed` of the configuration, i). So
an image is the same in a batch of any size, and when it is made again.
"""

from collections.abc import Sequence
from typing import Any, Literal

from seedsbench import registry
from seedsbench.denoisers.prediction import PredictionType
from seedsbench.diffusion.schedule import BetaSchedule
from seedsbench.integrations.bridge import SolverBridge, SolverSchedulerOutput
from seedsbench.integrations.library import SchedulerMixin, register_to_config
from seedsbench.integrations.trained import Spacing
from seedsbench.integrations.ve_pipelines import (
    KarrasVePipeline,
    KarrasVeScheduler,
    ScoreSdeVePipeline,
    ScoreSdeVeScheduler,
)
from seedsbench.solvers.base import Final, Solver

__all__ = [
    "KarrasVePipeline",
    "KarrasVeScheduler",
    "SEEDSScheduler",
    "SchedulerMixin",  # by which a saved pipeline's loading knows what kind of part it finds here
    "ScoreSdeVePipeline",
    "ScoreSdeVeScheduler",
    "SolverScheduler",
    "SolverSchedulerOutput",
]


class SEEDSScheduler(SolverBridge):
    """SEEDS (Gonzalez et al. 2023): exponential solvers of the reverse SDE, or of the ODE with eta=0.

    stages: evaluations of a step: SEEDS-1, -2 or -3. prediction: what is interpolated, data, noise or edm.
    eta: 1 the reverse SDE, 0 its ODE. c2, c3: places of the stages, shares of a step (None: the solver's
    own). variant: a or b. final: from the last level to the image: denoise, euler or stop (see
    seedsbench.sample). seed: of the noise, where `step` is given no generator. num_train_timesteps to
    beta_schedule, trained_betas, prediction_type (also flow_prediction), timestep_spacing to
    use_beta_sigmas, and shift to use_flow_sigmas are diffusers' own, as its schedulers have them.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: BetaSchedule = "linear",
        trained_betas: Sequence[float] | None = None,
        prediction_type: PredictionType = "epsilon",
        timestep_spacing: Spacing = "leading",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        use_flow_sigmas: bool = False,
        flow_shift: float = 1.0,
        shift: float = 1.0,
        shift_terminal: float | None = None,
        use_dynamic_shifting: bool = False,
        time_shift_type: Literal["exponential", "linear"] = "exponential",
        stages: int = 2,
        prediction: Literal["data", "noise", "edm"] = "data",
        eta: float = 1.0,
        c2: float | None = None,
        c3: float | None = None,
        variant: Literal["a", "b"] | None = None,
        final: Final = "denoise",
        seed: int = 0,
    ) -> None:
        self._set_up()

    def make_solver(self) -> Solver:
        config: Any = self.config
        options = {"prediction": config.prediction, "eta": config.eta}
        options |= {key: config[key] for key in ("c2", "c3", "variant") if config[key] is not None}
        return registry.build(registry.configured("solver", f"seeds{config.stages}", **options))


class SolverScheduler(SolverBridge):
    """Any solver of seedsbench with fixed steps.

    solver: its configuration's name (seedsbench.solver_names()). solver_options: {option: value} of it.
    native_time: solvers that step in time (euler, heun, rk4) do so in the network's own, timesteps or flow
    time; false: in sigma, as EDM and diffusers' EulerDiscreteScheduler. final, seed, and the others: as in
    SEEDSScheduler.

    Raises ValueError for a solver that is unknown or adaptive (its evaluations cannot be listed beforehand).
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: BetaSchedule = "linear",
        trained_betas: Sequence[float] | None = None,
        prediction_type: PredictionType = "epsilon",
        timestep_spacing: Spacing = "leading",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        use_flow_sigmas: bool = False,
        flow_shift: float = 1.0,
        shift: float = 1.0,
        shift_terminal: float | None = None,
        use_dynamic_shifting: bool = False,
        time_shift_type: Literal["exponential", "linear"] = "exponential",
        solver: str = "unipc",
        solver_options: dict[str, Any] | None = None,
        native_time: bool = True,
        final: Final = "denoise",
        seed: int = 0,
    ) -> None:
        self._set_up()

    def make_solver(self) -> Solver:
        config: Any = self.config
        return registry.build(registry.configured("solver", config.solver, **(config.solver_options or {})))
