"""The contract of a diffusers scheduler, for SEEDSScheduler and for every solver of conf/solver."""

import json

import numpy as np
import pytest
import torch

import seedsbench
from seedsbench.diffusion.schedule import Discrete
from seedsbench.noise import Recorded

diffusers = pytest.importorskip("diffusers", reason="the extra seedsbench[diffusers] is not installed")
bridge = pytest.importorskip("seedsbench.integrations.diffusers")

OLD = tuple(map(int, diffusers.__version__.split(".")[:2])) < (0, 37)
ADAPTIVE = [name for name in seedsbench.solver_names() if seedsbench.solver(name).adaptive]
FIXED = [name for name in seedsbench.solver_names() if name not in ADAPTIVE]
QUICK = {"seeds3", "heun", "dpmpp_2m", "unipc", "karras_sde", "pndm"}
# They begin with other evaluations than they go on with, and so cannot begin in the middle.
NOT_FROM_THE_MIDDLE = {"pndm", "seeds_multistep"}
STAGES = ["SEEDS-1", "SEEDS-2", "SEEDS-3"]
SLOW = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FIXED]
OTHERS = ("DDIM", "DPMSolverMultistep", "EulerDiscrete", "PNDM", "UniPCMultistep")
SAMPLE = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4).sin()


def network(x, t):
    """Stands for a network's output, float32: it depends on the sample and smoothly on the timestep."""
    return (0.8 * torch.tanh(x.double()) + 0.1 * torch.sin(x.double() + float(t) / 300)).to(x.dtype)


def run(scheduler, x=SAMPLE, *, begin=0, **options):
    """The finished sample, from timesteps[begin] on."""
    for t in scheduler.timesteps[begin:]:
        x = scheduler.step(network(x, t), t, x, **options).prev_sample
    return x


def test_there_are_enough_solvers_and_adaptive_ones_are_refused_with_the_reason():
    assert len(FIXED) >= 30
    assert ADAPTIVE == ["adaptive_sde", "dopri5", "dpm_adaptive", "rk45"]
    for name in ADAPTIVE:
        with pytest.raises(ValueError, match=r"chooses its steps by the image at hand.*: use a solver with"):
            bridge.SolverScheduler(solver=name)


@pytest.mark.parametrize("name", [*STAGES, *SLOW])
class TestContract:
    @pytest.fixture
    def make(self, name):
        def made(**options):
            if name in STAGES:
                return bridge.SEEDSScheduler(stages=int(name[-1]), **options)
            return bridge.SolverScheduler(solver=name, **options)

        return made

    @pytest.fixture
    def solver(self, name):
        return seedsbench.solver(name.replace("SEEDS-", "seeds"))

    def test_timesteps_sigmas_and_order(self, make, solver):
        scheduler = make()
        scheduler.set_timesteps(6)
        assert len(scheduler.timesteps) == solver.total_nfe(5) == len(scheduler.sigmas) - 1
        assert scheduler.sigmas[-1] == 0
        assert (scheduler.timesteps >= 0).all()
        assert (scheduler.timesteps <= 999).all()
        sigmas = scheduler.sigmas[:-1]
        there = Discrete().sigma(scheduler.timesteps.double()).float()
        torch.testing.assert_close(there, sigmas, rtol=1e-3, atol=1e-6)
        assert abs(scheduler.init_noise_sigma - float(sigmas[0] / (1 + sigmas[0] ** 2).sqrt())) < 1e-6
        assert scheduler.order in (1, solver.nfe(1))
        assert scheduler.order == solver.nfe(1) or solver.nfe(8) != 8 * solver.nfe(1)

    def test_a_run_ends_in_an_image_and_another_gives_the_same(self, make):
        scheduler = make()
        with pytest.raises(ValueError, match="call set_timesteps"):
            scheduler.step(SAMPLE, 1, SAMPLE)
        scheduler.set_timesteps(5)
        first = run(scheduler)
        assert first.isfinite().all()
        assert first.dtype == SAMPLE.dtype
        with pytest.raises(ValueError, match="the run is over"):
            scheduler.step(SAMPLE, scheduler.timesteps[-1], SAMPLE)
        scheduler.set_timesteps(5)
        assert torch.equal(run(scheduler), first)
        scheduler.set_timesteps(5)
        scheduler.step(SAMPLE, scheduler.timesteps[0], SAMPLE)
        scheduler.set_timesteps(5)  # resets what a run has begun
        assert scheduler.step_index is None
        assert torch.equal(run(scheduler), first)

    def test_a_tuple_is_the_dataclass(self, make):
        results = []
        for return_dict in (True, False):
            scheduler = make()
            scheduler.set_timesteps(5)
            t = scheduler.timesteps[0]
            results.append(scheduler.step(network(SAMPLE, t), t, SAMPLE, return_dict=return_dict))
        assert torch.equal(results[0].prev_sample, results[1][0])
        assert torch.equal(results[0].pred_original_sample, results[1][1])
        sigma = scheduler.sigmas[0]
        expected = SAMPLE * (1 + sigma**2).sqrt() - sigma * network(SAMPLE, t)
        torch.testing.assert_close(results[1][1], expected, rtol=1e-4, atol=1e-4)

    def test_round_trip_through_a_folder(self, make, tmp_path):
        scheduler = make(beta_end=0.015, seed=3)
        scheduler.save_pretrained(tmp_path)
        again = type(scheduler).from_pretrained(tmp_path)
        assert (
            json.loads((tmp_path / "scheduler_config.json").read_text())["_class_name"]
            == type(again).__name__
        )
        for each in (scheduler, again):
            each.set_timesteps(4)
        torch.testing.assert_close(run(again), run(scheduler), rtol=0, atol=1e-5)

    def test_loads_from_others_and_back(self, make):
        for other in OTHERS:
            kind = getattr(diffusers, f"{other}Scheduler")
            there = kind.from_config(make(beta_end=0.013, prediction_type="v_prediction").config)
            assert (there.config.beta_end, there.config.prediction_type) == (0.013, "v_prediction")
            here = type(make()).from_config(there.config)
            assert (here.config.beta_end, here.config.prediction_type) == (0.013, "v_prediction")
            assert here.config.beta_start == 0.0001
            assert kind in here.compatibles

    def test_the_same_image_in_any_batch(self, make):
        batch = SAMPLE[:1].repeat(5, 1, 1, 1)
        results = {}
        for size in (1, 2, 5):
            scheduler = make()
            for kind in ("one", "each"):
                scheduler.set_timesteps(4)
                seeds = [torch.Generator().manual_seed(i) for i in range(size)]
                x = run(scheduler, batch[:size], generator=seeds[0] if kind == "one" else seeds)
                assert torch.equal(results.setdefault(kind, x)[0], x[0])

    def test_image_to_image_begins_in_the_middle(self, make, name):
        scheduler = make()
        scheduler.set_timesteps(6)
        begin = 2 * scheduler.order
        scheduler.set_begin_index(begin)
        x = scheduler.add_noise(SAMPLE, SAMPLE.flip(0), scheduler.timesteps[begin : begin + 1])
        if name in NOT_FROM_THE_MIDDLE:
            with pytest.raises(ValueError, match=r"cannot begin in the middle: begin at timesteps\[0\]"):
                run(scheduler, x, begin=begin)
            return
        result = run(scheduler, x, begin=begin)
        assert result.isfinite().all()
        scheduler.set_timesteps(6)  # the timestep itself says where, too
        assert torch.equal(run(scheduler, x, begin=begin), result)

    def test_prediction_types_agree(self, make):
        """One network, told in four ways, is one denoiser."""
        results = []
        for kind in ("epsilon", "sample", "v_prediction"):
            scheduler, x = make(prediction_type=kind), SAMPLE.double()
            scheduler.set_timesteps(4)
            for t, sigma in zip(scheduler.timesteps, scheduler.sigmas.double(), strict=False):
                a, image = (1 + sigma**2).rsqrt(), 0.5 * torch.tanh(x)
                eps = (x - a * image) / (a * sigma)
                output = {"epsilon": eps, "sample": image, "v_prediction": a * eps - a * sigma * image}[kind]
                x = scheduler.step(output, t, x).prev_sample
            results.append(x)
        for result in results[1:]:
            torch.testing.assert_close(result, results[0], rtol=2e-4, atol=2e-4)


# --- what does not depend on the solver -------------------------------------------------------------------


@pytest.fixture
def scheduler():
    return bridge.SEEDSScheduler()


def test_scale_model_input_is_the_sample_at_any_timestep(scheduler):
    for t in (0.0, 3, torch.tensor(5), torch.tensor([7.5])):
        assert scheduler.scale_model_input(SAMPLE, t) is SAMPLE


@pytest.mark.parametrize("options", [{}, {"prediction_type": "flow_prediction"}], ids=["table", "flow"])
def test_add_noise(options):
    scheduler, noise = bridge.SEEDSScheduler(**options), SAMPLE.flip(0)
    for t in (torch.tensor([400]), torch.tensor([400, 20]), torch.tensor([20.5])):
        if options:
            a, s = 1 - t / 1000, t / 1000
        else:
            sigma = Discrete().sigma(t.double())
            a, s = (1 + sigma**2).rsqrt(), sigma * (1 + sigma**2).rsqrt()
        a, s = (v.reshape(-1, 1, 1, 1).float() for v in (a, s))
        torch.testing.assert_close(scheduler.add_noise(SAMPLE, noise, t), a * SAMPLE + s * noise)
    assert scheduler.add_noise(SAMPLE.half(), noise.half(), t).dtype == torch.half
    with pytest.raises(ValueError, match=r"expected \(1,\) or \(2,\)"):
        scheduler.add_noise(SAMPLE, noise, torch.tensor([1, 2, 3]))


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("n", [1, 2, 7, 10])
@pytest.mark.parametrize("total", [10, 100, 1100])
def test_timesteps_of_a_table_are_ddims(spacing, n, total):
    offset = int(spacing == "leading" and n < 10)
    given = {"num_train_timesteps": total, "timestep_spacing": spacing, "steps_offset": offset}
    theirs = diffusers.DDIMScheduler(**given)
    ours = bridge.SolverScheduler.from_config(theirs.config, solver="ddim")
    for each in (ours, theirs):
        each.set_timesteps(n)
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()
    assert ours.timesteps.dtype == torch.int64
    assert run(ours).isfinite().all()


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2", "trained"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_is_theirs(betas, spacing):
    """Where their step is the grid's: float32 tables beside float64 ones."""
    given = {"timestep_spacing": spacing, "prediction_type": "v_prediction", "clip_sample": False}
    given |= (
        {"trained_betas": np.linspace(1e-4, 0.01, 1000).tolist()}
        if betas == "trained"
        else {"beta_schedule": betas}
    )
    theirs = diffusers.DDIMScheduler(**given, rescale_betas_zero_snr=spacing == "trailing")
    ours = bridge.SolverScheduler.from_config(theirs.config, solver="ddim")
    for each in (ours, theirs):
        each.set_timesteps(10)
    torch.testing.assert_close(run(ours), run(theirs), rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spread", ["karras", "exponential", "beta"])
def test_sigmas_are_spread_as_eulers(spread):
    given = {f"use_{spread}_sigmas": True, "timestep_spacing": "leading", "beta_schedule": "scaled_linear"}
    theirs = diffusers.EulerDiscreteScheduler(**given)
    ours = bridge.SolverScheduler.from_config(theirs.config, solver="dpmpp_2m")
    for each in (ours, theirs):
        each.set_timesteps(9)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=2e-4, atol=1e-5)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps, rtol=0, atol=0.05)
    assert run(ours).isfinite().all()
    with pytest.raises(ValueError, match="only one of use_karras_sigmas"):
        bridge.SEEDSScheduler(use_karras_sigmas=True, use_beta_sigmas=True)


def test_given_timesteps_and_sigmas(scheduler):
    scheduler.set_timesteps(timesteps=[999, 500, 250, 0])
    assert scheduler.timesteps[::2].tolist() == [999, 500, 250, 0]
    scheduler.set_timesteps(sigmas=[14.6, 3.0, 0.5, 0.0])  # as published lists end
    assert len(scheduler.timesteps) == 5
    torch.testing.assert_close(scheduler.sigmas[:-1:2], torch.tensor([14.6, 3.0, 0.5]))
    assert run(scheduler).isfinite().all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "num_inference_steps=None must be an integer from 1"),
        ({"num_inference_steps": 0}, "num_inference_steps=0 must be"),
        ({"timesteps": [5, 1], "sigmas": [2.0, 1.0]}, "give timesteps or sigmas, not both"),
        ({"timesteps": [1, 5]}, "timesteps: noise levels must decrease"),
        ({"sigmas": [1.0, -1.0]}, "sigmas: noise levels must be finite and positive"),
        ({"sigmas": [[1.0]]}, "expected a list of numbers"),
        ({"num_inference_steps": 3, "timesteps": [5, 1]}, "num_inference_steps=3 with 2 timesteps"),
        ({"num_inference_steps": 2000}, "2000 levels do not fit num_train_timesteps=1000"),
    ],
)
def test_bad_timesteps_are_errors(scheduler, given, said):
    with pytest.raises(ValueError, match=said):
        scheduler.set_timesteps(**given)


def test_flow_levels_are_theirs():
    for options in ({"shift": 3.0}, {"use_dynamic_shifting": True}, {"shift": 2.0, "shift_terminal": 0.1}):
        theirs = diffusers.FlowMatchEulerDiscreteScheduler(**options)
        ours = bridge.SolverScheduler.from_config(theirs.config, solver="euler")
        mu = {"mu": 0.8} if "use_dynamic_shifting" in options else {}
        for each in (ours, theirs):
            each.set_timesteps(7, **mu)
        torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=0, atol=3e-4)
        torch.testing.assert_close(ours.timesteps, theirs.timesteps, rtol=0, atol=1e-2)
        torch.testing.assert_close(run(ours), run(theirs), rtol=0, atol=2e-3)
        again = diffusers.FlowMatchEulerDiscreteScheduler.from_config(ours.config)
        assert again.config.shift == theirs.config.shift
    with pytest.raises(ValueError, match=r"needs set_timesteps\(mu=...\)"):
        bridge.SEEDSScheduler(prediction_type="flow_prediction", use_dynamic_shifting=True).set_timesteps(3)


@pytest.mark.skipif(OLD, reason="diffusers before 0.37 spread these levels otherwise")
def test_flow_sigmas_of_multistep_schedulers_are_theirs():
    options = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    theirs = diffusers.UniPCMultistepScheduler(**options)
    ours = bridge.SEEDSScheduler.from_config(theirs.config, stages=1)
    for each in (ours, theirs):
        each.set_timesteps(7)
    torch.testing.assert_close(ours.sigmas[:7], theirs.sigmas[:7], rtol=0, atol=3e-4)
    assert run(ours).isfinite().all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("solver", ["ddim", "seeds3", "heun"])
def test_a_table_that_ends_without_signal(prediction, solver):
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": prediction}
    scheduler = bridge.SolverScheduler(solver=solver, **options)
    scheduler.set_timesteps(6)
    assert scheduler.timesteps[0] == 999
    assert run(scheduler).isfinite().all()


def test_defaults_of_another_are_dropped_and_what_it_overrides_is_kept():
    other = diffusers.DPMSolverMultistepScheduler(beta_start=0.002, solver_order=3)
    ours = bridge.SEEDSScheduler.from_config(other.config, eta=0.3)
    assert (ours.config.beta_start, ours.config.beta_end, ours.config.eta) == (0.002, 0.02, 0.3)
    assert (ours.config.timestep_spacing, other.config.timestep_spacing) == ("leading", "linspace")
    back = diffusers.DPMSolverMultistepScheduler.from_config(ours.config)
    assert (back.config.solver_order, back.config.timestep_spacing) == (3, "linspace")


def test_a_changed_sample_counts_where_it_was_changed():
    """As inpainting does: half of the sample is put back to a known one before every evaluation."""
    scheduler = bridge.SolverScheduler(solver="ddim")
    scheduler.set_timesteps(5)
    x, theirs = SAMPLE, SAMPLE.double()
    mask = torch.arange(4) < 2
    for i, t in enumerate(scheduler.timesteps):
        x = torch.where(mask, SAMPLE * 0.1, x)
        theirs = torch.where(mask, SAMPLE * 0.1, theirs)
        sigma, after = scheduler.sigmas[i : i + 2].double()
        unscaled, eps = theirs * (1 + sigma**2).sqrt(), network(x, t).double()
        theirs = (unscaled + (after - sigma) * eps) * (1 + after**2).rsqrt()
        x = scheduler.step(network(x, t), t, x).prev_sample
    torch.testing.assert_close(x.double(), theirs, rtol=1e-5, atol=1e-5)


def test_writing_to_what_was_returned_counts_and_changes_nothing_else():
    scheduler = bridge.SolverScheduler(solver="ddim")
    results = []
    for in_place in (True, False):
        scheduler.set_timesteps(4)
        x = SAMPLE
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t), t, x).prev_sample
            if in_place:
                x[:, :, :2] = 0.25
            else:
                x = torch.where((torch.arange(4) < 2)[:, None], 0.25, x)
        results.append(x)
    assert torch.equal(*results)


def test_noise_is_the_generators_seed_and_the_images_place(scheduler):
    def made(**options):
        scheduler.set_timesteps(4)
        return run(scheduler, **options)

    seeded = torch.Generator().manual_seed(7)
    assert torch.equal(made(generator=seeded), made(generator=seeded))  # nothing is drawn from it
    assert not torch.equal(made(generator=seeded), made())
    assert torch.equal(made(), made(generator=torch.Generator().manual_seed(0)))
    assert torch.equal(
        made(noise=Recorded(torch.zeros(99, *SAMPLE.shape))), made(noise=Recorded(torch.zeros(99, 1)))
    )
    with pytest.raises(ValueError, match="3 generators for a batch of 2"):
        made(generator=[seeded] * 3)


def test_wrong_calls_say_what_would_work(scheduler):
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match=r"timestep=3 is none of this run"):
        scheduler.step(SAMPLE, 3, SAMPLE)
    with pytest.raises(ValueError, match=r"eta=0.5 in the call is DDIM's: set the solver's own options"):
        scheduler.step(SAMPLE, scheduler.timesteps[0], SAMPLE, eta=0.5)
    scheduler.step(SAMPLE, scheduler.timesteps[0], SAMPLE)
    with pytest.raises(ValueError, match=r"sample has shape \(1, 3, 4, 4\), the run \(2, 3, 4, 4\)"):
        scheduler.step(SAMPLE, scheduler.timesteps[1], SAMPLE[:1])
    scheduler.set_timesteps(4)
    scheduler.set_begin_index(99)
    with pytest.raises(ValueError, match=r"begin_index=99 must lie in \[0, 7\)"):
        scheduler.step(SAMPLE, scheduler.timesteps[0], SAMPLE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"solver": "uni_pc"}, "unknown solver 'uni_pc'.*unipc"),
        ({"solver": "seeds2", "solver_options": {"c3": 0.5}}, "unknown option 'c3'"),
        ({"prediction_type": "noise"}, "prediction_type='noise' must be one of"),
        ({"beta_schedule": "cosine"}, "beta_schedule"),
        ({"timestep_spacing": "even"}, "timestep_spacing"),
        ({"prediction_type": "v_prediction", "use_flow_sigmas": True}, "use flow_prediction"),
    ],
)
def test_bad_options_are_errors(options, said):
    with pytest.raises(ValueError, match=said):
        bridge.SolverScheduler(**options)


def test_a_run_may_begin_in_the_middle_of_a_step():
    scheduler = bridge.SEEDSScheduler(stages=3, eta=0.0)
    scheduler.set_timesteps(6)
    for begin in range(len(scheduler.timesteps)):
        scheduler.set_timesteps(6)
        assert run(scheduler, begin=begin).isfinite().all()


def test_a_learnt_variance_is_left_aside(scheduler):
    results = []
    for extra in (False, True):
        scheduler.set_timesteps(4)
        t = scheduler.timesteps[0]
        output = network(SAMPLE, t)
        given = torch.cat([output, output * 9], 1) if extra else output
        results.append(scheduler.step(given, t, SAMPLE).prev_sample)
    assert torch.equal(*results)
