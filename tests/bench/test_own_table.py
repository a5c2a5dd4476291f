"""What schedule=discrete and grid=discrete leave to the network: its own table, its scheduler's timesteps."""

import logging

import pytest
import torch

import seedsbench
from seedsbench.api import noise_levels
from seedsbench.bench.problems.checkpoint import checkpoint_problem
from seedsbench.bench.sampling import generate, plan_of
from seedsbench.denoisers.base import FixedBatch
from seedsbench.denoisers.embedded import load_glyphs
from seedsbench.denoisers.preconditioning.discrete import DiscreteNoisePrediction
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, EDMPreconditioner, Preconditioned
from seedsbench.denoisers.preconditioning.score_sde import ScoreVE
from seedsbench.denoisers.prediction import Guided, Predicted
from seedsbench.diffusion.grid import DiscreteGrid
from seedsbench.diffusion.schedule import Discrete, make_betas
from seedsbench.noise import latents
from tests.support.cells import compose, run
from tests.support.pipelines import write_pipeline

COSINE = Discrete(beta_schedule="squaredcos_cap_v2", num_train_timesteps=200)
SHAPE = {"img_channels": 1, "img_resolution": 2}


def network(schedule=COSINE):
    return Predicted(lambda x, t, labels: torch.tanh(x + t / 100), "epsilon", schedule, **SHAPE)


@pytest.mark.parametrize("scheduler", [{}, {"timestep_spacing": "trailing"}, {"steps_offset": 1}], ids=str)
def test_a_folder_is_sampled_at_its_schedulers_timesteps_with_nothing_repeated(tmp_path, scheduler):
    path = str(tmp_path / "net")
    told = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 200, "clip_sample": False}
    ddim = write_pipeline(path, **told | scheduler).scheduler
    ddim.set_timesteps(10)
    levels = COSINE.log_sigmas.exp()[ddim.timesteps.clone()]
    given = {"schedule": "discrete", "grid": "discrete", "solver": "ddim", "nfe": 10}
    words = [f"{key}={value}" for key, value in given.items()]
    cfg = compose("model=diffusers_pipeline", f"model.path={path}", *words, "samples=2")
    model = checkpoint_problem("edm", "diffusers_pipeline", path=path, format="diffusers")
    plan = plan_of(cfg, model)
    assert plan.warnings == ()
    assert torch.allclose(plan.sigmas, levels, rtol=1e-9)
    start = latents(torch.arange(2), (3, 8, 8), seed=0)
    drawn = seedsbench.sample(seedsbench.load_denoiser(path), start, **given)
    assert torch.equal(drawn.sigmas, plan.sigmas)
    (batch,) = generate(model.denoiser, plan, torch.arange(2), batch_size=2)
    assert (batch.x - drawn.x).abs().max() < 1e-5 * drawn.x.abs().max()


def test_the_row_says_which_table_was_used_and_that_a_given_one_differs(tmp_path, caplog):
    overrides = ("model=glyphs", "regime=iddpm", "schedule=discrete", "grid=discrete", "samples=8")
    row = run(tmp_path, *overrides)
    assert (row["status"], row["warning"]) == ("done", None)
    assert (row["schedule_params"]["num_train_timesteps"], row["grid_params"]["steps_offset"]) == (1000, 0)
    assert len(row["schedule_params"]["trained_betas"]) == 1000
    with caplog.at_level(logging.WARNING):
        row = run(tmp_path, *overrides, "schedule.num_train_timesteps=500")
    assert row["warning"].startswith("schedule=discrete was given 500 levels from 0.01 to ")
    assert row["warning"].endswith(
        "the network was trained at 1000 levels from 0.006422 to 2.029e+04: its own are the default"
    )
    assert row["warning"] in caplog.messages
    assert row["schedule_params"]["beta_schedule"] == "linear"


def test_without_a_table_of_its_own_a_network_gets_ddpms(tmp_path):
    row = run(tmp_path, "schedule=discrete", "grid=discrete")
    known = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    assert row["status"] == "done"
    assert known.items() <= row["schedule_params"].items()
    assert not row["schedule_params"]["rescale_betas_zero_snr"]


def test_sample_says_that_a_given_table_differs(caplog):
    z = torch.randn(1, 1, 2, 2)
    seedsbench.sample(network(), z, solver="ddim", steps=3, schedule="discrete", grid="discrete")
    assert not caplog.messages
    given = {"name": "discrete", "beta_schedule": "linear"}
    seedsbench.sample(network(), z, solver="ddim", steps=3, schedule=given, grid="discrete")
    assert "schedule=discrete was given 1000 levels" in caplog.text


NETWORKS = {
    "predicted": network,
    "in fixed batches": lambda: FixedBatch(network(), 2),
    "guided": lambda: Guided(network(), 2.0),
    "ddim and guided files": lambda: Preconditioned(
        torch.nn.Identity(), DiscreteNoisePrediction(COSINE, kept=(0, 99)), **SHAPE
    ),
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_every_network_of_a_table_brings_it(build):
    assert build().table == COSINE


def test_a_kept_index_is_what_the_levels_are_rounded_to():
    kept = Preconditioned(torch.nn.Identity(), DiscreteNoisePrediction(COSINE, kept=(0, 99)), **SHAPE)
    sigmas, schedule = noise_levels(kept, Discrete(), DiscreteGrid(), 3)
    assert schedule.num_train_timesteps == 200
    assert torch.equal(sigmas, COSINE.log_sigmas.exp()[[99, 0]])


def test_tables_that_have_no_name_are_rebuilt_from_their_levels():
    iddpm = load_glyphs("iddpm").table
    assert iddpm is not None
    wanted = PRECONDITIONERS["iddpm"].table("cpu")[:-1].flip(0).double()
    assert torch.allclose(iddpm.log_sigmas.exp(), wanted, rtol=1e-9)
    exploding = ScoreVE(0.02, 100.0, levels=30)
    assert torch.allclose(exploding.trained_at.log_sigmas.exp(), exploding.table.on(wanted.device), rtol=1e-9)
    assert ScoreVE(0.02, 100.0).trained_at is None
    assert EDMPreconditioner().trained_at is None


def test_one_option_given_means_the_table_is_given():
    assert Discrete(scaling="none").of_network(COSINE) == Discrete(
        scaling="none", beta_schedule="squaredcos_cap_v2", num_train_timesteps=200
    )
    for given in (Discrete(beta_schedule="linear"), Discrete(num_train_timesteps=7)):
        assert given.of_network(COSINE) is given
    trailing = DiscreteGrid(timestep_spacing="trailing")
    assert DiscreteGrid().of_network(trailing) is trailing
    assert DiscreteGrid(steps_offset=1).of_network(trailing).timestep_spacing == "leading"


def test_betas_of_the_ddim_authors():
    make = {name: make_betas(name, 5, 0.1, 0.5).tolist() for name in ("sigmoid", "const", "jsd")}
    assert make["jsd"] == [1 / 5, 1 / 4, 1 / 3, 1 / 2, 1.0]
    assert make["const"] == [0.5] * 5
    curve = [1 / (1 + 2.718281828459045**-x) for x in (-6, -3, 0, 3, 6)]
    assert make["sigmoid"] == pytest.approx([0.1 + 0.4 * y for y in curve], rel=1e-12)
    last = Discrete(beta_schedule="jsd", num_train_timesteps=5)
    alphas = 1 / (1 + (2 * last.log_sigmas).exp())
    assert alphas[:-1].tolist() == pytest.approx([4 / 5, 3 / 5, 2 / 5, 1 / 5])
    assert alphas[-1] < 1e-20
