"""How a cell's network runs: low precision, compiled, in batches that fit; and what that changes."""

import gc
import math
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn

from seedsbench import registry
from seedsbench.api import noise_levels, solver
from seedsbench.bench import batching, precision
from seedsbench.bench.batching import BatchSize, fastest
from seedsbench.bench.cell import check_config
from seedsbench.bench.precision import Compiled, Lowered, variant
from seedsbench.bench.problems.base import glyphs_problem
from seedsbench.bench.rows.run_key import scientific
from seedsbench.bench.rows.store import run_key
from seedsbench.bench.run import problem_of
from seedsbench.bench.sampling import SamplingPlan, generate
from seedsbench.denoisers.base import Denoiser, FixedBatch
from seedsbench.denoisers.networks.dhariwal_unet import DhariwalUNet, DhariwalUNetConfig
from seedsbench.denoisers.networks.glyph_unet import GLYPH_UNETS, GlyphUNet
from seedsbench.denoisers.networks.song_unet import SongUNet, SongUNetConfig
from seedsbench.denoisers.preconditioning import karras as precond
from seedsbench.denoisers.preconditioning.denoiser import Preconditioned
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS
from seedsbench.denoisers.prediction import Guided
from seedsbench.diffusion.noise import Philox
from tests.support.cells import compose, run, same

GLYPHS = ("model=glyphs", "nfe=4", "samples=20", "metrics.floor_sets=1")


def draw(*shape, seed=0):
    return Philox(torch.arange(shape[0]), shape[1:], seed=seed).normal()


def key_of(*overrides):
    cfg = compose(*overrides)
    return run_key(scientific(cfg, problem_of(cfg, "cpu"), cfg.seed))


def plan_for(denoiser, name="seeds3", nfe=6, **options):
    schedule = registry.build(registry.configured("schedule", "linear"))
    grid = registry.build(registry.configured("grid", "edm"))
    method = solver(name)
    sigmas, fitted = noise_levels(denoiser, schedule, grid, method.steps_for(nfe))
    return SamplingPlan(method, fitted, sigmas, **options)


def samples(denoiser, plan, n=24, batch_size=8):
    return torch.cat([batch.x for batch in generate(denoiser, plan, torch.arange(n), batch_size=batch_size)])


# --- keys and rows --------------------------------------------------------------------------------


def test_what_changes_the_networks_arithmetic_is_in_the_key_and_its_defaults_are_not():
    keys = [key_of(), key_of("precision=bf16"), key_of("precision=tf32"), key_of("compile=true")]
    keys += [key_of("precision=bf16", "compile=true")]
    assert len(set(keys)) == len(keys)
    assert key_of("precision=fp32", "compile=false", "batch_size=auto") == keys[0]
    cfg = compose()
    assert not {"precision", "compile"} & scientific(cfg, problem_of(cfg, "cpu"), 0).keys()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_row_in_bf16_says_so_and_lies_near_the_row_in_fp32(tmp_path, dtype):
    plain = run(tmp_path, *GLYPHS, f"dtype={dtype}")
    row = run(tmp_path, *GLYPHS, f"dtype={dtype}", "precision=bf16")
    assert row["status"] == plain["status"] == "done", row["reason"]
    assert (plain["network_precision"], row["network_precision"]) == ("fp32", "bf16")
    assert row["fid"] != plain["fid"]
    assert row["fid"] == pytest.approx(plain["fid"], rel=0.1)
    assert row["fid_floor"] == plain["fid_floor"]  # real images, and the extractor, know nothing of it


@pytest.mark.parametrize("given", ["precision=bf16", "precision=tf32", "compile=true"])
def test_an_exact_denoiser_refuses_and_says_what_would_work(tmp_path, monkeypatch, given):
    monkeypatch.setattr(precision, "_check_device", lambda *_: None)
    row = run(tmp_path, given)
    expected = "GaussianMixture has no network to run another way: use precision=fp32 and compile=false"
    assert (row["status"], row["reason"]) == ("failed", expected)


@pytest.mark.parametrize("given", ["tf32", "fp16"])
def test_the_cpu_refuses_what_only_cuda_has(tmp_path, given):
    row = run(tmp_path, *GLYPHS, f"precision={given}")
    assert row["status"] == "failed"
    assert row["reason"] == f"precision={given} needs device=cuda: on cpu use fp32 or bf16"


@pytest.mark.parametrize(("capability", "refused"), [((7, 5), True), ((8, 0), False), ((9, 0), False)])
def test_older_gpus_refuse_formats_they_do_not_have(monkeypatch, capability, refused):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for kind in ("tf32", "bf16"):
        if refused:
            with pytest.raises(ValueError, match=rf"precision={kind} needs .* 7\.5: use fp32 or fp16"):
                precision._check_device(kind, "cuda:0")
        else:
            precision._check_device(kind, "cuda:0")
    precision._check_device("fp16", "cuda:0")


def test_tf32_is_off_while_sampling_unless_asked_for_and_left_as_it_was(monkeypatch):
    monkeypatch.setattr(precision, "_check_device", lambda *_: None)
    network = Watched()
    for left in (False, True):
        torch.backends.cudnn.allow_tf32 = left
        for kind in ("fp32", "tf32"):
            samples(network, plan_for(network, "euler", precision=kind), 2)
            assert network.seen == {(kind == "tf32",) * 2}
            network.seen.clear()
        assert torch.backends.cudnn.allow_tf32 is left
    torch.backends.cudnn.allow_tf32 = True


class Watched(Denoiser):
    """Notes the TF32 flags in force when it is called."""

    img_channels, img_resolution, sigma_min, sigma_max = 1, 4, 0.002, 80.0

    def __init__(self):
        self.seen = set()

    def with_network(self, change):
        return self

    def __call__(self, x, sigma, labels=None):
        self.seen.add((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return 0.5 * x


# --- the network in low precision -----------------------------------------------------------------


def tiny(kind, regime="vp"):
    torch.manual_seed(0)
    if kind == "glyphs":
        net = GlyphUNet(GLYPH_UNETS[regime])
    elif kind == "song":
        config = SongUNetConfig(16, 3, 3, 10, model_channels=16, channel_mult=(1, 2), num_blocks=1)
        net = SongUNet(replace(config, attn_resolutions=(8,)))
    else:
        config = DhariwalUNetConfig(16, 3, 3, 10, model_channels=32, channel_mult=(1, 2), num_blocks=1)
        net = DhariwalUNet(replace(config, attn_resolutions=(8,)))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
    net = net.eval().requires_grad_(False)
    return Preconditioned(net, PRECONDITIONERS[regime], img_channels=3, img_resolution=16, label_dim=10)


@pytest.mark.parametrize("low", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["glyphs", "song", "dhariwal"])
def test_a_lowered_network_departs_by_its_precision(kind, low):
    network = tiny(kind).network
    dtype = precision.LOW[low]
    x, c_noise, labels = draw(4, 3, 16, 16).float(), torch.full((4,), 700.0), torch.eye(10)[:4]
    expected = network(x, c_noise, labels)
    found = Lowered(network, dtype)(x, c_noise, labels).float()
    error = float((found - expected).norm() / expected.norm())
    assert 0 < error < 8 * torch.finfo(dtype).eps
    assert {value.dtype for value in network.parameters()} == {torch.float32}  # the original is untouched


@pytest.mark.parametrize("kind", ["glyphs", "song", "dhariwal"])
def test_a_lowered_network_tells_neighbouring_noise_levels_apart(kind):
    # bf16 itself knows no number between 700 and 704.
    network = Lowered(tiny(kind).network, torch.bfloat16)
    x = draw(1, 3, 16, 16).float()
    outputs = [network(x, torch.tensor([level]), None) for level in (700.0, 701.0)]
    assert not torch.equal(*outputs)


def test_everything_around_the_network_keeps_its_precision():
    seen = []

    class Network(nn.Linear):
        def forward(self, x, c_noise, labels=None):
            seen.append((x.dtype, c_noise.dtype, float(c_noise)))
            return super().forward(x)

    plain = Preconditioned(Network(4, 4), PRECONDITIONERS["vp"], img_channels=1, img_resolution=4)
    low = variant(plain, "cpu", precision="bf16")
    x, sigma = draw(2, 1, 4, 4), torch.tensor(3.21, dtype=torch.float64)
    for denoiser in (plain, low):
        assert denoiser(x, sigma).dtype == torch.float64
    assert seen[0] == seen[1]
    # Where nothing is left of the network's output, nothing is left of its precision.
    small = torch.tensor(1e-9, dtype=torch.float64)
    torch.testing.assert_close(low(x, small), x, rtol=0, atol=1e-8)


def test_samples_in_bf16_do_not_depend_on_the_batch_size():
    problem = glyphs_problem("edm")
    plan = plan_for(problem.denoiser, "seeds1", 3, precision="bf16")
    assert torch.equal(samples(problem.denoiser, plan, 6, 6), samples(problem.denoiser, plan, 6, 4))


def test_guidance_and_fixed_batches_run_their_network_in_the_precision():
    inner = tiny("song")
    guided = Guided(FixedBatch(inner, 4), 2.0)
    x, sigma, labels = draw(4, 3, 16, 16), torch.tensor(2.0), torch.eye(10)[:4]
    low = variant(guided, "cpu", precision="bf16")
    by_hand = Guided(FixedBatch(inner.with_network(lambda n: Lowered(n, torch.bfloat16)), 4), 2.0)
    assert torch.equal(low(x, sigma, labels), by_hand(x, sigma, labels))
    assert not torch.equal(low(x, sigma, labels), guided(x, sigma, labels))


def test_a_variant_is_made_once_and_goes_with_its_denoiser():
    denoiser = tiny("glyphs")
    made = variant(denoiser, "cpu", precision="bf16")
    assert variant(denoiser, "cpu", precision="bf16") is made
    assert variant(denoiser, "cpu") is denoiser
    before = len(precision._MADE)
    del denoiser, made
    gc.collect()
    assert len(precision._MADE) < before


def test_samples_are_ordinary_tensors():
    denoiser = tiny("glyphs")
    x = samples(denoiser, plan_for(denoiser, "euler", labels="none"), 2)
    x += 1
    (x.requires_grad_() * 2).sum().backward()


# --- compiled -------------------------------------------------------------------------------------


def test_no_compiler_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    row = run(tmp_path, *GLYPHS, "compile=true")
    expected = "compile=true needs a C++ compiler, but CXX=/nowhere/g++ is not there"
    assert row["reason"] == f"{expected}: install g++ or use compile=false"
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs Triton: pip install triton, or use compile=false"):
        precision._check_compiler("cuda")


class Sized(nn.Module):
    """Notes the shapes it is handed; its output depends on every argument."""

    def __init__(self):
        super().__init__()
        self.weight, self.shapes = nn.Parameter(torch.tensor(0.5)), set()

    def forward(self, x, c_noise, labels=None):
        self.shapes.add((x.shape, c_noise.shape, None if labels is None else labels.shape))
        shift = c_noise if labels is None else c_noise + labels.argmax(1)
        return self.weight * x + shift[:, None, None, None]


@pytest.mark.parametrize("name", ["seeds3", "adaptive_sde"])
def test_a_compiled_network_sees_one_shape_and_padding_changes_nothing(monkeypatch, name):
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    network = Sized()
    denoiser = Preconditioned(network, PRECONDITIONERS["edm"], img_channels=3, img_resolution=4, label_dim=5)
    plan = plan_for(denoiser, name, 9 if name == "seeds3" else 60)
    expected = samples(denoiser, plan, 11, 4)
    network.shapes.clear()
    found = samples(denoiser, replace(plan, compile=True), 11, 4)
    assert network.shapes == {((4, 3, 4, 4), (4,), (4, 5))}
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    network.shapes.clear()
    samples(denoiser, replace(plan, compile=True), 3, 4)
    assert network.shapes == {((3, 3, 4, 4), (3,), (3, 5))}  # nothing is padded beyond what there is to draw


def test_a_network_in_fixed_batches_is_not_padded_again(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    network = Sized()
    inner = Preconditioned(network, PRECONDITIONERS["edm"], img_channels=3, img_resolution=4)
    samples(FixedBatch(inner, 2), plan_for(inner, "heun", compile=True), 5, 4)
    assert network.shapes == {((2, 3, 4, 4), (2,), None)}


def test_what_cannot_be_compiled_whole_is_an_error_in_one_line():
    class Branching(Sized):
        def forward(self, x, c_noise, labels=None):
            return super().forward(x if float(x.sum()) > 0 else -x, c_noise, labels)

    compiled = Compiled(Branching(), None, graphs=False)
    with pytest.raises(ValueError, match=r"^compile=true: .*: use compile=false$") as caught:
        compiled(draw(2, 3, 4, 4).float(), torch.ones(2))
    assert "\n" not in str(caught.value)


class Layered(Sized):
    """Differs from others of its class in an attribute, as networks of several regimes do."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x, c_noise, labels=None):
        return self.factor * x + (c_noise if labels is None else labels.sum(1))[:, None, None, None]


@pytest.mark.parametrize(("isolated", "networks"), [(True, 10), (False, 4)])
def test_many_networks_are_compiled_by_threads_each_once(monkeypatch, isolated, networks):
    # Older torch allows eight graphs a class, and checks their arguments, by one thread at a time.
    if not isolated:
        monkeypatch.setattr(precision, "ISOLATED", False)
    elif not precision.ISOLATED:
        pytest.skip("needs a newer torch")
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    real = torch.compile

    def compiled(call, options, **more):
        options.pop("triton.cudagraphs")
        return real(call, backend=backend, options=options, **more)

    monkeypatch.setattr(torch, "compile", compiled)
    made = [Compiled(Layered(float(factor)), None, graphs=False) for factor in range(networks)]
    x, levels, labels = torch.ones(2, 3, 4, 4), torch.ones(2), torch.ones(2, 5)
    with ThreadPoolExecutor(4) as pool:
        for factor, network in enumerate(made):
            plain = pool.map(lambda _, network=network: network(x, levels), range(20))
            assert all(torch.equal(found, factor * x + 1) for found in plain)
            labelled = pool.map(lambda _, network=network: network(x, levels, labels), range(20))
            assert all(torch.equal(found, factor * x + 5) for found in labelled)
    assert len(graphs) == 2 * networks


def test_iddpms_levels_are_marked_as_the_compiler_marks_constants():
    def marked():
        pass

    assert vars(torch.compiler.assume_constant_result(marked)) == vars(precond._constant_levels) != {}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("regime", ["edm", "vp", "ve", "iddpm"])
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_compiled_rows_are_the_eager_ones_up_to_rounding(tmp_path, regime, kind):
    overrides = (*GLYPHS, f"regime={regime}", f"precision={kind}")
    eager, compiled = (run(tmp_path, *overrides, f"compile={flag}") for flag in ("false", "true"))
    assert compiled["status"] == "done", compiled["reason"]
    assert compiled["compile"]
    assert compiled["fid"] == pytest.approx(eager["fid"], rel=1e-4 if kind == "fp32" else 0.1)


# --- batches that fit -----------------------------------------------------------------------------


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Cramped(FixedBatch):
    """Has memory for so many samples at a time."""

    def __init__(self, denoiser, room, error=FULL):
        super().__init__(denoiser, 4)
        self.room, self.asked, self.error = room, [], error

    def __call__(self, x, sigma, labels=None):
        self.asked.append(len(x))
        if len(x) > self.room:
            raise self.error
        return super().__call__(x, sigma, labels)


def allocation_failure():
    """torch's own error for more than there is, on the CPU."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
        allocation_failure(),
    ],
    ids=str,
)
def test_an_out_of_memory_halves_the_batch_with_the_same_samples_and_one_warning(caplog, error):
    inner = tiny("glyphs", "edm")
    plan = plan_for(inner, "seeds2")
    expected = samples(FixedBatch(inner, 4), plan, 21, 4)
    cramped = Cramped(inner, room=5, error=error)
    assert torch.equal(samples(cramped, plan, 21, 20), expected)
    assert {size for size in cramped.asked if size <= 5} == {5, 1}
    halvings = [record.getMessage() for record in caplog.records]
    assert halvings == [f"out of memory with {n} samples at a time: going on with {n // 2}" for n in (20, 10)]
    caplog.clear()
    cramped.asked.clear()
    samples(cramped, plan, 21, 20)  # the next cell knows
    assert max(cramped.asked) == 5
    assert not caplog.records


def test_other_errors_do_not_halve_the_batch():
    cramped = Cramped(tiny("glyphs", "edm"), room=5, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        samples(cramped, plan_for(cramped, "euler"), 21, 20)
    assert cramped.asked == [20]


def test_evaluations_of_a_batch_given_up_are_taken_back():
    class Later(Cramped):
        def __call__(self, x, sigma, labels=None):
            self.room = 5 if len(self.asked) > 2 else 99
            return super().__call__(x, sigma, labels)

    later, told = Later(tiny("glyphs", "edm"), room=99), []
    plan = plan_for(later, "heun", 7)
    for _ in generate(later, plan, torch.arange(8), batch_size=8, progress=told.append):
        pass
    assert min(told) < 0
    assert sum(told) == 7 * 8


def test_what_was_compiled_for_a_batch_too_large_is_let_go(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    for kind in ("fp32", "bf16"):
        denoiser = tiny("glyphs", "edm")
        made = [weakref.ref(variant(denoiser, "cpu", precision=kind, compiled=True, size=n)) for n in (8, 4)]
        lowered = variant(denoiser, "cpu", precision=kind)
        precision.release("cpu")
        gc.collect()
        assert [ref() for ref in made] == [None, None]
        assert variant(denoiser, "cpu", precision=kind) is lowered


def test_the_graphs_of_what_is_let_go_are_gone_too(monkeypatch):
    graphs, real = [], torch.compile

    class Graph:
        def __init__(self, module):
            self.forward = module.forward

        def __call__(self, *given):
            return self.forward(*given)

    def backend(module, inputs):
        graph = Graph(module)
        graphs.append(weakref.ref(graph))
        return graph

    def compiled(network, options, **more):
        return real(network, backend=backend, **more)

    monkeypatch.setattr(torch, "compile", compiled)
    torch.compiler.reset()
    denoiser = Preconditioned(Sized(), PRECONDITIONERS["edm"], img_channels=3, img_resolution=4)
    samples(denoiser, plan_for(denoiser, "euler", compile=True), 4, 4)
    assert graphs
    assert graphs[0]() is not None
    precision.release("cpu")
    gc.collect()
    assert graphs[0]() is None


def test_only_so_many_sizes_stay_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    denoiser = tiny("glyphs", "edm")
    made = [weakref.ref(variant(denoiser, "cpu", compiled=True, size=size)) for size in range(1, 8)]
    gc.collect()
    assert [ref() is not None for ref in made] == [False] * 3 + [True] * 4
    assert variant(denoiser, "cpu", compiled=True, size=7) is made[-1]()


def test_part_of_a_cell_is_drawn_by_the_graph_of_the_whole(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    network = Sized()
    denoiser = Preconditioned(network, PRECONDITIONERS["edm"], img_channels=3, img_resolution=4)
    samples(denoiser, plan_for(denoiser, "euler", compile=True, samples=20), 3, 8)
    assert network.shapes == {((8, 3, 4, 4), (8,), None)}


def test_memory_for_no_sample_at_all_is_an_error():
    denoiser = Cramped(tiny("glyphs", "edm"), room=0)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        samples(denoiser, plan_for(denoiser, "euler"), 3)


def test_a_row_does_not_depend_on_batch_size_auto_or_on_halving(tmp_path, monkeypatch):
    rows = [run(tmp_path / "a", *GLYPHS, "batch_size=auto"), run(tmp_path / "b", *GLYPHS, "batch_size=20")]
    cfg = compose(*GLYPHS)
    problem = problem_of(cfg, "cpu")
    cramped = Cramped(problem.denoiser.denoiser, room=7)
    cramped.size = problem.denoiser.size
    monkeypatch.setattr("seedsbench.bench.run.problem_of", lambda *_: replace(problem, denoiser=cramped))
    rows.append(run(tmp_path / "c", *GLYPHS, "batch_size=20"))
    assert [row["batch_size"] for row in rows] == [batching.CPU_SIZE, 20, 5]
    assert same(rows[0]) == same(rows[1]) == same(rows[2])


def test_on_the_cpu_auto_is_a_number_that_falls_with_the_image():
    sizes = []
    for resolution in (16, 64, 256, 1024, 8192):
        denoiser = Watched()
        denoiser.img_resolution = resolution
        sizes.append(BatchSize("auto", denoiser, "cpu").now)
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (batching.CPU_SIZE, 1)


@pytest.mark.parametrize(
    ("seconds", "room", "found"),
    [
        (lambda n: 1.0, 300, 256),  # launches alone: as many as fit
        (lambda n: max(1.0, n / 64), math.inf, 64),  # full at 64
        (lambda n: n, math.inf, 1),
        (lambda n: 1.0, math.inf, batching.MOST),
        (lambda n: 1.0, 0, 1),
    ],
)
def test_the_best_batch_is_where_doubling_no_longer_pays_or_fits(seconds, room, found):
    tried = []

    def timed(size):
        tried.append(size)
        if size > room:
            raise torch.OutOfMemoryError
        return seconds(size)

    assert fastest(timed) == found
    assert max(tried) <= 2 * found


@pytest.mark.parametrize("value", [0, -3, "many", 1.5, True, None])
def test_a_batch_size_is_a_number_or_auto(value):
    cfg = compose()
    cfg.batch_size = value
    with pytest.raises(ValueError, match=rf"batch_size={value} must be at least 1, or auto"):
        check_config(cfg)


def test_an_unknown_precision_is_refused_with_the_nearest():
    cfg = compose()
    cfg.precision = "fp23"
    with pytest.raises(ValueError, match=r"Did you mean 'fp32'.*one of fp32, tf32, bf16, fp16"):
        check_config(cfg)


@pytest.mark.parametrize("name", list(PRECONDITIONERS))
@pytest.mark.parametrize("kind", ["glyphs", "song"])
def test_a_noise_level_of_the_host_reaches_a_network_elsewhere(name, kind):
    # Steps are counted on the host; "meta" is another device that every machine has.
    denoiser = tiny(kind, name)
    denoiser.to("meta")
    x = torch.empty(2, 3, 16, 16, dtype=torch.float64, device="meta")
    assert denoiser(x, torch.tensor(1.0, dtype=torch.float64)).device.type == "meta"
    # Adaptive solvers have a level for each sample, and it is where the samples are.
    assert denoiser(x, torch.empty(2, dtype=torch.float64, device="meta")).device.type == "meta"


# --- on a GPU -------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("compiled", ["false", "true"])
def test_every_mode_gives_a_row_on_a_gpu(tmp_path, kind, compiled):
    expected = run(tmp_path, *GLYPHS)
    overrides = ("device=cuda", "batch_size=8", f"precision={kind}", f"compile={compiled}")
    row = run(tmp_path, *GLYPHS, *overrides, "force=true")
    assert row["status"] == "done", row["reason"]
    assert row["fid"] == pytest.approx(expected["fid"], rel=1e-3 if kind == "fp32" else 0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_finds_a_batch_and_survives_a_full_gpu(tmp_path):
    row = run(tmp_path, *GLYPHS, "device=cuda", "batch_size=auto")
    assert row["status"] == "done", row["reason"]
    problem = glyphs_problem("edm", "cuda")
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        plan = plan_for(problem.denoiser, "euler", 3)
        batch = next(
            iter(generate(problem.denoiser, plan, torch.arange(2**18), batch_size=2**18, device="cuda"))
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(batch.indices) < 2**18
