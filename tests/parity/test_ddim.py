"""DDIM and DDPM against diffusers' schedulers: every recorded option, trajectories to 1e-10.

Recorded model outputs are replayed as denoised images. `previous_timestep=diffusers` reproduces the
library where its step is not the grid's (linspace); elsewhere the default must give the same numbers.
"""

from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

import seedsbench
from seedsbench.denoisers.prediction import denoised_of, raw_output_of
from seedsbench.diffusion.grid import DiscreteGrid
from seedsbench.diffusion.process import Process
from seedsbench.diffusion.schedule import Discrete, Linear
from seedsbench.noise import Recorded, Silent
from seedsbench.solvers.ddim import DDIM
from seedsbench.solvers.ddpm import DDPM
from seedsbench.solvers.parts.clipping import dynamic_threshold
from seedsbench.solvers.pndm import PNDM
from tests.support.golden import golden, mixture_parameters

GRID = golden("ddim_grid").cases["grid"]
ROWS = [
    dict(zip(["clipping" if "clipping" in c else c for c in GRID["columns"]], row, strict=True))
    for row in GRID["rows"]
]
BETAS, KINDS = ("linear", "scaled_linear", "squaredcos_cap_v2"), ("epsilon", "sample", "v_prediction")
LENGTHS = [name for name in golden("ddim_grid").cases if name.startswith("len_")]
TABLES = [name for name in golden("ddim_grid").cases if name.startswith("tables_")]
DDPMS = list(golden("ddpm").cases)


class Replay:
    """Hands out recorded network outputs as denoised images, whatever the state."""

    def __init__(self, outputs, kind):
        self.outputs, self.kind = iter(outputs), kind

    def __call__(self, x, sigma, labels):
        return denoised_of(self.kind, next(self.outputs), x * (1 + sigma**2).rsqrt(), sigma)


class Live:
    """The network that was recorded: the mixture's output plus 0.3 sin(3 x_t + t / 50)."""

    def __init__(self, schedule, kind):
        self.mixture = seedsbench.analytic.GaussianMixture(*mixture_parameters())
        self.schedule, self.kind, self.outputs = schedule, kind, []

    def __call__(self, x, sigma, labels):
        x_t, t = x * (1 + sigma**2).rsqrt(), self.schedule.sigma_inv(sigma)
        ripple = 0.3 * (3 * x_t + t / 50).sin()
        self.outputs.append(raw_output_of(self.kind, self.mixture(x, sigma), x_t, sigma) + ripple)
        return denoised_of(self.kind, self.outputs[-1], x_t, sigma)


@cache
def schedule_of(name, rescaled=False, steps=1000):
    return Discrete(beta_schedule=name, rescale_betas_zero_snr=rescaled, num_train_timesteps=steps)


def departure(got, reference):
    assert got.shape == reference.shape
    return float((got - reference).abs().max()) / max(1.0, float(reference.abs().max()))


def run(denoiser, first, solver, schedule, grid, steps, noise=None):
    """diffusers starts from `first` as it is, seedsbench from s sigma latents, a little less."""
    sigma = grid.levels(steps + 1, 0, 0, schedule)[0]
    return seedsbench.sample(
        denoiser,
        first / (sigma * schedule.scale_at(sigma)),
        solver=solver,
        steps=steps,
        schedule=schedule,
        grid=grid,
        noise=noise,
        return_trajectory=True,
    ).trajectory


# --- DDIM: the 1,368 rows ---------------------------------------------------------------------------


@cache
def recorded(name):
    return golden("ddim_grid").tensor("grid", name)


def solver_of(row):
    return DDIM(
        eta=row["eta"],
        clip_sample=row["clipping"] == "clip",
        thresholding=row["clipping"] == "thresholding",
        clip_sample_range=GRID["common"]["clip_sample_range"],
        sample_max_value=GRID["common"]["sample_max_value"],
        dynamic_thresholding_ratio=GRID["common"]["dynamic_thresholding_ratio"],
        set_alpha_to_one=row["set_alpha_to_one"],
        use_clipped_model_output=row["use_clipped_model_output"],
        previous_timestep="diffusers" if row["timestep_spacing"] == "linspace" else "grid",
    )


def run_row(i, row, denoiser, noise):
    grid = DiscreteGrid(timestep_spacing=row["timestep_spacing"], steps_offset=row["steps_offset"])
    schedule = schedule_of(row["beta_schedule"], row["rescale_betas_zero_snr"])
    return run(denoiser, recorded("x_traj_f64")[i, 0], solver_of(row), schedule, grid, 4, Recorded(noise))


def residue(i, row):
    """What diffusers adds to its first step by rounding, in units of the noise drawn there.

    From zero SNR with eta = 1 nothing of the noise estimate is left, but 1 - a - std^2 comes out as one
    unit of rounding, whose root is 1.5e-8 (or as minus one: NaN, rows that are not finite).
    """
    if not (row["rescale_betas_zero_snr"] and row["eta"] == 1 and row["timestep_spacing"] != "leading"):
        return torch.zeros(())
    table = golden("ddim_grid").tensor(f"tables_{row['beta_schedule']}_rescaleTrue", "alphas_cumprod_f64")
    a = table[999 - 200]
    std = (1 - a).sqrt()
    eps = recorded("model_out_f64" if row["prediction_type"] == "epsilon" else "x_traj_f64")[i, 0]
    return (1 - a - std**2).sqrt() * eps / std


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("betas", BETAS)
def test_ddim_rows(betas, kind):
    finite = 0
    rounded = Counter()
    for i, row in enumerate(ROWS):
        if (row["beta_schedule"], row["prediction_type"]) != (betas, kind) or not row["all_finite"]:
            continue
        noise, extra = recorded("noise").clone(), residue(i, row)
        noise[0] += extra
        rounded[bool(extra.any())] += 1
        got = run_row(i, row, Replay(recorded("model_out_f64")[i], kind), noise)
        assert departure(got, recorded("x_traj_f64")[i]) < 1e-10, (i, row)
        finite += 1
    expected = {"epsilon": 132, "sample": 156, "v_prediction": 156}[kind]
    assert finite == {"linear": expected, "scaled_linear": expected - 12}.get(
        betas, 128 if kind == "epsilon" else 144
    )
    assert rounded[True] == (0 if betas != "linear" else 4 if kind == "epsilon" else 12)


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
        assert departure(live.outputs[0], recorded("model_out_f64")[i, 0]) < 1e-10
        seen[row["prediction_type"]] += 1
        if row["prediction_type"] != "epsilon":
            sigma = schedule.sigma(torch.tensor(799.0, dtype=torch.float64))
            (a, s), z = (schedule.scale_at(sigma), sigma * schedule.scale_at(sigma)), recorded("noise")[0]
            out = live.outputs[0] if row["prediction_type"] == "sample" else -live.outputs[0]
            assert departure(got[1], a * solver_of(row).clipped(out) + s * z) < 1e-10
    assert seen == {"epsilon": 76, "sample": 12, "v_prediction": 12}


def test_timesteps_of_the_rows():
    for i, row in enumerate(ROWS):
        grid = DiscreteGrid(timestep_spacing=row["timestep_spacing"], steps_offset=row["steps_offset"])
        assert torch.equal(grid.timesteps(5, 1000), recorded("timesteps")[i])
    assert len(ROWS) == 1368


@pytest.mark.parametrize("name", LENGTHS)
def test_ddim_lengths(name):
    data = golden("ddim_grid")
    s = data.cases[name]
    total, n = s["num_train_timesteps"], s["num_inference_steps"]
    schedule = schedule_of(s["beta_schedule"], steps=total)
    grid = DiscreteGrid(timestep_spacing=s["timestep_spacing"])
    assert torch.equal(grid.timesteps(n, total), data.tensor(name, "timesteps"))
    denoiser, solver = Live(schedule, "epsilon"), DDIM(eta=s["eta"], previous_timestep="diffusers")
    noise = Recorded(data.tensor(name, "noise")) if data.has(name, "noise") else None
    first = data.tensor(name, "latents")
    if n == 1:  # nothing but the final evaluation
        process, t = Process(denoiser, schedule, 2), torch.tensor(999.0, dtype=torch.float64)
        state = solver.init(process, first, t[None])
        got = torch.stack([first, solver.land(process, first, t, process.denoise(first, t), state, noise)])
    else:
        got = run(denoiser, first, solver, schedule, grid, n - 1, noise)
    if data.has(name, "x_final"):
        assert departure(got[-1], data.tensor(name, "x_final")) < 1e-10
    else:
        assert departure(got, data.tensor(name, "x_traj")) < 1e-10


@pytest.mark.parametrize("name", TABLES)
def test_tables(name):
    data = golden("ddim_grid")
    s = data.cases[name]
    schedule = schedule_of(s["beta_schedule"], s["rescale_betas_zero_snr"])
    sigmas = schedule.sigma(torch.arange(1000, dtype=torch.float64))
    assert torch.allclose(
        1 / (1 + sigmas**2), data.tensor(name, "alphas_cumprod_f64"), rtol=1e-10, atol=1e-20
    )
    if not s["rescale_betas_zero_snr"]:
        betas = data.tensor(name, "betas_f64")
        same = Discrete(trained_betas=tuple(betas.tolist()))
        assert torch.allclose(same.log_sigmas, schedule.log_sigmas, rtol=1e-10, atol=1e-12)


def test_every_case_is_covered():
    assert (len(LENGTHS), len(TABLES), len(DDPMS)) == (14, 6, 11)
    assert len(golden("ddim_grid").cases) == 21


# --- DDPM -------------------------------------------------------------------------------------------


def ddpm_parts(s):
    config = dict(s["config"])
    schedule = schedule_of(config.pop("beta_schedule", "linear"))
    kind, spacing = config.pop("prediction_type", "epsilon"), config.pop("timestep_spacing", "leading")
    config["variance"] = config.pop("variance_type", "fixed_small")
    return kind, DDPM(**config), schedule, DiscreteGrid(timestep_spacing=spacing)


def sigmoid_parts():
    """Betas that have no name here are given as numbers."""
    ramp = torch.linspace(-6, 6, 1000, dtype=torch.float64).sigmoid()
    betas = tuple((ramp * (0.02 - 1e-4) + 1e-4).tolist())
    return "epsilon", DDPM(), Discrete(trained_betas=betas), DiscreteGrid()


@pytest.mark.parametrize("name", DDPMS)
def test_ddpm(name):
    data = golden("ddpm")
    s = data.cases[name]
    kind, solver, schedule, grid = sigmoid_parts() if "sigmoid" in name else ddpm_parts(s)
    source = name
    if not s["finite"]:  # fixed_large_log: exp(log beta) is beta, where the library gives NaN
        assert name == "DDPMScheduler/fixed_large_log_S8"
        source = "DDPMScheduler/fixed_large_S8"
    reference, noise = data.tensor(source, "x_traj_f64").clone(), data.tensor(source, "noise")
    n = s["num_inference_steps"]
    assert grid.timesteps(n, 1000).tolist() == data.array(name, "timesteps_f64").tolist()
    if "trailing" in name:  # the library's variances are at least 1e-20, also where they are 0
        reference[-1] -= 1e-10 * noise[-1]
    replay = Replay(data.tensor(source, "model_out_f64"), kind)
    got = run(replay, reference[0], solver, schedule, grid, n - 1, Recorded(noise))
    # The library computes its sigmoid schedule and all coefficients from it in float32 (the recorded
    # float64 run equals the native one bit for bit).
    assert departure(got, reference) < (1e-6 if "sigmoid" in name else 1e-10)


def test_ddpm_variances_are_two():
    names = ("fixed_small", "fixed_small_log", "small", "fixed_large", "fixed_large_log", "large")
    latents = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(2, 2, 1, 1)
    mixture = seedsbench.analytic.GaussianMixture(*mixture_parameters())
    x = [seedsbench.sample(mixture, latents, solver=DDPM(variance=v), steps=5).x for v in names]
    assert all(torch.equal(x[0], other) for other in x[1:3])
    assert all(torch.equal(x[3], other) for other in x[4:])
    assert not torch.equal(x[0], x[3])


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
def test_learned_variances_are_refused(variance):
    with pytest.raises(ValueError, match=f"variance={variance} needs a denoiser that predicts a variance"):
        seedsbench.solver("ddpm", variance=variance)


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


def test_thresholding_at_one_is_clipping_to_one():
    images = torch.linspace(-3, 3, 24, dtype=torch.float64).reshape(2, 3, 2, 2)
    assert torch.equal(DDIM(thresholding=True).clipped(images), DDIM(clip_sample=True).clipped(images))


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


def test_a_step_of_diffusers_differs_where_the_grid_is_uneven():
    schedule = schedule_of("linear")
    first = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(2, 2, 1, 1)
    for spacing, same in (("leading", True), ("linspace", False)):
        grid = DiscreteGrid(timestep_spacing=spacing)
        grids, diffusers = (
            run(
                Live(schedule, "sample"),
                first,
                DDIM(previous_timestep=previous),
                schedule,
                grid,
                9,
            )[-1]
            for previous in ("grid", "diffusers")
        )
        assert torch.allclose(grids, diffusers, rtol=1e-12) == same


def test_zero_snr_starts_from_pure_noise():
    """Whatever the floor, v prediction gives the samples of the limit, and no solver becomes infinite."""
    first = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(2, 2, 1, 1)
    ends = []
    for floor in (1e-30, 1e-32):
        schedule = Discrete(rescale_betas_zero_snr=True, terminal_alpha_cumprod=floor)
        grid = DiscreteGrid(timestep_spacing="trailing")
        ends.append(run(Live(schedule, "v_prediction"), first, DDIM(), schedule, grid, 7)[-1])
        noise = Silent(first.shape)
        for solver in ("heun", "seeds3", "dpmpp_2m", "ddpm", "euler_maruyama"):
            seedsbench.sample(
                Live(schedule, "v_prediction"),
                first,
                solver=solver,
                steps=7,
                schedule=schedule,
                grid=grid,
                noise=noise,
            )
    assert departure(ends[0], ends[1]) < 1e-10


def test_without_alpha_of_one_the_last_step_lands_on_the_table():
    """The same as one more step of the grid, to the table's first level, and staying there."""
    schedule, grid = schedule_of("linear"), DiscreteGrid(timestep_spacing="trailing")
    first = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(2, 2, 1, 1)
    levels = grid.levels(6, 0, 0, schedule)
    landed, stopped = (
        seedsbench.sample(
            Live(schedule, "sample"),
            first,
            solver=DDIM(eta=0.5, set_alpha_to_one=final == "stop"),
            sigmas=sigmas,
            schedule=schedule,
            final=final,
        ).x
        for sigmas, final in (
            (levels, "denoise"),
            (torch.cat([levels, schedule.log_sigmas[:1].exp()]), "stop"),
        )
    )
    assert departure(landed, stopped) < 1e-12


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 1.5}, r"eta=1\.5 must lie in \[0, 1\]"),
        ({"clip_sample": True, "thresholding": True}, "only one can act"),
        ({"sample_max_value": 0.5}, r"sample_max_value=0\.5 must lie in \[1, inf\)"),
        ({"dynamic_thresholding_ratio": 2.0}, "dynamic_thresholding_ratio=2.0"),
        ({"clip_sample_range": 0.0}, "clip_sample_range=0.0"),
        ({"previous_timestep": "leading"}, "must be one of grid, diffusers"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        seedsbench.solver("ddim", **options)


class Never:
    """A denoiser that must not be called."""

    def __call__(self, x, sigma, labels):
        raise AssertionError("evaluated")


@pytest.mark.parametrize("options", [{"previous_timestep": "diffusers"}, {"set_alpha_to_one": False}])
@pytest.mark.parametrize("kind", [DDIM, PNDM])
def test_options_of_a_table_need_one(kind, options):
    with pytest.raises(ValueError, match="use schedule=discrete"):
        seedsbench.sample(
            Never(), torch.zeros(1, 2, 1, 1), solver=kind(**options), steps=3, schedule=Linear()
        )
    with pytest.raises(ValueError, match="would never move"):
        seedsbench.sample(
            Never(),
            torch.zeros(1, 2, 1, 1),
            solver=kind(previous_timestep="diffusers"),
            steps=20,
            schedule=Discrete(num_train_timesteps=10),
        )


def test_timesteps_off_the_table_are_refused():
    schedule = schedule_of("linear")
    with pytest.raises(ValueError, match=r"steps_offset=1 with 1000 levels .* use steps_offset=0 or less"):
        DiscreteGrid(steps_offset=1).levels(1000, 0, 0, schedule)
    assert len(DiscreteGrid(steps_offset=1).levels(999, 0, 0, schedule)) == 999
    with pytest.raises(ValueError, match="set steps_offset=0 with timestep_spacing=trailing"):
        DiscreteGrid(steps_offset=1, timestep_spacing="trailing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trained_betas": [0.1, 0.2]}, "set num_train_timesteps=2"),
        (
            {"trained_betas": [0.1, 1.2], "num_train_timesteps": 2},
            r"trained_betas\[1\]=1.2 must lie in \[1e-10, 1\]",
        ),
        ({"trained_betas": ["a", "b"], "num_train_timesteps": 2}, r"trained_betas\[0\]='a' must be a number"),
        ({"terminal_alpha_cumprod": 0.0}, "terminal_alpha_cumprod"),
    ],
)
def test_wrong_tables_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        seedsbench.sample(
            Never(), torch.zeros(1, 2, 1, 1), solver="ddim", steps=1, schedule={"name": "discrete", **options}
        )
