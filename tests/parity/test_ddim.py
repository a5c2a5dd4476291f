"""DDIM and DDPM against diffusers' schedulers: every recorded option, trajectories to 1e-10.

Recorded model outputs are replayed as denoised images. `previous_timestep=diffusers` reproduces the
library where its step is not the grid's (linspace); elsewhere the default must give the same numbers.
"""

from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from seedsbench.denoisers.prediction import denoised_of, raw_output_of
from seedsbench.diffusion.grid import DiscreteGrid
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Discrete
from seedsbench.noise import Recorded
from seedsbench.solvers.ddim import DDIM, DDPM, dynamic_threshold
from tests.support.golden import cases
from tests.support.measure import mixture
from tests.support.measure import run as sample
from tests.support.parity import close
from tests.support.replay import Replay

ROW_CASE, *OTHERS = cases("ddim_grid")
GRID = ROW_CASE.settings
ROWS = [
    dict(zip(["clipping" if "clipping" in c else c for c in GRID["columns"]], row, strict=True))
    for row in GRID["rows"]
]
LENGTHS = [case for case in OTHERS if "num_inference_steps" in case.settings]
TABLES = [case for case in OTHERS if case not in LENGTHS]
DDPMS = cases("ddpm")
START = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(2, 2, 1, 1)
recorded = cache(ROW_CASE.__getitem__)


def test_every_case_is_covered():
    assert (str(ROW_CASE), len(LENGTHS), len(TABLES), len(DDPMS)) == ("grid", 14, 6, 11)
    assert (len(ROWS), sum(row["all_finite"] for row in ROWS)) == (1368, 1268)


class Live:
    """The network that was recorded: the mixture's output plus 0.3 sin(3 x_t + t / 50)."""

    def __init__(self, schedule, kind):
        self.mixture, self.schedule, self.kind, self.outputs = mixture(), schedule, kind, []

    def __call__(self, x, sigma, labels):
        x_t, t = x * (1 + sigma**2).rsqrt(), self.schedule.sigma_inv(sigma)
        ripple = 0.3 * (3 * x_t + t / 50).sin()
        self.outputs.append(raw_output_of(self.kind, self.mixture(x, sigma), x_t, sigma) + ripple)
        return denoised_of(self.kind, self.outputs[-1], x_t, sigma)


@cache
def schedule_of(name, rescaled=False, steps=1000):
    return Discrete(beta_schedule=name, rescale_betas_zero_snr=rescaled, num_train_timesteps=steps)


def run(denoiser, first, solver, schedule, grid, steps, noise=None):
    """diffusers starts from `first` as it is, seedsbench from s sigma latents, a little less."""
    sigma = grid.levels(steps + 1, 0, 0, schedule)[0]
    latents = first / (sigma * schedule.scale_at(sigma))
    path = {"steps": steps, "schedule": schedule, "grid": grid, "noise": noise}
    return sample(solver, denoiser, latents, **path).trajectory


# --- DDIM: the 1,368 rows ---------------------------------------------------------------------------


def solver_of(row):
    shared = ("clip_sample_range", "sample_max_value", "dynamic_thresholding_ratio")
    return DDIM(
        clip_sample=row["clipping"] == "clip",
        thresholding=row["clipping"] == "thresholding",
        previous_timestep="diffusers" if row["timestep_spacing"] == "linspace" else "grid",
        **{name: row[name] for name in ("eta", "set_alpha_to_one", "use_clipped_model_output")},
        **{name: GRID["common"][name] for name in shared},
    )


def grid_of(row):
    return DiscreteGrid(timestep_spacing=row["timestep_spacing"], steps_offset=row["steps_offset"])


def run_row(i, row, denoiser, noise):
    schedule = schedule_of(row["beta_schedule"], row["rescale_betas_zero_snr"])
    start = recorded("x_traj_f64")[i, 0]
    return run(denoiser, start, solver_of(row), schedule, grid_of(row), 4, Recorded(noise))


def residue(i, row):
    """What diffusers adds to its first step by rounding, in units of the noise drawn there.

    From zero SNR with eta = 1 nothing of the noise estimate is left, but 1 - a - std^2 comes out as one
    unit of rounding, whose root is 1.5e-8 (or as minus one: NaN, rows that are not finite).
    """
    if not (row["rescale_betas_zero_snr"] and row["eta"] == 1 and row["timestep_spacing"] != "leading"):
        return torch.zeros(())
    table = next(case for case in TABLES if str(case) == f"tables_{row['beta_schedule']}_rescaleTrue")
    a = table["alphas_cumprod_f64"][999 - 200]
    std = (1 - a).sqrt()
    eps = recorded("model_out_f64" if row["prediction_type"] == "epsilon" else "x_traj_f64")[i, 0]
    return (1 - a - std**2).sqrt() * eps / std


@pytest.mark.parametrize(
    ("betas", "of_rounding"),
    [
        ("linear", 28),
        *(pytest.param(betas, 0, marks=pytest.mark.slow) for betas in ("scaled_linear", "squaredcos_cap_v2")),
    ],
)
def test_ddim_rows(betas, of_rounding):
    rounded = 0
    for i, row in enumerate(ROWS):
        if row["beta_schedule"] == betas and row["all_finite"]:
            noise, extra = recorded("noise").clone(), residue(i, row)
            noise[0] += extra
            rounded += bool(extra.any())
            replay = Replay(recorded("model_out_f64")[i], row["prediction_type"])
            close(run_row(i, row, replay, noise), recorded("x_traj_f64")[i])
    assert rounded == of_rounding


def test_ddim_rows_that_are_not_finite_in_the_library():
    """76 divide by zero (epsilon prediction at zero SNR), 24 take the root of a negative rounding error.

    seedsbench has a tiny signal in place of none, so all 100 stay finite. The 24 are right, too; in the
    76 the mathematics itself has nothing to say, unless the image is clipped.
    """
    seen = Counter()
    for i, row in enumerate(ROWS):
        if row["all_finite"]:
            continue
        schedule = schedule_of(row["beta_schedule"], True)
        live = Live(schedule, row["prediction_type"])
        got = run_row(i, row, live, recorded("noise"))
        assert got.isfinite().all(), row
        close(live.outputs[0], recorded("model_out_f64")[i, 0])
        seen[row["prediction_type"]] += 1
        if row["prediction_type"] != "epsilon":
            sigma = schedule.sigma(torch.tensor(799.0, dtype=torch.float64))
            (a, s), z = (schedule.scale_at(sigma), sigma * schedule.scale_at(sigma)), recorded("noise")[0]
            out = live.outputs[0] if row["prediction_type"] == "sample" else -live.outputs[0]
            close(got[1], a * solver_of(row).clipped(out) + s * z)
    assert seen == {"epsilon": 76, "sample": 12, "v_prediction": 12}


def test_timesteps_of_the_rows():
    for i, row in enumerate(ROWS):
        assert torch.equal(grid_of(row).timesteps(5, 1000), recorded("timesteps")[i])


@pytest.mark.parametrize("case", LENGTHS, ids=str)
def test_ddim_lengths(case):
    s, first = case.settings, case["latents"]
    total, n = s["num_train_timesteps"], s["num_inference_steps"]
    schedule = schedule_of(s["beta_schedule"], steps=total)
    grid = DiscreteGrid(timestep_spacing=s["timestep_spacing"])
    assert torch.equal(grid.timesteps(n, total), case["timesteps"])
    denoiser, solver = Live(schedule, "epsilon"), DDIM(eta=s["eta"], previous_timestep="diffusers")
    if n == 1:  # nothing but the final evaluation
        process, t = Process(denoiser, schedule, 2), torch.tensor(999.0, dtype=torch.float64)
        state, denoised = solver.init(process, first, t[None]), process.denoise(first, t)
        got = torch.stack([first, solver.final_sample(process, first, t, denoised, state, case.noise())])
    else:
        got = run(denoiser, first, solver, schedule, grid, n - 1, case.noise())
    close(*((got[-1], case["x_final"]) if "x_final" in case else (got, case["x_traj"])))


@pytest.mark.parametrize("case", TABLES, ids=str)
def test_tables(case):
    s = case.settings
    schedule = schedule_of(s["beta_schedule"], s["rescale_betas_zero_snr"])
    sigmas = schedule.sigma(torch.arange(1000, dtype=torch.float64))
    assert torch.allclose(1 / (1 + sigmas**2), case["alphas_cumprod_f64"], rtol=1e-10, atol=1e-20)
    if not s["rescale_betas_zero_snr"]:
        same = Discrete(trained_betas=tuple(case["betas_f64"].tolist()))
        assert torch.allclose(same.log_sigmas, schedule.log_sigmas, rtol=1e-10, atol=1e-12)


# --- DDPM -------------------------------------------------------------------------------------------


def ddpm_parts(name, s):
    """What the network predicts, solver, schedule and grid of a case."""
    if "sigmoid" in name:  # betas that have no name here are given as numbers
        ramp = torch.linspace(-6, 6, 1000, dtype=torch.float64).sigmoid()
        betas = tuple((ramp * (0.02 - 1e-4) + 1e-4).tolist())
        return "epsilon", DDPM(), Discrete(trained_betas=betas), DiscreteGrid()
    config = dict(s["config"])
    schedule = schedule_of(config.pop("beta_schedule", "linear"))
    kind, spacing = config.pop("prediction_type", "epsilon"), config.pop("timestep_spacing", "leading")
    config["variance"] = config.pop("variance_type", "fixed_small")
    return kind, DDPM(**config), schedule, DiscreteGrid(timestep_spacing=spacing)


@pytest.mark.parametrize("case", DDPMS, ids=str)
def test_ddpm(case):
    s, name, source = case.settings, str(case), case
    kind, solver, schedule, grid = ddpm_parts(name, s)
    if not s["finite"]:  # fixed_large_log: exp(log beta) is beta, where the library gives NaN
        assert name == "DDPMScheduler/fixed_large_log_S8"
        source = next(other for other in DDPMS if str(other) == "DDPMScheduler/fixed_large_S8")
    reference, n = source["x_traj_f64"].clone(), s["num_inference_steps"]
    assert grid.timesteps(n, 1000).tolist() == case["timesteps_f64"].tolist()
    if "trailing" in name:  # the library's variances are at least 1e-20, also where they are 0
        reference[-1] -= 1e-10 * source["noise"][-1]
    replay = Replay(source["model_out_f64"], kind)
    got = run(replay, reference[0], solver, schedule, grid, n - 1, source.noise())
    if "sigmoid" in name:
        # The library computes this schedule and all coefficients from it in float32 (the recorded float64
        # run equals the native one bit for bit).
        assert torch.allclose(got, reference, rtol=0, atol=1e-6 * max(1.0, float(reference.abs().max())))
    else:
        close(got, reference)


# --- options, one by one ----------------------------------------------------------------------------


def test_dynamic_thresholding_is_each_samples_own():
    images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images *= torch.tensor([0.1, 0.5, 1.0, 2.0, 40.0]).reshape(-1, 1, 1, 1)
    for ratio, top in ((0.995, 1.0), (0.9, 3.0), (0.5, 1e6)):
        bounds = np.quantile(np.abs(images.numpy().reshape(5, -1)), ratio, axis=1).clip(1, top)
        bounds = bounds.reshape(-1, 1, 1, 1)
        expected = np.clip(images.numpy(), -bounds, bounds) / bounds
        got = dynamic_threshold(images, ratio, top)
        assert np.allclose(got.numpy(), expected, rtol=1e-13, atol=0)
        parts = [dynamic_threshold(part, ratio, top) for part in images.split(2)]
        assert torch.equal(torch.cat(parts), got)
        assert dynamic_threshold(images.float(), ratio, top).dtype == torch.float32


@pytest.mark.parametrize("n", [2, 3, 7, 19, 50, 600, 999])
@pytest.mark.parametrize("total", [1000, 999])
def test_timesteps_are_numpys(n, total):
    """The three rules in numpy, ties and all."""
    expected = {
        "leading": (np.arange(n) * (total // n))[::-1],
        "linspace": np.linspace(0, total - 1, n).round()[::-1],
        "trailing": np.round(np.arange(total, 0, -total / n))[:n] - 1,
    }
    for spacing, timesteps in expected.items():
        got = DiscreteGrid(timestep_spacing=spacing).timesteps(n, total)
        assert got.tolist() == timesteps.tolist(), spacing


@pytest.mark.parametrize(("spacing", "same"), [("leading", True), ("linspace", False)])
def test_a_step_of_diffusers_differs_where_the_grid_is_uneven(spacing, same):
    schedule, grid = schedule_of("linear"), DiscreteGrid(timestep_spacing=spacing)
    grids, diffusers = (
        run(Live(schedule, "sample"), START, DDIM(previous_timestep=previous), schedule, grid, 9)[-1]
        for previous in ("grid", "diffusers")
    )
    assert torch.allclose(grids, diffusers, rtol=1e-12) == same
