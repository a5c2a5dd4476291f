"""What a solver's step and a denoiser return is checked once, in the loop: never rounded or broadcast."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from seedsbench.solvers.base import Solver, StepResult
from seedsbench.solvers.rk45 import RK45
from tests.support.measure import START, mixture
from tests.support.measure import run as sample

HERE = r"\(test_step_checks\.py\)"
PLUGIN = f"Plugin {HERE}"
WRONG = {
    "int64": (lambda x: x.long(), "int64, expected float64"),
    "bool": (lambda x: x > 0, "bool, expected float64"),
    "complex": (lambda x: x + 0j, "complex128, expected float64"),
    "half": (lambda x: x.half(), "float16, expected float64"),
    "single": (lambda x: x.float(), "float32, expected float64"),
    "flat": (lambda x: x.flatten(1), r"\(6, 2\), expected \(6, 2, 1, 1\)"),
    "one sample": (lambda x: x[:1], r"\(1, 2, 1, 1\), expected \(6, 2, 1, 1\)"),
    "elsewhere": (lambda x: x.to("meta"), "a tensor on meta, expected cpu"),
    "numpy": (lambda x: x.numpy(), r"ndarray, expected \(6, 2, 1, 1\)"),
    "None": (lambda x: None, r"NoneType, expected \(6, 2, 1, 1\)"),
    "tuple": (lambda x: (x,), r"tuple, expected \(6, 2, 1, 1\)"),
    "one channel": (lambda x: x[:, :1], r"\(6, 1, 1, 1\), expected \(6, 2, 1, 1\)"),
    "one number": (lambda x: x.mean(), r"\(\), expected \(6, 2, 1, 1\)"),
}


@dataclass(frozen=True)
class Plugin(Solver):
    """Euler, whose third step or last image is `spoilt`."""

    order = 1
    spoilt: Any = None
    at_the_end: bool = False

    def nfe(self, n_steps):
        return n_steps

    def step(self, process, x, t, t_next, state, noise):
        done = (state or 0) + 1
        result = x + (t_next - t) * process.drift(x, t)
        return StepResult(self.spoilt(result) if done == 3 and not self.at_the_end else result, done)

    def final_sample(self, process, x, t, denoised, state, noise):
        return self.spoilt(denoised) if self.at_the_end else denoised


@pytest.mark.parametrize("name", WRONG)
def test_a_step_that_returns_something_else_is_named(name):
    spoil, said = WRONG[name]
    with pytest.raises(ValueError, match=rf"^in step 3 of 5, {PLUGIN} returned {said}[^\n]*$"):
        sample(Plugin(spoil), steps=5)
    with pytest.raises(
        ValueError,
        match=rf"^in the final step \(denoise\), {PLUGIN} returned {said}[^\n]*$",
    ):
        sample(Plugin(spoil, at_the_end=True), steps=5)


def test_a_step_that_returns_no_result_is_named():
    class Bare(Plugin):
        def step(self, *args):
            return super().step(*args).x

    said = rf"Bare {HERE} returned Tensor, expected a StepResult: return StepResult\(x, state\)"
    with pytest.raises(ValueError, match=rf"^in step 1 of 2, {said}$"):
        sample(Bare(), steps=2)


@dataclass(frozen=True)
class Spoilt(RK45):
    """Its trials, or their errors, are not what they should be."""

    changes: Any = None

    def trial(self, process, x, leg, memory):
        found = super().trial(process, x, leg, memory)
        return replace(found, **self.changes(found))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            lambda found: {"x": found.x.mean(1, keepdim=True)},
            r"returned \(6, 1, 1, 1\), expected ",
        ),
        (
            lambda found: {"error": found.error[:, None]},
            r"as error returned \(6, 1\)",
        ),
    ],
)
def test_trials_of_adaptive_solvers_are_checked_too(changes, said):
    with pytest.raises(ValueError, match=rf"^in adaptive step 1, Spoilt {HERE} {said}"):
        sample(Spoilt(1e-3, 1e-3, "per_sample", changes=changes), steps=5)


@pytest.mark.parametrize("name", [name for name in WRONG if name not in ("half", "single")])
@pytest.mark.parametrize(
    ("solver", "place"), [("euler", "step 2 of 4"), ("seeds3", "step 1 of 4"), ("rk45", r"adaptive step \d")]
)
def test_a_denoiser_that_returns_something_else_is_named(name, solver, place):
    spoil, said = WRONG[name]
    exact, spoils = mixture(), itertools.chain([lambda x: x], itertools.repeat(spoil))  # from the second call

    def denoiser(x, sigma, labels):
        return next(spoils)(exact(x, sigma, labels))

    expected = rf"^in {place}, denoiser returned {said.replace('float64', 'a floating-point type')}[^\n]*$"
    with pytest.raises(ValueError, match=expected):
        sample(solver, denoiser, steps=4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_denoised_image_of_another_floating_type_is_converted(dtype):
    exact = mixture()
    path = {"latents": START / 2, "steps": 4}
    found = sample("heun", lambda *args: exact(*args).to(dtype), **path).x
    assert found.dtype == torch.float64
    assert torch.allclose(found, sample("heun", **path).x, atol=0.15)
