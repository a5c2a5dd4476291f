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
from seedsbench.bench.batching import fastest, shared_batch_size
from seedsbench.bench.cell import Cell
from seedsbench.bench.precision import Compiled, Lowered, variant
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.problems.glyphs import glyphs_problem
from seedsbench.bench.sampling import SamplingPlan, generate
from seedsbench.denoisers.base import Denoiser, FixedBatch
from seedsbench.denoisers.networks.glyph_unet import GLYPH_UNETS, GlyphUNet
from seedsbench.denoisers.networks.unet import DhariwalUNet, DhariwalUNetConfig, SongUNet, SongUNetConfig
from seedsbench.denoisers.preconditioning.karras import PRECONDITIONERS, Preconditioned
from seedsbench.denoisers.prediction import Guided
from seedsbench.diffusion.noise import Philox
from tests.support.cells import compose, python, run, same

GLYPHS = ("model=glyphs", "nfe=4", "samples=20", "metrics.floor_sets=1")
KINDS = ("glyphs", "song", "dhariwal")


def draw(*shape, seed=0):
    return Philox(torch.arange(shape[0]), shape[1:], seed=seed).normal()


def plan_for(denoiser, name="seeds3", nfe=6, **options):
    schedule = registry.build(registry.configured("schedule", "linear"))
    grid = registry.build(registry.configured("grid", "edm"))
    method = solver(name)
    sigmas, fitted = noise_levels(denoiser, schedule, grid, method.steps_for(nfe))
    return SamplingPlan(method, fitted, sigmas, Cell(**options))


def samples(denoiser, plan, n=24, batch_size=8):
    return torch.cat([batch.x for batch in generate(denoiser, plan, torch.arange(n), batch_size=batch_size)])


def edm_denoiser(network, label_dim=0):
    """(3, 4, 4) images."""
    return Preconditioned(
        network, PRECONDITIONERS["edm"], img_channels=3, img_resolution=4, label_dim=label_dim
    )


def tiny(kind, regime="vp"):
    torch.manual_seed(0)
    sizes = {"channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (8,)}
    if kind == "glyphs":
        net = GlyphUNet(GLYPH_UNETS[regime])
    elif kind == "song":
        net = SongUNet(SongUNetConfig(16, 3, 3, 10, model_channels=16, **sizes))
    else:
        net = DhariwalUNet(DhariwalUNetConfig(16, 3, 3, 10, model_channels=32, **sizes))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
    net = net.eval().requires_grad_(False)
    return Preconditioned(net, PRECONDITIONERS[regime], img_channels=3, img_resolution=16, label_dim=10)


# --- keys and rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_row_in_bf16_says_so_and_lies_near_the_row_in_fp32(tmp_path, dtype):
    plain = run(tmp_path, *GLYPHS, f"dtype={dtype}")
    row = run(tmp_path, *GLYPHS, f"dtype={dtype}", "precision=bf16")
    assert row["status"] == plain["status"] == "done", row["reason"]
    assert (plain["network_precision"], row["network_precision"]) == ("fp32", "bf16")
    assert row["fid"] != plain["fid"]
    assert row["fid"] == pytest.approx(plain["fid"], rel=0.1)
    assert row["fid_floor"] == plain["fid_floor"]  # real images, and the extractor, know nothing of it


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


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("batch_size", size, f"={size} must be at least 1, or auto") for size in (0, "many", 1.5, True, None)]
    + [("precision", "fp23", ".*Did you mean 'fp32'.*one of fp32, tf32, bf16, fp16")],
)
def test_other_values_are_refused(key, value, said):
    with pytest.raises(ValueError, match=key + said):
        replace(compose(), **{key: value}).check()


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


# --- the network in low precision -----------------------------------------------------------------


@pytest.mark.parametrize("low", list(precision.LOW_PRECISIONS.values()), ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_lowered_network_departs_by_its_precision_and_tells_neighbouring_noise_levels_apart(kind, low):
    network = tiny(kind).network
    lowered = Lowered(network, low)
    x, labels = draw(4, 3, 16, 16).float(), torch.eye(10)[:4]
    # bf16 itself knows no number between 700 and 704.
    level, neighbour = (torch.full((4,), value) for value in (700.0, 701.0))
    expected, found = network(x, level, labels), lowered(x, level, labels)
    error = float((found.float() - expected).norm() / expected.norm())
    assert 0 < error < 8 * torch.finfo(low).eps
    assert not torch.equal(lowered(x, neighbour, labels), found)
    assert {value.dtype for value in network.parameters()} == {torch.float32}  # the original is untouched


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


def test_samples_are_ordinary_tensors():
    denoiser = tiny("glyphs")
    x = samples(denoiser, plan_for(denoiser, "euler", labels="none"), 2)
    x += 1
    (x.requires_grad_() * 2).sum().backward()


# --- compiled -------------------------------------------------------------------------------------


@pytest.fixture
def uncompiled(monkeypatch):
    """torch.compile hands a network back as it is."""
    monkeypatch.setattr(torch, "compile", lambda network, **options: network)


@pytest.fixture
def graphs(monkeypatch):
    """Weak references to what torch.compile made; nothing is translated to C++."""
    found, compile_with = [], torch.compile

    class Graph:
        def __init__(self, module):
            self.forward = module.forward

        def __call__(self, *given):
            return self.forward(*given)

    def backend(module, inputs):
        graph = Graph(module)
        found.append(weakref.ref(graph))
        return graph

    def compiled(network, options, **more):
        options = {key: value for key, value in options.items() if key != "triton.cudagraphs"}
        return compile_with(network, backend=backend, options=options, **more)

    monkeypatch.setattr(torch, "compile", compiled)
    torch.compiler.reset()
    return found


class Sized(nn.Module):
    """Notes the shapes it is handed; its output depends on every argument."""

    def __init__(self):
        super().__init__()
        self.weight, self.shapes = nn.Parameter(torch.tensor(0.5)), set()

    def forward(self, x, c_noise, labels=None):
        self.shapes.add((x.shape, c_noise.shape, None if labels is None else labels.shape))
        shift = c_noise if labels is None else c_noise + labels.argmax(1)
        return self.weight * x + shift[:, None, None, None]


@pytest.mark.parametrize(
    ("name", "nfe", "n", "whole", "seen"),
    [
        ("seeds3", 9, 11, 11, 4),
        ("adaptive_sde", 60, 11, 11, 4),
        ("euler", 6, 3, 3, 3),  # nothing is padded beyond what there is to draw
        ("euler", 6, 3, 20, 4),  # a part of a cell is drawn by the graph of the whole
    ],
)
def test_a_compiled_network_sees_one_shape_and_padding_changes_nothing(uncompiled, name, nfe, n, whole, seen):
    network = Sized()
    denoiser = edm_denoiser(network, label_dim=5)
    plan = plan_for(denoiser, name, nfe, samples=whole)
    expected = samples(denoiser, plan, n, 4)
    network.shapes.clear()
    found = samples(denoiser, replace(plan, cell=replace(plan.cell, compile=True)), n, 4)
    assert network.shapes == {((seen, 3, 4, 4), (seen,), (seen, 5))}
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_network_in_fixed_batches_is_not_padded_again(uncompiled):
    network = Sized()
    inner = edm_denoiser(network)
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


@pytest.mark.slow
def test_no_compiler_is_said_in_one_line(tmp_path):
    environment = {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    words = ("-m", "seedsbench", *GLYPHS, "device=cpu", "compile=true")
    said = python(*words, folder=tmp_path, code=1, **environment)
    expected = "compile=true: InvalidCxxCompiler: No working C++ compiler found"
    assert any(expected in line and line.endswith(": use compile=false") for line in said.splitlines())


class Layered(Sized):
    """Differs from others of its class in an attribute, as networks of several regimes do."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x, c_noise, labels=None):
        return self.factor * x + (c_noise if labels is None else labels.sum(1))[:, None, None, None]


@pytest.mark.parametrize(("isolated", "networks"), [(True, 10), (False, 4)])
def test_many_networks_are_compiled_by_threads_each_once(monkeypatch, graphs, isolated, networks):
    # Older torch allows eight graphs a class, and checks their arguments, by one thread at a time.
    if isolated and not precision.ISOLATED:
        pytest.skip("needs a newer torch")
    monkeypatch.setattr(precision, "ISOLATED", isolated)
    made = [Compiled(Layered(float(factor)), None, graphs=False) for factor in range(networks)]
    x, levels, labels = torch.ones(2, 3, 4, 4), torch.ones(2), torch.ones(2, 5)
    with ThreadPoolExecutor(4) as pool:
        for factor, network in enumerate(made):
            for shift, given in ((1, (x, levels)), (5, (x, levels, labels))):
                found = pool.map(lambda _, network=network, given=given: network(*given), range(20))
                assert all(torch.equal(one, factor * x + shift) for one in found)
    assert len(graphs) == 2 * networks


def test_variants_are_made_once_and_compiled_ones_let_go_with_their_graphs(graphs):
    denoiser = edm_denoiser(Layered(0.5))
    assert variant(denoiser, "cpu") is denoiser
    lowered = variant(denoiser, "cpu", precision="bf16")
    samples(denoiser, plan_for(denoiser, "euler", precision="bf16", compile=True), 4, 4)
    how = {"precision": "bf16", "compiled": True, "size": 4}
    compiled = weakref.ref(variant(denoiser, "cpu", **how))
    assert variant(denoiser, "cpu", **how) is compiled()
    assert [graph() is None for graph in graphs] == [False]
    precision.release("cpu")
    gc.collect()
    assert [ref() for ref in (compiled, *graphs)] == [None, None]
    assert variant(denoiser, "cpu", precision="bf16") is lowered


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
    """Has memory for so many samples at a time, from its `since`-th call on."""

    def __init__(self, denoiser, room, error=FULL, since=0):
        super().__init__(denoiser, 4)
        self.room, self.asked, self.error, self.since = room, [], error, since

    def __call__(self, x, sigma, labels=None):
        self.asked.append(len(x))
        if len(x) > self.room and len(self.asked) > self.since:
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


@pytest.mark.parametrize(
    ("room", "error", "asked"),
    [(5, RuntimeError("shapes do not match"), [20]), (0, FULL, [20, 10, 5, 3, 2, 1])],
)
def test_other_errors_and_memory_for_no_sample_at_all_are_errors(room, error, asked):
    cramped = Cramped(tiny("glyphs", "edm"), room, error)
    with pytest.raises(RuntimeError) as caught:
        samples(cramped, plan_for(cramped, "euler"), 21, 20)
    assert caught.value is error
    assert cramped.asked == asked


def test_evaluations_of_a_batch_given_up_are_taken_back():
    cramped, told = Cramped(tiny("glyphs", "edm"), room=5, since=3), []
    plan = plan_for(cramped, "heun", 7)
    for _ in generate(cramped, plan, torch.arange(8), batch_size=8, progress=told.append):
        pass
    assert min(told) < 0
    assert sum(told) == 7 * 8


def test_a_row_does_not_depend_on_batch_size_auto_or_on_halving(tmp_path, monkeypatch):
    rows = [run(tmp_path / "a", *GLYPHS, "batch_size=auto"), run(tmp_path / "b", *GLYPHS, "batch_size=20")]
    problem = problem_of(compose(*GLYPHS), "cpu")
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
        sizes.append(shared_batch_size("auto", denoiser, "cpu").now)
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (batching.CPU_SIZE, 1)


@pytest.mark.parametrize(
    ("seconds", "room", "found"),
    [
        (lambda n: 1.0, 300, 256),  # launches alone: as many as fit
        (lambda n: max(1.0, n / 64), math.inf, 64),  # full at 64
        (lambda n: n, math.inf, 1),
        (lambda n: 1.0, math.inf, batching.MAX_SIZE),
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


def test_an_evaluation_is_timed_with_the_labels_that_its_model_wants():
    assert 0 < batching._seconds(tiny("song"), 2, "cpu") < 10


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
    denoiser = glyphs_problem("edm", "cuda").denoiser
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        plan = plan_for(denoiser, "euler", 3)
        batch = next(iter(generate(denoiser, plan, torch.arange(2**18), batch_size=2**18, device="cuda")))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(batch.indices) < 2**18
