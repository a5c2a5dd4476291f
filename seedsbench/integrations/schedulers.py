"""The schedulers of diffusers by name: which can be driven here, in which coordinates, with what order.

A scheduler's state is x = a (data + sigma noise). Four kinds: "vp", a = 1/sqrt(1 + sigma^2), and "ve", a = 1,
have a table of noise levels, and their network sees a unit-variance state and a timestep of it; "edm", a = 1,
has levels of its own and a network preconditioned as in Karras et al. 2022; "flow", a = 1/(1 + sigma), has a
network that predicts noise - data. "ipndm" is "vp" with the angle pi t / 2 for its time.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from seedsbench.checks import nearest

Coordinates = Literal["vp", "ve", "edm", "flow", "ipndm"]


@dataclass(frozen=True)
class Known:
    """A scheduler that can be driven: its kind, and the order its paper says, or the option that sets it.

    corrected: whether a corrector adds one to that. own_alone: why it takes no levels of a grid, if so.
    """

    kind: Coordinates
    order: int | str = 1
    corrected: bool = False
    own_alone: str | None = None


KNOWN = {
    "DDIMScheduler": Known("vp"),
    "DDIMParallelScheduler": Known("vp"),
    "DDPMScheduler": Known("vp"),
    "DDPMParallelScheduler": Known("vp"),
    "DEISMultistepScheduler": Known("vp", "solver_order"),
    "DPMSolverMultistepScheduler": Known("vp", "solver_order"),
    "DPMSolverSinglestepScheduler": Known("vp", "solver_order"),
    "UniPCMultistepScheduler": Known("vp", "solver_order", corrected=True),
    "SASolverScheduler": Known("vp", "predictor_order", own_alone="its noise is on at some timesteps alone"),
    "PNDMScheduler": Known("vp", 2),
    "EulerDiscreteScheduler": Known("ve"),
    "EulerAncestralDiscreteScheduler": Known("ve"),
    "HeunDiscreteScheduler": Known("ve", 2),
    "KDPM2DiscreteScheduler": Known("ve", 2),
    "KDPM2AncestralDiscreteScheduler": Known("ve", 2),
    "LMSDiscreteScheduler": Known("ve", "order"),
    "IPNDMScheduler": Known("ipndm", 4, own_alone="it has no table"),
    "EDMEulerScheduler": Known("edm"),
    "EDMDPMSolverMultistepScheduler": Known("edm", "solver_order"),
    "FlowMatchEulerDiscreteScheduler": Known("flow"),
    "FlowMatchHeunDiscreteScheduler": Known("flow", 2, own_alone="it takes no levels"),
}
_DISTILLED = "it samples networks distilled for it, which answer other questions than a denoiser"
_TOKENS = "its states are tokens, not images with Gaussian noise"
_BROWNIAN = "its noise comes from torchsde's Brownian tree over the whole batch, not from our streams"
_VIDEO = "it is written for the stages of one video or robotics pipeline"
REFUSED = {
    "AmusedScheduler": _TOKENS,
    "BlockRefinementScheduler": _TOKENS,
    "DiscreteDDIMScheduler": _TOKENS,
    "EntropyBoundScheduler": _TOKENS,
    "VQDiffusionScheduler": _TOKENS,
    "CMStochasticIterativeScheduler": _DISTILLED,
    "LCMScheduler": _DISTILLED,
    "FlowMatchLCMScheduler": _DISTILLED,
    "TCDScheduler": _DISTILLED,
    "SCMScheduler": _DISTILLED,
    "FlowMapEulerDiscreteScheduler": _DISTILLED,
    "PiflowScheduler": _DISTILLED,
    "CosineDPMSolverMultistepScheduler": _BROWNIAN,
    "DPMSolverSDEScheduler": _BROWNIAN,
    "DDIMInverseScheduler": "it runs from data to noise",
    "DPMSolverMultistepInverseScheduler": "it runs from data to noise",
    "RePaintScheduler": "each step needs an image and a mask to fill in",
    "UnCLIPScheduler": "its steps need the variance that its network learnt, and the timestep before",
    "DDPMWuerstchenScheduler": "its time is that of one pipeline's latents, without a table of levels",
    "CogVideoXDDIMScheduler": _VIDEO,
    "CogVideoXDPMScheduler": "its steps need the data estimate and the timestep of the step before",
    "HeliosScheduler": _VIDEO,
    "HeliosDMDScheduler": _VIDEO,
    "LTXEulerAncestralRFScheduler": _VIDEO,
    "MiniMaxH3Scheduler": _VIDEO,
    "RFD4ProteinaScheduler": _VIDEO,
    "ScoreSdeVeScheduler": "its loop is its pipeline's, not step after step: solver=pc_ve is that method",
    "ScoreSdeVpScheduler": "its loop is its pipeline's, not step after step: solver=pc_vp is that method",
    "KarrasVeScheduler": "its loop is its pipeline's, not step after step: solver=karras_ve is that method",
}
OF_LEVELS = {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"}
OF_LEVELS |= {"timestep_spacing", "steps_offset", "rescale_betas_zero_snr", "interpolation_type", "rho"}
OF_LEVELS |= {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "shift"}
OF_LEVELS |= {"sigma_min", "sigma_max", "sigma_schedule", "lambda_min_clipped", "timestep_type"}
"""Options of constructors that choose noise levels: with those of a grid they would say nothing."""
_GIVEN = {"self", "model_output", "timestep", "sample", "generator", "variance_noise", "return_dict"}
_GIVEN |= {"pred_original_sample", "per_token_timesteps"}


def scheduler_class(name: str) -> Any:
    """The class of this name; ValueError with the reason, or the nearest names, if it cannot be driven.

    ValueError, in one line that says what to install, without diffusers.
    """
    if name in REFUSED:
        raise ValueError(f"solver.scheduler={name} cannot be driven here: {REFUSED[name]}")
    if name not in KNOWN:
        raise ValueError(f"solver.scheduler={name}: {nearest(str(name), KNOWN, what='scheduler')}")
    try:
        import diffusers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f'solver=diffusers needs the diffusers library ({error}): pip install "seedsbench[diffusers]"'
        ) from error
    library: Any = diffusers
    try:
        return getattr(library, name)
    except AttributeError as error:
        raise ValueError(f"diffusers {library.__version__} has no {name}: install a newer one") from error


def check_scheduler(
    name: str, config: Mapping[str, Any], step: Mapping[str, Any], *, grid_levels: bool
) -> None:
    """Raise ValueError for options that the scheduler's constructor or step has not, or cannot use here."""
    found = scheduler_class(name)
    _check_names(name, config, set(inspect.signature(found.__init__).parameters) - {"self"})
    _check_names(f"{name}.step", step, set(inspect.signature(found.step).parameters) - _GIVEN)
    if grid_levels and (why := KNOWN[name].own_alone):
        raise ValueError(f"{name} cannot visit the levels of a grid ({why}): use solver.levels=own")
    if grid_levels and (useless := sorted(OF_LEVELS & set(config))):
        raise ValueError(
            f"solver.config.{useless[0]} chooses noise levels, and solver.levels=grid takes those of grid=: "
            "use solver.levels=own"
        )
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise ValueError(
            f"{name} as a flow: use FlowMatchEulerDiscreteScheduler, or leave use_flow_sigmas out"
        )
    if str(config.get("variance_type", "")).startswith("learned"):
        raise ValueError(
            f"solver.config.variance_type={config['variance_type']!r}: a denoiser has no variance"
        )


def _check_names(owner: str, given: Mapping[str, Any], known: set[str]) -> None:
    for key in given:
        if key not in known:
            raise ValueError(f"{owner}: {nearest(str(key), known or ['(it has none)'], what='option')}")


def takes(name: str, option: str) -> bool:
    """Whether the scheduler's constructor has this option."""
    return option in inspect.signature(scheduler_class(name).__init__).parameters


def default_of(name: str, option: str) -> Any:
    """The default of an option of the scheduler's constructor, None if it has none."""
    found = inspect.signature(scheduler_class(name).__init__).parameters.get(option)
    return None if found is None or found.default is found.empty else found.default


def order_of(name: str, config: Mapping[str, Any], step: Mapping[str, Any]) -> int:
    """The order that the scheduler's paper says its drift has, with these options."""
    order, more = KNOWN[name].order, int(KNOWN[name].corrected)
    if isinstance(order, int):
        return order
    found = scheduler_class(name)
    for options, function in ((config, found.__init__), (step, found.step)):
        if order in (parameters := inspect.signature(function).parameters):
            return int(options.get(order, parameters[order].default)) + more
    raise AssertionError(f"{name} has no option {order}")


def build_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A new scheduler; ValueError, in one line, for options it does not take together."""
    try:
        return scheduler_class(name)(**config)
    except (TypeError, ValueError, NotImplementedError, ImportError, AssertionError) as error:
        raise ValueError(f"{name}: {' '.join(str(error).split())}") from error
