"""metrics=inception and its kin: parity of features with torch-fidelity, and what a row then says."""

import importlib
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from seedsbench import metrics
from seedsbench.bench import run as cell
from seedsbench.bench import scoring
from seedsbench.bench.problems import build as build_module
from seedsbench.bench.problems import scored_on as yardsticks
from seedsbench.bench.problems.base import Model
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.run_key import run_key
from seedsbench.bench.scoring import Scorer, fid_floor
from seedsbench.data.pictures import image_names
from seedsbench.data.uint8 import QUANTISER, to_uint8
from seedsbench.denoisers.base import FixedBatch
from seedsbench.denoisers.finite_data import FiniteData
from seedsbench.metrics import dinov2, inception
from seedsbench.metrics.reference import of_images, write_statistics
from seedsbench.report import summary
from seedsbench.report.curves import MISSING
from seedsbench.report.pareto import Panel
from tests.support.cells import compose, run, same
from tests.support.extractors import (
    DIM,
    HAS_TORCH_FIDELITY,
    fake_extractor,
    some_images,
    write_dinov2,
    write_images,
    write_inception,
)

needs_torch_fidelity = pytest.mark.skipif(not HAS_TORCH_FIDELITY, reason="needs torch-fidelity")
GLYPHS = ("model=glyphs", "solver=euler", "nfe=3", "samples=8")
QUICK = (*GLYPHS, "metrics=inception", "metrics.kid_subsets=2", "metrics.floor_sets=1")


# The network itself


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@needs_torch_fidelity
def test_features_and_logits_are_torch_fidelitys_own(weights):
    images = some_images(2, size=32)
    own = inception._torch_fidelity_class()(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )
    with torch.inference_mode():
        wanted = own(images)
    found = inception.inception_extractor(weights, block=2).extract(images)
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.equal(mine, theirs)
    assert (tuple(found[0].shape), tuple(found[1].shape)) == ((2, 2048), (2, 1008))
    apart = (found[0][0] - found[0][1]).norm() / found[0].norm()
    assert apart > 0.01, "these weights tell images apart"
    assert float(found[0].abs().max()) < inception.BOUND


@pytest.mark.slow
@needs_torch_fidelity
def test_one_run_of_the_real_network_leaves_a_row_with_its_protocol(tmp_path, weights):
    """Four 16 x 16 images: FID, IS, KID, precision and recall in one pass; the second run finds it."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((7, 2048)).astype(np.float32)
    np.savez(tmp_path / "ref.npz", mu=features.mean(0), sigma=np.eye(2048), features=features)
    overrides = ["model=glyphs", "solver=euler", "nfe=3", "samples=4", "metrics=inception"]
    overrides += [
        f"metrics.weights={weights}",
        f"metrics.reference={tmp_path / 'ref.npz'}",
        "metrics.block=2",
    ]
    overrides += [f"metrics.real={tmp_path / 'ref.npz'}", "metrics.splits=2", "metrics.floor_sets=1"]
    row = run(tmp_path, *overrides)
    assert (row["status"], row["reason"]) == ("done", None)
    for name in ("fid", "is_mean", "kid_mean", "kid_std", "precision", "recall", "density"):
        assert math.isfinite(row[name]), name
    assert (row["extractor"], row["reference"], row["quantiser"]) == ("inception-v3", "ref.npz", QUANTISER)
    assert row["extractor_weights"] == inception.file_sha256(weights)[:16]
    assert len(row["reference_id"]) == len(row["extractor_id"]) == 16
    assert run(tmp_path, *overrides, invocation="again") == row


@needs_torch_fidelity
@pytest.mark.parametrize("kind", ["no file", "code", "text", "list", "other"])
def test_a_file_that_is_not_the_weights_is_refused_with_what_to_get(tmp_path, kind):
    path = tmp_path / "w.pth"
    if kind == "code":
        torch.save({"x": nn.Linear(1, 1)}, path)
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "list":
        torch.save([torch.zeros(1)], path)
    elif kind == "other":
        torch.save({"fc.weight": torch.zeros(2)}, path)
    with pytest.raises((ValueError, FileNotFoundError), match=r"w\.pth") as caught:
        inception.inception_extractor(path)
    assert "\n" not in str(caught.value)
    if kind != "other":
        assert "release v0.2.0 of github.com/toshas/torch-fidelity" in str(caught.value)


def test_without_weights_the_row_says_what_to_download_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    np.savez(tmp_path / "ref.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    row = run(tmp_path, *GLYPHS, "metrics=inception", f"metrics.reference={tmp_path / 'ref.npz'}")
    assert row["status"] == "failed"
    assert f"put it at {tmp_path}/hub/checkpoints/weights-inception-2015-12-05-6726825d.pth" in row["reason"]
    row = run(tmp_path, *GLYPHS, "metrics=dinov2", f"metrics.reference={tmp_path / 'ref.npz'}")
    assert "dinov2_vitl14_pretrain.pth" in row["reason"]
    row = run(tmp_path, *GLYPHS, "metrics=inception")
    assert "glyphs names no reference for metrics=inception: give metrics.reference=" in row["reason"]


def test_the_weights_are_found_where_torch_fidelity_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / inception.WEIGHTS_FILE
    with pytest.raises(FileNotFoundError, match=r"metrics\.weights="):
        inception.find_weights(None)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    assert inception.find_weights(None) == place


@needs_torch_fidelity
def test_images_that_are_not_uint8_are_refused(weights):
    network = inception.InceptionFeatures(weights)
    with pytest.raises(ValueError, match=r"images are torch.float32 \(1, 3, 8, 8\)"):
        network(torch.zeros(1, 3, 8, 8))


def test_a_torchvision_of_another_torch_build_is_said_with_what_to_install(monkeypatch):
    """Its operators do not load, and it fails for want of them: any CUDA build on a CPU torch."""

    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ValueError, match=r"torchvision made for this torch \(.*nms.*pip install torch torch"):
        inception._torch_fidelity_class()


def test_a_missing_torch_fidelity_is_a_plain_message(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match="metrics=inception needs torch-fidelity and torchvision"):
        inception._torch_fidelity_class()


# DINOv2


def test_dinov2_reads_its_size_from_the_checkpoint_and_gives_finite_features(tmp_path):
    extractor = dinov2.dinov2_extractor(write_dinov2(tmp_path / "vit.pth"), block=3)
    assert (extractor.dim, extractor.n_classes, extractor.name) == (128, 0, "dinov2-vit-128-14")
    features, logits = extractor.padded(some_images(2, size=32))
    assert logits is None
    assert tuple(features.shape) == (2, 128)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])


def test_a_dinov2_block_is_attention_and_mlp_as_written():
    """Against torch's own encoder layer with the same numbers; LayerScale folded into the last layers."""
    torch.manual_seed(0)
    block = dinov2.Block(128, 256)
    for scale in (block.ls1["gamma"], block.ls2["gamma"]):
        nn.init.uniform_(scale, 0.5, 1.5)
    layer = nn.TransformerEncoderLayer(
        128, 2, 256, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    attn = layer.self_attn
    pairs = [(attn.in_proj_weight, block.attn["qkv"].weight), (attn.in_proj_bias, block.attn["qkv"].bias)]
    pairs += [(layer.linear1.weight, block.mlp["fc1"].weight), (layer.linear1.bias, block.mlp["fc1"].bias)]
    g1, g2 = block.ls1["gamma"], block.ls2["gamma"]
    pairs += [(attn.out_proj.weight, g1[:, None] * block.attn["proj"].weight)]
    pairs += [
        (attn.out_proj.bias, g1 * block.attn["proj"].bias),
        (layer.linear2.bias, g2 * block.mlp["fc2"].bias),
    ]
    pairs += [(layer.linear2.weight, g2[:, None] * block.mlp["fc2"].weight)]
    with torch.no_grad():
        for theirs, mine in pairs:
            theirs.copy_(mine)
        x = torch.randn(2, 5, 128)
        torch.testing.assert_close(block(x), layer(x), rtol=1e-4, atol=1e-5)


@needs_torch_fidelity
def test_images_are_resized_as_torch_fidelity_does():
    inception._torch_fidelity_class()
    module = importlib.import_module("torch_fidelity.interpolate_compat_tensorflow")
    for size in (32, 300):
        x = some_images(2, size=size).float()
        wanted = module.interpolate_bilinear_2d_like_tensorflow1x(x, size=(224, 224), align_corners=False)
        torch.testing.assert_close(dinov2.resized(x, 224), wanted, rtol=1e-5, atol=1e-3)


def test_another_checkpoint_is_no_dinov2(tmp_path):
    torch.save({"cls_token": torch.zeros(1, 1, 128)}, tmp_path / "vit.pth")
    with pytest.raises(ValueError, match="not a DINOv2 ViT-S/B/L checkpoint"):
        dinov2.dinov2_extractor(tmp_path / "vit.pth")
    state = torch.load(write_dinov2(tmp_path / "vit.pth"), weights_only=True)
    torch.save({**state, "register_tokens": torch.zeros(1, 4, 128)}, tmp_path / "vit.pth")
    with pytest.raises(ValueError, match=r"register_tokens.*no registers"):
        dinov2.dinov2_extractor(tmp_path / "vit.pth")


# The group: any model, any extractor


@pytest.fixture
def fake(monkeypatch, nothing_loaded):
    """metrics=inception with six features instead of 2048."""
    monkeypatch.setitem(yardsticks._EXTRACTORS, "inception", fake_extractor)


@pytest.fixture
def real(tmp_path):
    return write_images(tmp_path / "real", some_images(40, size=16, seed=1))


def reference_of(tmp_path, folder, name="ref.npz", features=False):
    found = of_images(folder, fake_extractor("None"), features=features)
    write_statistics(tmp_path / name, found, fake_extractor("None"))
    return tmp_path / name


def key_of(*overrides):
    cfg = compose(*QUICK, *overrides)
    return run_key(cfg, problem_of(cfg, "cpu"))


def test_scores_are_those_of_the_features(tmp_path, fake, real):
    """A row's numbers once more, from the samples' features and the metrics as functions."""
    row = run(tmp_path, *QUICK, f"metrics.real={real}", "metrics.splits=2")
    cfg = compose(*QUICK, f"metrics.real={real}")
    problem = problem_of(cfg, "cpu")
    from seedsbench.api import noise_levels
    from seedsbench.bench.sampling import SamplingPlan, generate
    from seedsbench.registry import build

    schedule, grid, solver = (build(getattr(cfg, group)) for group in ("schedule", "grid", "solver"))
    sigmas, fitted = noise_levels(problem.denoiser, schedule, grid, row["n_steps"])
    (batch,) = generate(problem.denoiser, SamplingPlan(solver, fitted, sigmas), torch.arange(8), batch_size=8)
    features, logits = problem.features.extract(to_uint8(batch.x))
    reference = of_images(real, fake_extractor(), features=True)
    fid = metrics.frechet_distance(
        features.double().mean(0), features.double().T.cov(), reference.moments.mu, reference.moments.sigma
    )
    assert row["fid"] == pytest.approx(
        fid, rel=1e-4
    )  # features are rounded to 2^-17; 8 samples of 6 features
    assert row["is_mean"] == pytest.approx(metrics.inception_score(logits, splits=2)[0], rel=1e-9)
    kid, _ = metrics.kernel_distance(features, reference.features, 2, 8)
    assert row["kid_mean"] == pytest.approx(kid, rel=1e-9)
    found = metrics.precision_recall(reference.features, features, k=3)
    assert {name: row[name] for name in found} == found


def test_rows_do_not_depend_on_the_batch_size(tmp_path, fake, real):
    overrides = [f"metrics.real={real}", "samples=11"]
    rows = [run(tmp_path / str(size), *QUICK, *overrides, f"batch_size={size}") for size in (1, 5, 11)]
    assert [same(row) for row in rows] == [same(rows[0])] * 3
    assert rows[0]["fid_floor"] > 0


def test_a_model_without_features_takes_them_from_the_group(tmp_path, fake, real, monkeypatch):
    monkeypatch.setattr(build_module, "_model", lambda *_: bare(compose(*GLYPHS)))
    row = run(tmp_path, *GLYPHS)
    assert row["status"] == "failed"
    assert "bare has no features of its own to be scored on: choose metrics=inception" in row["reason"]
    row = run(tmp_path, *QUICK, f"metrics.reference={real}")
    assert (row["status"], row["reference"], row["extractor"]) == ("done", "real", "fake")
    assert row["fid_floor"] is None
    assert "kid_mean" not in row


def bare(cfg):
    from seedsbench.bench.problems.glyphs import glyphs_problem

    problem = glyphs_problem(cfg.regime.name)
    return Model("bare", problem.denoiser, problem.model_id)


SMALL = ("metrics.kid_subset_size=20",)


@pytest.mark.parametrize("kind", ["folder", "statistics"])
def test_a_reference_of_another_size_is_said_in_the_row(tmp_path, fake, kind):
    large = write_images(tmp_path / "large", some_images(20, size=64))
    given = large if kind == "folder" else reference_of(tmp_path, large)
    row = run(tmp_path, *QUICK, f"metrics.reference={given}")
    assert (row["status"], row["reference_images"], row["reference_shape"]) == ("done", 20, "3x64x64")
    assert row["warning"] == (
        f"{given.name} is of images of 64 x 64 pixels, the samples have 16 x 16: "
        "such scores compare with no others"
    )


def test_a_reference_that_fits_or_says_nothing_of_itself_warns_of_nothing(tmp_path, fake, real):
    row = run(tmp_path, *QUICK, *SMALL, f"metrics.real={real}")
    assert (row["reference_images"], row["reference_shape"], row["warning"]) == (40, "3x16x16", None)
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(DIM), sigma=np.eye(DIM))
    row = run(tmp_path, *QUICK, f"metrics.reference={tmp_path / 'foreign.npz'}")
    assert (row["reference_images"], row["reference_shape"], row["warning"]) == (None, "unknown", None)
    row = run(tmp_path, *GLYPHS)
    assert (row["reference_shape"], row["warning"]) == (None, None)


def test_few_real_images_are_said_in_the_row(tmp_path, fake):
    few = write_images(tmp_path / "few", some_images(5, size=16))
    row = run(tmp_path, *QUICK, f"metrics.real={few}")
    assert row["warning"] == (
        "few is of 5 images for 6 features: its covariance is singular; "
        "few holds 5 images, fewer than KID's subsets want"
    )


def test_real_images_are_compared_with_the_samples_as_the_reference_is(tmp_path, fake, real):
    large = write_images(tmp_path / "large", some_images(20, size=64))
    row = run(tmp_path, *QUICK, *SMALL, f"metrics.reference={real}", f"metrics.real={large}")
    assert row["warning"].startswith("large is of images of 64 x 64 pixels")
    assert row["reference_shape"] == "3x16x16"


def test_samples_in_an_npz_are_the_reference_that_their_folder_is(tmp_path, fake, real):
    images = some_images(40, size=16, seed=1).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "samples.npz", images, np.arange(40))
    keys = {key_of(f"metrics.real={path}") for path in (real, tmp_path / "samples.npz")}
    assert len(keys) == 1


# Grey networks


def grey_model():
    images = some_images(12, size=16, seed=4)[:, :1].double() / 127.5 - 1
    return Model("grey", FixedBatch(FiniteData(images, sigma_min=0.002, sigma_max=80.0)), "grey")


@pytest.fixture
def grey_files(tmp_path):
    (tmp_path / "grey").mkdir()
    for i, image in enumerate(some_images(12, size=16, seed=4)):
        Image.fromarray(image[0].numpy()).save(tmp_path / "grey" / f"{i}.png")
    return tmp_path / "grey"


def test_grey_samples_are_scored_against_grey_images(tmp_path, fake, grey_files, real, monkeypatch):
    monkeypatch.setattr(build_module, "_model", lambda *_: grey_model())
    long = (*QUICK, "solver=heun", "nfe=35")
    row = run(tmp_path, *long, f"metrics.reference={grey_files}")
    assert (row["status"], row["reference_shape"], row["warning"]) == ("done", "1x16x16", None)
    other = run(tmp_path, *long, f"metrics.reference={real}")
    assert other["warning"] == "real is of colour images, the samples are grey"
    assert other["fid"] > 5 * row["fid"]


@pytest.mark.parametrize("extractor", ["inception", "dinov2"])
def test_grey_samples_and_grey_files_are_treated_alike(tmp_path, grey_files, request, extractor):
    """One channel as a sample has it, and the file read as RGB: the same features, to the bit."""
    if extractor == "dinov2":
        found = dinov2.dinov2_extractor(write_dinov2(tmp_path / "vit.pth"), block=6)
    else:
        pytest.importorskip("torch_fidelity")
        found = inception.inception_extractor(request.getfixturevalue("weights"), block=6)
    wanted = of_images(grey_files, found, features=True)
    names = [int(Path(name).stem) for name in image_names(grey_files)]
    samples = some_images(12, size=16, seed=4)[names, :1]
    mine = torch.cat([found.padded(block)[0] for block in samples.split(6)])
    assert torch.equal(mine.float(), wanted.features)
    assert wanted.facts == "1x16x16"


def test_run_keys_follow_contents_and_not_places(tmp_path, fake, real):
    npz, copy = reference_of(tmp_path, real), reference_of(tmp_path, real, "copy.npz")
    other = reference_of(
        tmp_path, write_images(tmp_path / "other", some_images(40, size=16, seed=2)), "other.npz"
    )
    keys = [key_of(f"metrics.reference={path}") for path in (npz, copy, other, real)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    held = reference_of(tmp_path, real, "held.npz", features=True)
    keys += [key_of(f"metrics.reference={npz}", f"metrics.real={path}") for path in (held, real)]
    keys += [key_of(f"metrics.reference={npz}", f"metrics.{option}") for option in ("splits=2", "block=5")]
    assert len(set(keys)) == 7


def test_the_weights_are_in_the_key(tmp_path, fake, real):
    assert key_of(f"metrics.reference={real}") != key_of(f"metrics.reference={real}", "metrics.weights=other")


def test_scores_do_not_depend_on_order(fake, real, tmp_path):
    cfg = compose(*QUICK, f"metrics.real={real}")
    problem, images = problem_of(cfg, "cpu"), some_images(11, size=16, seed=3)
    scores = []
    for order in (torch.arange(11), torch.arange(10, -1, -1)):
        scorer = Scorer(problem, 11, splits=2)
        for part in order.split(3):
            scorer.update(part, images[part])
        scores.append(scorer.compute())
    assert scores[0] == scores[1]
    assert {"fid", "is_mean", "kid_mean", "precision", "coverage"} <= set(scores[0])


def test_scores_of_pairs_can_be_left_out_one_by_one(tmp_path, fake, real):
    for option, left_out, kept in (
        ("metrics.neighbours=0", scoring.MANIFOLD, scoring.KERNEL),
        ("metrics.kid_subsets=0", scoring.KERNEL, scoring.MANIFOLD),
    ):
        row = run(tmp_path, *QUICK, f"metrics.real={real}", option)
        assert not row.keys() & {*left_out}
        assert row.keys() >= {*kept}


@pytest.mark.parametrize("n", [2, 3])
def test_few_real_images_cost_precision_and_recall_and_not_the_fid(tmp_path, fake, n):
    folder = write_images(tmp_path / "few", some_images(n, size=16, seed=1))
    row = run(tmp_path, *QUICK, f"metrics.real={folder}")
    assert row["status"] == "done"
    assert math.isfinite(row["fid"])
    assert math.isfinite(row["kid_mean"])
    assert [row[name] for name in scoring.MANIFOLD] == [None] * 4
    expected = f"no precision, recall, density, coverage: k = 3 neighbours do not exist among {n} real"
    assert expected in row["warning"]
    fewer = run(tmp_path, *QUICK, f"metrics.real={folder}", "metrics.neighbours=1")
    assert "neighbours do not exist" not in fewer["warning"], "what is left is that the images are few"
    assert None not in [fewer[name] for name in scoring.MANIFOLD]


@pytest.mark.parametrize(
    ("where", "name", "scores"),
    [
        (scoring.InceptionScore, "compute", ("is_mean", "is_std")),
        (scoring, "kernel_distance", scoring.KERNEL),
        (scoring, "precision_recall", scoring.MANIFOLD),
        (cell, "fid_floor", ("fid_floor",)),
    ],
)
@pytest.mark.parametrize("error", [ValueError, ZeroDivisionError, torch.linalg.LinAlgError])
def test_no_score_beside_fid_takes_it_down(tmp_path, fake, real, monkeypatch, where, name, scores, error):
    whole = run(tmp_path, *QUICK, f"metrics.real={real}", "study=whole")

    def fails(*_, **__):
        raise error("it does\nnot converge")

    monkeypatch.setattr(where, name, fails)
    row = run(tmp_path, *QUICK, f"metrics.real={real}")
    assert f"no {', '.join(scores)}: it does not converge" in row["warning"].split("; ")
    for one in ("fid", "fid_floor", "is_mean", "is_std", *scoring.KERNEL, *scoring.MANIFOLD):
        assert row[one] == (None if one in scores else whole[one]), one


def test_an_error_of_the_fid_fails_the_row(tmp_path, fake, real, monkeypatch):
    def fails(*_):
        raise ValueError("no covariance")

    monkeypatch.setattr(scoring.FID, "compute", fails)
    row = run(tmp_path, *QUICK, f"metrics.real={real}")
    assert (row["status"], row["reason"]) == ("failed", "no covariance")


def test_the_floor_needs_twice_as_many_real_images(fake, real):
    problem = problem_of(compose(*QUICK, f"metrics.real={real}"), "cpu")
    assert fid_floor(problem, 20, "balanced", 2) > 0
    assert fid_floor(problem, 21, "balanced", 2) is None
    assert fid_floor(problem, 10, "balanced", 2) > fid_floor(problem, 20, "balanced", 2)


@pytest.mark.parametrize("extractor", ["inception-v3", "dinov2-vit-l-14"])
def test_few_samples_are_said_to_bias_the_fid(extractor):
    def said(samples, which=extractor):
        return summary.bias(Panel({"extractor": which, "samples": samples}, "", "", pd.DataFrame(), {}))

    assert "biased upwards by few samples: at 2,000 compare it" in said("2000")
    assert said("9999")
    assert "at 2,000 compare it" in said("2000", "glyphs-64d")
    assert said("10000") == said("50000") == said(MISSING) == ""
