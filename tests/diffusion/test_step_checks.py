"""What a solver's step and a denoiser return is checked once, in the loop: never rounded or broadcast."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import seedsbench
from seedsbench.solvers.base import Solver, StepResult
from seedsbench.solvers.parts.adaptive import Trial
from seedsbench.solvers.rk45 import RK45
from tests.support.cells import run
from tests.support.measure import mixture

START = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2, 1, 1)

WRONG = {
    "int64": (lambda x: x.long(), "int64, expected float64"),
    "bool": (lambda x: x > 0, "bool, expected float64"),
    "complex": (lambda x: x + 0j, "complex128, expected float64"),
    "half": (lambda x: x.half(), "float16, expected float64"),
    "single": (lambda x: x.float(), "float32, expected float64"),
    "flat": (lambda x: x.flatten(1), r"\(4, 2\), expected \(4, 2, 1, 1\)"),
    "one sample": (lambda x: x[:1], r"\(1, 2, 1, 1\), expected \(4, 2, 1, 1\)"),
    "elsewhere": (lambda x: x.to("meta"), "a tensor on meta, expected cpu"),
    "numpy": (lambda x: x.numpy(), r"ndarray, expected \(4, 2, 1, 1\)"),
    "None": (lambda x: None, r"NoneType, expected \(4, 2, 1, 1\)"),
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
    with pytest.raises(ValueError, match=rf"^in step 3 of 5, Plugin returned {said}[^\n]*$"):
        seedsbench.sample(mixture(), START, solver=Plugin(spoil), steps=5)
    with pytest.raises(ValueError, match=rf"^in the final step \(denoise\), Plugin returned {said}[^\n]*$"):
        seedsbench.sample(mixture(), START, solver=Plugin(spoil, at_the_end=True), steps=5)


def test_a_step_that_returns_no_result_is_named():
    class Bare(Plugin):
        def step(self, process, x, t, t_next, state, noise):
            return process.denoise(x, t)

    with pytest.raises(ValueError, match=r"^in step 1 of 2, Bare returned Tensor, expected a StepResult$"):
        seedsbench.sample(mixture(), START, solver=Bare(), steps=2)


class Spoilt(RK45):
    """Its trials arrive as one number a sample, or say their error so."""

    def trial(self, process, x, leg, memory):
        found = super().trial(process, x, leg, memory)
        return Trial(found.x.mean(1, keepdim=True), found.error, found.accepted, found.rejected)


class Misjudged(RK45):
    """Its errors have one axis too many."""

    def trial(self, process, x, leg, memory):
        found = super().trial(process, x, leg, memory)
        return Trial(found.x, found.error[:, None], found.accepted, found.rejected)


def test_trials_of_adaptive_solvers_are_checked_too():
    with pytest.raises(ValueError, match=r"^in adaptive step 1, Spoilt returned \(4, 1, 1, 1\), expected "):
        seedsbench.sample(mixture(), START, solver=Spoilt(1e-3, 1e-3, "per_sample"), steps=5)
    with pytest.raises(ValueError, match=r"^in adaptive step 1, Misjudged as error returned \(4, 1\)"):
        seedsbench.sample(mixture(), START, solver=Misjudged(1e-3, 1e-3, "per_sample"), steps=5)


@pytest.mark.parametrize("name", [name for name in WRONG if name not in ("half", "single")])
@pytest.mark.parametrize(("solver", "place"), [("euler", "step 2 of 4"), ("rk45", r"adaptive step \d")])
def test_a_denoiser_that_returns_something_else_is_named(name, solver, place):
    spoil, said = WRONG[name]
    exact, calls = mixture(), []

    def denoiser(x, sigma, labels):
        calls.append(1)
        found = exact(x, sigma, labels)
        return spoil(found) if len(calls) > 1 else found

    expected = rf"^in {place}, denoiser returned {said.replace('float64', 'a floating-point type')}[^\n]*$"
    with pytest.raises(ValueError, match=expected):
        seedsbench.sample(denoiser, START, solver=solver, steps=4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_denoised_image_of_another_floating_type_is_converted(dtype):
    exact = mixture()
    found = seedsbench.sample(
        lambda x, sigma, labels: exact(x, sigma, labels).to(dtype), START, solver="heun", steps=4
    )
    assert found.x.dtype == torch.float64
    assert torch.allclose(found.x, seedsbench.sample(exact, START, solver="heun", steps=4).x, atol=0.15)


@pytest.mark.parametrize(
    "dtype", [torch.int32, torch.int64, torch.bool, torch.complex64, torch.float16, "float64"]
)
def test_the_state_is_float64_or_float32(dtype):
    with pytest.raises(ValueError, match=r"^dtype=[^\n]* must be torch\.float64 or torch\.float32[^\n]*$"):
        seedsbench.sample(mixture(), START, solver="heun", steps=4, dtype=dtype)
    with pytest.raises(ValueError, match=r"^latents must be standard normal numbers, got"):
        seedsbench.sample(mixture(), START.long(), solver="heun", steps=4)


MODULE = """
from dataclasses import dataclass
from seedsbench.solvers import base

@dataclass(frozen=True)
class Truncating(base.Solver):
    order = 1

    def nfe(self, n_steps):
        return n_steps

    def step(self, process, x, t, t_next, state, noise):
        return base.StepResult((x + (t_next - t) * process.drift(x, t)).long())
"""


def test_a_row_of_such_a_solver_is_failed_and_says_why(tmp_path, monkeypatch):
    (tmp_path / "solver").mkdir()
    (tmp_path / "truncating_solver.py").write_text(MODULE)
    (tmp_path / "solver" / "truncating.yaml").write_text("_target_: truncating_solver.Truncating\n")
    monkeypatch.syspath_prepend(tmp_path)
    row = run(tmp_path, "solver=truncating", config_dirs=[tmp_path])
    assert row["status"] == "failed"
    assert row["reason"].startswith("in step 1 of 5, Truncating returned int64, expected float64")
