"""Pipelines of diffusers as models: the images of their own calls, rows, prompts, and folders to refuse."""

import copy
import json
import pickle
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import seedsbench
from seedsbench.bench.labels import one_hot
from seedsbench.bench.precision import variant
from seedsbench.bench.problems.build import model_of, problem_of
from seedsbench.bench.rows.run_key import run_key
from seedsbench.bench.sampling import SampleBatch
from seedsbench.bench.sanity import Diverged, check_latents
from seedsbench.cli.dry_run import dry_run_text
from seedsbench.denoisers.base import FixedBatch
from seedsbench.denoisers.prediction import Guided
from seedsbench.diffusion.schedule import Geometric
from seedsbench.integrations.numbered import noise_of
from seedsbench.integrations.pipelines import load_pipeline
from seedsbench.integrations.prompts import read_prompts
from tests.support.cells import compose, run, same
from tests.support.model_pipelines import MAKERS, PROMPTS, made, pixart
from tests.support.pipelines import TINY, write_pipeline

diffusers = pytest.importorskip("diffusers", reason="needs seedsbench[diffusers]")
bridge = pytest.importorskip("seedsbench.integrations.diffusers", reason="needs seedsbench[diffusers]")

WITHOUT_TEXT = ("LDMPipeline", "DiTPipeline")
FLOWS = [name for name in MAKERS if name.startswith(("StableDiffusion3", "Flux"))]
UNSCALED = {*FLOWS, "LDMTextToImagePipeline"}
"""Their calls take latents as they are."""
CLASSES = torch.tensor([2, 0])
SIZE = 16
STEPS = 5


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """name -> the pipeline and its folder, each made once."""
    kept = {}

    def get(name):
        if name not in kept:
            folder = tmp_path_factory.mktemp("pipelines")
            kept[name] = made(name, folder), folder / "pipeline"
        return kept[name]

    return get


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n")
    return path


def loaded(name, folder, **options):
    texts = None if name in WITHOUT_TEXT else PROMPTS
    if name.startswith("Flux"):
        options = {"size": SIZE, **options}
    return load_pipeline(folder, texts, **options)


def own_images(name, pipeline, z, guidance, rescale):
    """(B, 3, H, W) in [0, 1] of the pipeline's own call from latents that start as ours do."""
    call = {"num_inference_steps": STEPS, "output_type": "pt"}
    call |= {"guidance_rescale": rescale} if rescale else {}
    first = float(pipeline.scheduler.init_noise_sigma)
    if name in WITHOUT_TEXT:
        # Its call takes no latents: what it draws is ours.
        call |= {"generator": torch.Generator().manual_seed(0), "output_type": "np"}
        call |= {"batch_size": len(z)} if name == "LDMPipeline" else {"class_labels": CLASSES.tolist()}
        if name == "DiTPipeline":
            call["guidance_scale"] = guidance
        return torch.from_numpy(pipeline(**call).images).permute(0, 3, 1, 2)
    call["prompt"] = [PROMPTS[k] for k in CLASSES.tolist()]
    if name in UNSCALED:
        z = z * first
    if name.startswith("Flux"):
        batch, channels, height, width = z.shape
        z = z.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        z = z.reshape(batch, height * width // 4, channels * 4)
        call |= {"height": SIZE, "width": SIZE, "negative_prompt": ["", ""], "true_cfg_scale": guidance}
    else:
        call["guidance_scale"] = guidance
    if name.startswith("PixArt"):
        call |= {"use_resolution_binning": False, "clean_caption": False}
    return pipeline(latents=z.clone(), **call).images


def start_of(name, shape, first):
    """Standard normal latents, or those that become what the pipeline draws for itself."""
    drawn = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return drawn / first if name == "DiTPipeline" else drawn


GUIDED = [(name, guidance, 0.0) for name in MAKERS for guidance in (1.0, 2.5)]
GUIDED += [(name, 2.5, 0.7) for name in ("StableDiffusionPipeline", "StableDiffusionPipeline, v")]


@pytest.mark.parametrize(("name", "guidance", "rescale"), GUIDED)
def test_images_are_those_of_the_pipelines_own_call(name, guidance, rescale, saved):
    pipeline, folder = saved(name)
    model, before = loaded(name, folder), pipeline.scheduler
    solver, schedule = ("euler", "linear") if name in FLOWS else ("ddim", "discrete")
    pipeline.scheduler = bridge.SolverScheduler.from_config(before.config, solver=solver)
    try:
        pipeline.scheduler.set_timesteps(STEPS)
        z = start_of(name, model.denoiser.image_shape, float(pipeline.scheduler.init_noise_sigma))
        theirs = own_images(name, pipeline, z, guidance, rescale)
        levels = pipeline.scheduler.sigmas[:-1].double()
    finally:
        pipeline.scheduler = before
    if name in FLOWS:
        levels = levels / (1 - levels)
    labels = one_hot(CLASSES, model.denoiser.label_dim) if model.denoiser.label_dim else None
    ours = seedsbench.sample(
        Guided(model.denoiser, guidance, rescale),
        z.double(),
        solver=solver,
        schedule=schedule,
        sigmas=levels,
        labels=labels,
    )
    doubled = 2 if guidance != 1 and labels is not None else 1
    assert ours.nfe.tolist() == [STEPS * doubled] * 2
    images = model.decoder(ours.x)
    assert images.shape == (2, *model.decoder.image_shape) == theirs.shape
    torch.testing.assert_close((images / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-5)
    assert theirs.std() > 0.1


def test_a_network_of_scores_is_a_denoiser(tmp_path, reference):
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**TINY, time_embedding_type="fourier").eval()
    pipeline = bridge.ScoreSdeVePipeline(unet, bridge.ScoreSdeVeScheduler(sigma_max=0.5))
    pipeline.save_pretrained(tmp_path / "scores")
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    theirs = torch.from_numpy(pipeline(2, 4, generators, output_type="np").images).permute(0, 3, 1, 2)
    model = load_pipeline(tmp_path / "scores")
    assert (model.decoder, model.denoiser.sigma_max, model.denoiser.image_shape) == (None, 1.0, (3, 8, 8))
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    z = torch.cat([torch.randn(1, 3, 8, 8, generator=one) for one in generators])
    settings = pipeline.scheduler.settings(4)
    schedule = Geometric(sigma_0=0.02, sigma_1=1.0, fit_range=False)
    # On [-1, 1] everything is twice as large; it starts around -1, the darkest image.
    start = z - 1 / settings["sigmas"][0] / 2
    ours = seedsbench.sample(
        model.denoiser,
        start.double(),
        solver=settings["solver"],
        sigmas=2 * settings["sigmas"],
        schedule=schedule,
        noise=noise_of(generators, 0, z),
    )
    torch.testing.assert_close((ours.x.float() / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_pixart_of_1024_pixels_is_told_the_size(saved, monkeypatch):
    monkeypatch.setitem(MAKERS, "PixArtAlphaPipeline, large", pixart("PixArtAlphaPipeline", sample_size=128))
    test_images_are_those_of_the_pipelines_own_call("PixArtAlphaPipeline, large", 2.5, saved)


@pytest.mark.parametrize("name", MAKERS)
def test_an_evaluation_knows_its_labels_and_runs_in_low_precision(name, saved):
    denoiser = loaded(name, saved(name)[1]).denoiser
    x = 3 * torch.randn(3, *denoiser.image_shape, generator=torch.Generator().manual_seed(1)).double()
    sigma = torch.tensor(3.0, dtype=torch.float64)
    labels = one_hot(torch.tensor([0, 2, 1]), denoiser.label_dim) if denoiser.label_dim else None
    found = denoiser(x, sigma, labels)
    assert found.dtype == x.dtype
    torch.testing.assert_close(denoiser(x, sigma.expand(3), labels), found, rtol=0, atol=1e-6)
    if labels is not None:
        assert (denoiser(x, sigma, labels.roll(1, 0)) - found).abs().amax((1, 2, 3)).min() > 1e-3
        without = denoiser(x, sigma, torch.zeros_like(labels))
        assert torch.equal(denoiser(x, sigma), without)
        assert (without - found).abs().amax((1, 2, 3)).min() > 1e-3
    low = variant(FixedBatch(denoiser, 8), "cpu", precision="bf16")(x, sigma, labels)
    relative = float((low - found).abs().max() / found.abs().max())
    assert 1e-5 < relative < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DiTPipeline", "StableDiffusionXLPipeline", "FluxPipeline"])
def test_the_network_can_be_compiled(name, saved):
    denoiser = FixedBatch(loaded(name, saved(name)[1]).denoiser, 8)
    x, sigma = torch.ones(2, *denoiser.image_shape, dtype=torch.float64), torch.tensor(3.0).double()
    labels = one_hot(torch.tensor([1, 2]), denoiser.label_dim)
    found = variant(denoiser, "cpu", compiled=True)(x, sigma, labels)
    torch.testing.assert_close(found, denoiser(x, sigma, labels), rtol=0, atol=1e-4)


def test_an_encoded_prompt_does_not_depend_on_its_neighbours(saved):
    _, folder = saved("StableDiffusionPipeline")
    together, other = loaded("StableDiffusionPipeline", folder), loaded("StableDiffusionPipeline", folder)
    x = torch.zeros(3, 4, 8, 8)
    rows = together.denoiser.conditions(torch.eye(3), x)
    for k in (2, 0, 1):
        (row,) = other.denoiser.conditions(torch.eye(3)[k : k + 1], x[:1])
        assert torch.equal(row, rows[k])


# --- rows ------------------------------------------------------------------------------------------------


@pytest.fixture
def reference(tmp_path):
    """32 images of 16 x 16 pixels."""
    path = tmp_path / "images.npz"
    np.savez(path, arr_0=np.random.default_rng(0).integers(0, 256, (32, SIZE, SIZE, 3), dtype=np.uint8))
    return path


def row_of(tmp_path, folder, reference, *more):
    where = (f"model.path='{folder}'", f"metrics.reference='{reference}'")
    chosen = (
        "model=diffusers_pipeline",
        "metrics=values",
        "schedule=linear",
        "grid=edm",
        "nfe=4",
        "samples=5",
    )
    return run(tmp_path, *chosen, "solver=seeds1", *where, *more)


@pytest.mark.parametrize("name", ["LDMPipeline", "DiTPipeline", "StableDiffusionPipeline", "FluxPipeline"])
def test_a_row_does_not_depend_on_the_batch_size(name, saved, tmp_path, reference, prompts):
    more = [] if name in WITHOUT_TEXT else [f"model.prompts='{prompts}'"]
    more += [f"model.size={SIZE}"] if name == "FluxPipeline" else []
    _, folder = saved(name)
    rows = [row_of(tmp_path / str(size), folder, reference, f"batch_size={size}", *more) for size in (2, 5)]
    assert [row["reason"] for row in rows] == [None] * 2
    assert rows[0]["status"] == "done"
    assert rows[0]["nfe"] == 4
    assert same(rows[0]) == same(rows[1])
    assert 0 < rows[0]["largest"] < 100
    distilled = "guidance is distilled into the network: one evaluation a call, model.distilled_guidance=3.5"
    assert (distilled in str(rows[0]["warning"])) == (name == "FluxPipeline")


def test_latents_that_diverged_are_not_decoded(tmp_path, saved, reference, prompts):
    _, folder = saved("StableDiffusionPipeline")
    cell = compose(
        "model=diffusers_pipeline",
        f"model.path='{folder}'",
        f"model.prompts='{prompts}'",
        "metrics=values",
        f"metrics.reference='{reference}'",
    )
    problem = problem_of(cell, "cpu")
    latents = torch.zeros(2, 4, 8, 8)
    check_latents(problem, SampleBatch(torch.arange(2), latents, torch.ones(2)))
    latents[1] = 600.0
    assert problem.images(latents).abs().max() < 10
    with pytest.raises(Diverged, match=r"largest \|x\| is 600 in sample 1"):
        check_latents(problem, SampleBatch(torch.arange(2), latents, torch.ones(2)))
    latents[1] = torch.nan
    with pytest.raises(ValueError, match="sample 1 has non-finite values"):
        check_latents(problem, SampleBatch(torch.arange(2), latents, torch.ones(2)))


def test_labels_choose_prompts_and_their_words_are_part_of_a_model(saved, tmp_path, reference, prompts):
    _, folder = saved("StableDiffusionPipeline")
    given = f"model.prompts='{prompts}'"
    rows = {
        labels: row_of(tmp_path, folder, reference, given, f"labels={labels}")
        for labels in ("balanced", "random", "2", "none")
    }
    assert {row["status"] for row in rows.values()} == {"done"}
    assert len({row["fid"] for row in rows.values()}) == 4
    assert f"prompts: {prompts} (there)" in dry_run_text(
        [compose("model=diffusers_pipeline", "model.path=x", given)]
    )
    beyond = row_of(tmp_path, folder, reference, given, "labels=3")
    assert beyond["reason"] == "labels=3: the model has classes 0..2"
    elsewhere = tmp_path / "same.txt"
    elsewhere.write_text(prompts.read_text().replace("\n", "\r\n"))
    moved = row_of(tmp_path, folder, reference, f"model.prompts='{elsewhere}'")
    assert moved["run_key"] == rows["balanced"]["run_key"]
    changed = tmp_path / "other.txt"
    changed.write_text(prompts.read_text().replace("cat", "fox"))
    other = row_of(tmp_path, folder, reference, f"model.prompts='{changed}'")
    assert other["model_id"] != rows["balanced"]["model_id"]
    assert other["fid"] != rows["balanced"]["fid"]


def test_a_pipeline_of_pixels_is_the_model_that_it_was(tmp_path):
    write_pipeline(tmp_path / "pipeline")
    folder = tmp_path / "conf"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "as_it_was.yaml").write_text(
        "_target_: seedsbench.bench.problems.checkpoint.checkpoint_problem\n"
        "_recursive_: false\nname: diffusers_pipeline\npath: null\nformat: diffusers\nhints: {}\n"
        "reference: null\noffline: false\n"
    )
    words = (f"model.path='{tmp_path / 'pipeline'}'", "metrics=values", "labels=none")
    cells = [
        compose("model=diffusers_pipeline", *words),
        compose("model=as_it_was", *words, config_dirs=[folder]),
    ]
    models = [model_of(cell, "cpu") for cell in cells]
    assert models[0].model_id == models[1].model_id
    assert models[0].decode is None
    assert type(models[0].denoiser.denoiser) is type(models[1].denoiser.denoiser)
    keys = [run_key(cell, replace(model_of(compose(), "cpu"), model_id="same")) for cell in cells]
    assert keys[0] == keys[1]


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a cat\n\na dog\n", "line 2 is blank: write a prompt on each line"),
        (b"", "line 1 is blank"),
        (b"a cat\n \t\n", "line 2 is blank"),
        (b"a \xff cat\n", "is not UTF-8 text (byte 2): save it as UTF-8"),
        (b"a\x1b[31m cat\n", "line 1 has control characters: a\\x1b[31m cat"),
        (b"a cat\n" * 100_001, "has 100001 lines: at most 100000 prompts can be read"),
        (b"cat " * 3000, "line 1 has 12000 characters: at most 10000"),
        (b"cat " * 2**24, "cannot be read: longer than 33,554,432 bytes"),
    ],
)
def test_a_file_of_prompts_is_one_a_line(tmp_path, text, said):
    path = tmp_path / "prompts.txt"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        read_prompts(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_prompts_may_end_in_any_way_and_hold_any_letters(tmp_path):
    path = tmp_path / "prompts.txt"
    for text in ("a cat\nein Schaf, 羊\n", "\ufeffa cat\r\nein Schaf, 羊"):
        path.write_bytes(text.encode())
        assert read_prompts(path) == ("a cat", "ein Schaf, 羊")
    for place, said in ((tmp_path / "no.txt", "is not there"), (tmp_path, "cannot be read")):
        with pytest.raises(ValueError, match=said):
            read_prompts(place)


@pytest.fixture
def folder(saved, tmp_path):
    """A Stable Diffusion pipeline's folder, to be changed."""
    return shutil.copytree(saved("StableDiffusionPipeline")[1], tmp_path / "changed")


def refused(folder, said, prompts=PROMPTS, **options):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        load_pipeline(folder, prompts, **options)
    assert "\n" not in str(error.value)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"_class_name": ["evil", "Pipeline"]},
            "a class of its own; can be sampled: ScoreSdeVePipeline, LDMPipeline, DiTPipeline",
        ),
        (
            {"_class_name": "StableDiffusionUpscalePipeline"},
            "can be sampled: ScoreSdeVePipeline, LDMPipeline",
        ),
        ({"unet": ["evil", "UNet2DConditionModel"]}, "expected diffusers's UNet2DConditionModel"),
        ({"unet": ["diffusers", "AutoencoderKL"]}, "expected diffusers's UNet2DConditionModel"),
        ({"text_encoder": ["evil", "Network"]}, "and no code of the folder's own"),
        ({"tokenizer": ["transformers", "AutoTokenizer"]}, "CLIPTokenizer"),
        ({"vae": [None, None]}, "has no vae in model_index.json"),
        ({"controlnet": ["diffusers", "ControlNetModel"]}, "has a part controlnet"),
    ],
)
def test_a_pipeline_of_anything_else_is_refused_and_nothing_in_the_folder_is_run(folder, changes, said):
    trace = folder / "trace"
    code = f"import pathlib\npathlib.Path({str(trace)!r}).touch()\nclass Pipeline: pass\nNetwork = Pipeline\n"
    for place in (folder, folder / "unet", folder / "text_encoder"):
        for name in ("evil.py", "pipeline.py", "__init__.py"):
            (place / name).write_text(code)
    edit(folder / "model_index.json", **changes)
    refused(folder, said)
    assert not trace.exists()


def test_code_that_a_configuration_names_is_not_run(folder):
    trace = folder / "trace"
    for part in ("text_encoder", "tokenizer", "unet"):
        (folder / part / "evil.py").write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n")
        for path in (folder / part).glob("*config.json"):
            edit(path, auto_map={"AutoModel": "evil.Network", "AutoTokenizer": ["evil.Tokens", None]})
    edit(
        folder / "model_index.json", safety_checker=["evil", "Network"], feature_extractor=["evil", "Network"]
    )
    load_pipeline(folder, PROMPTS)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("place", "changes", "said"),
    [
        ("unet/config.json", {"layers_per_block": 10**9}, "layers_per_block=1000000000: at most 512"),
        ("unet/config.json", {"cross_attention_dim": 10**6}, "numbers, its weights"),
        ("unet/config.json", {"in_channels": 9}, "its network takes 9 channels, its latents have 4"),
        ("unet/config.json", {"time_cond_proj_dim": 8}, "time_cond_proj_dim=8: only None can be sampled"),
        ("unet/config.json", {"quantization_config": {}}, "is of quantised weights"),
        ("unet/config.json", {"sample_size": [8, 16]}, "sample_size=[8, 16] of its network is no known size"),
        ("vae/config.json", {"scaling_factor": None}, "scaling_factor=None of its decoder must be a number"),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor=0 of its decoder must be a number"),
        ("scheduler/scheduler_config.json", {"_class_name": "LCMScheduler"}, "networks distilled for it"),
        ("scheduler/scheduler_config.json", {"_class_name": "EvilScheduler"}, "a scheduler of another kind"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "at most 100000 can be read"),
        ("tokenizer/tokenizer.json", {"model": 3}, "tokenizer cannot be loaded"),
    ],
)
def test_what_cannot_be_sampled_is_refused_by_name(folder, place, changes, said):
    edit(folder / place, **changes)
    refused(folder, said)


def test_options_that_do_not_fit_are_refused(saved, tmp_path, reference, prompts):
    _, folder = saved("StableDiffusionPipeline")
    refused(folder, "which makes images of texts: give model.prompts=<file.txt>", prompts=None)
    refused(folder, "no guidance for an input", distilled_guidance=2.0)
    refused(folder, "model.size=17: its images have a multiple of 2 pixels each way", size=17)
    refused(folder, "model.variant=fp16", variant="fp16")
    _, dit = saved("DiTPipeline")
    refused(dit, "which makes images of classes: leave model.prompts out")
    refused(dit, "the network of a DiTPipeline has a size of its own", prompts=None, size=32)
    write_pipeline(tmp_path / "pixels")
    row = row_of(tmp_path, tmp_path / "pixels", reference, f"model.prompts='{prompts}'", "labels=none")
    assert "model.prompts is for pipelines with more parts" in row["reason"]
    assert load_pipeline(folder, PROMPTS, size=32).decoder.image_shape == (3, 32, 32)


# --- weights ---------------------------------------------------------------------------------------------


def evaluated(folder, **options):
    denoiser = load_pipeline(folder, PROMPTS, **options).denoiser
    return denoiser(torch.ones(3, 4, 8, 8).double(), torch.tensor(2.0).double(), torch.eye(3))


def resaved(saved, folder, **how):
    """The pipeline's folder with the weights of all parts written another way."""
    pipeline, source = saved("StableDiffusionPipeline")
    shutil.copytree(source, folder)
    for part in ("unet", "vae", "text_encoder"):
        shutil.rmtree(folder / part)
        getattr(pipeline, part).save_pretrained(folder / part, **how)
    return folder


def test_sharded_weights_and_variants_are_read(saved, tmp_path):
    wanted = evaluated(saved("StableDiffusionPipeline")[1])
    sharded = resaved(saved, tmp_path / "sharded", max_shard_size="10KB")
    assert len(list((sharded / "unet").glob("*-of-*.safetensors"))) > 1
    assert torch.equal(evaluated(sharded), wanted)
    alone = resaved(saved, tmp_path / "alone", variant="fp16")
    assert torch.equal(evaluated(alone), wanted)
    assert torch.equal(evaluated(alone, variant="fp16"), wanted)
    refused(alone, "model.variant=bf16", variant="bf16")
    listing = next((sharded / "unet").glob("*.index.json"))
    edit(listing, weight_map={"conv_in.weight": "../../elsewhere.safetensors"})
    refused(sharded, "names files that are no weights")


def test_pickled_weights_need_leave(saved, tmp_path):
    _, source = saved("StableDiffusionPipeline")
    folder = shutil.copytree(source, tmp_path / "pickled")
    pipeline = saved("StableDiffusionPipeline")[0]
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    pipeline.unet.save_pretrained(folder / "unet", safe_serialization=False)
    refused(
        folder, "which can run code of whoever wrote it: if you trust them, model.allow_pickle=true reads it"
    )
    assert torch.equal(evaluated(folder, allow_pickle=True), evaluated(source))
    trace = tmp_path / "trace"

    class Evil:
        def __reduce__(self):
            return exec, (f"open({str(trace)!r}, 'w')",)

    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    refused(folder, "allow_pickle=true")
    refused(folder, "unet cannot be loaded", allow_pickle=True)
    assert not trace.exists()


def test_weights_of_another_network_are_refused(folder):
    import safetensors.torch

    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = safetensors.torch.load_file(path)
    state["conv_other.weight"] = state.pop("conv_in.weight")
    safetensors.torch.save_file(state, path)
    refused(folder, "1 missing keys, the first is 'conv_in.weight'")
    path.unlink()
    refused(folder, "holds no weights")


def test_half_precision_is_computed_in_float32(saved, tmp_path):
    pipeline, source = saved("StableDiffusionPipeline")
    folder = shutil.copytree(source, tmp_path / "half")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    copy.deepcopy(pipeline.unet).half().save_pretrained(folder / "unet", variant="fp16")
    found = load_pipeline(folder, PROMPTS).denoiser
    assert {parameter.dtype for parameter in found.net.parameters()} == {torch.float32}
    torch.testing.assert_close(evaluated(folder), evaluated(source), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("library", "command"),
    [("transformers", "pip install transformers"), ("diffusers", "pip install 'seedsbench[diffusers]'")],
)
def test_without_a_library_one_line_says_what_to_install(saved, monkeypatch, library, command):
    _, folder = saved("StableDiffusionPipeline")
    monkeypatch.setitem(sys.modules, library, None)
    refused(folder, command)
