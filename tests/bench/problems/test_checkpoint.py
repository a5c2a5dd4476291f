"""Models that come from checkpoints: configurations, dry runs, helpful failures. No network, no weights."""

import shutil
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import requests

from seedsbench.bench.problems import build, scored_on
from seedsbench.bench.problems.build import model_of, problem_of
from seedsbench.bench.problems.checkpoint import CPU_BATCH, Checkpoint, placed
from seedsbench.bench.problems.glyphs import glyphs_problem
from seedsbench.bench.rows.run_key import what_changes_numbers
from seedsbench.cli.command import Usage, parse
from seedsbench.cli.dry_run import dry_run_text
from seedsbench.data.glyphs import ASSETS
from seedsbench.denoisers.base import FixedBatch
from seedsbench.files import download as fetch
from seedsbench.files.model_files import wanted_files
from tests.support.cells import check, compose, model_files, run
from tests.support.machine import ROOT

TARGET = "seedsbench.bench.problems.checkpoint.checkpoint_problem"
LOADED = model_files()
PUBLISHED = {name: model for name, model in LOADED.items() if "files" in model}
EDM2 = {name for name in PUBLISHED if name.startswith("edm2_")}  # see test_edm2_models.py
OWN = [name for name, model in LOADED.items() if model["_target_"] == TARGET and name not in PUBLISHED]
CELLS = [(name, regime) for name, model in PUBLISHED.items() for regime in model["files"]]
HOME = "https://nvlabs-fi-cdn.nvidia.com/edm/"
EDM_FILES = {  # facts/checkpoints.md, section 4.1
    *(f"edm-cifar10-32x32-{c}-{r}.pkl" for c in ("cond", "uncond") for r in ("vp", "ve")),
    *(f"edm-{d}-64x64-uncond-{r}.pkl" for d in ("ffhq", "afhqv2") for r in ("vp", "ve")),
    "edm-imagenet-64x64-cond-adm.pkl",
}
BASELINE_FILES = {
    "baseline-cifar10-32x32-uncond-vp.pkl",
    "baseline-cifar10-32x32-uncond-ve.pkl",
    "baseline-imagenet-64x64-cond-adm.pkl",
}


OTHERS = {
    "https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-256x256.pt",
    "https://github.com/atong01/conditional-flow-matching/releases/download/1.0.4/"
    "otcfm_cifar10_weights_step_400000.pt",
}
SHARED = ("drive.", "dropbox")
"""In the addresses of files that lie with a keeper of files."""
ADM_BATCH = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/"
ADM_BATCH += "VIRTUAL_imagenet256_labeled.npz"


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch, nothing_loaded):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDSBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_get", Mock(side_effect=requests.ConnectionError("Name not known")))


def dry_run(*arguments):
    """What dry_run=true prints for one cell."""
    return dry_run_text([compose(*arguments)])


def test_every_published_file_has_a_model_and_only_the_imagenet_baseline_a_reference_of_its_own():
    urls = {
        model["files"][regime]["url"]
        for name, model in PUBLISHED.items()
        if name not in EDM2
        for regime in model["files"]
    }
    expected = {f"{HOME}pretrained/{name}" for name in EDM_FILES} | OTHERS
    expected |= {f"{HOME}pretrained/baseline/{name}" for name in BASELINE_FILES}
    assert {url for url in urls if not any(part in url for part in SHARED)} == expected
    assert set(PUBLISHED) - EDM2 == {
        *("cifar10_uncond", "cifar10_cond", "ffhq64", "afhqv2", "imagenet64", "celeba64"),
        *("cifar10_uncond_baseline", "imagenet64_baseline"),
        *("cifar10_otcfm", "imagenet256_sit", "imagenet256_dit"),
    }
    assert set(OWN) == {"file"}
    refs = {
        name: model["reference"]["url"]
        for name, model in PUBLISHED.items()
        if name not in EDM2 | {"celeba64"}
    }
    assert refs.pop("imagenet64_baseline") == f"{HOME}fid-refs/imagenet-64x64-baseline.npz"
    assert {refs.pop("imagenet256_sit"), refs.pop("imagenet256_dit")} == {ADM_BATCH}
    names = {"cifar10-32x32", "ffhq-64x64", "afhqv2-64x64", "imagenet-64x64"}
    assert set(refs.values()) == {f"{HOME}fid-refs/{name}.npz" for name in names}


def test_the_documentation_lists_every_published_model_with_its_size_and_licence():
    lines = (ROOT / "docs" / "models.md").read_text().splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line[:1] == "|"]
    for name, model in PUBLISHED.items():
        ((_, regimes, _, size, licence),) = [row for row in rows if len(row) == 5 and f"`{name}`" in row[0]]
        assert regimes.split() == list(model["files"])
        assert model["licence"].startswith(licence.strip())
        sizes = {entry.get("about_mb") for entry in model["files"].values()}
        ends = [min(sizes), max(sizes)] if None not in sizes else ["unknown"]
        assert size.strip() == " to ".join(map(str, dict.fromkeys(ends)))


@pytest.mark.parametrize(("model", "regime"), CELLS)
def test_every_model_composes_and_dry_runs(model, regime, tmp_path):
    said = dry_run(f"model={model}", f"regime={regime}")
    remotes = [wanted.remote for wanted in wanted_files(PUBLISHED[model], regime) if wanted.remote]
    assert len(remotes) == 2
    assert ("give model.vae=" in said) == ("latents" in PUBLISHED[model])
    for remote in remotes:
        assert remote.source in said
        assert str(tmp_path / "cache" / remote.name) in said
        assert remote.licence in said
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("model", "regime"), CELLS)
@pytest.mark.parametrize("offline", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_without_network_a_row_says_what_to_download_and_where_to_put_it(
    model, regime, offline, tmp_path, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda _: None)
    (tmp_path / "vae").mkdir()
    vae = ["model.vae=vae"] if "latents" in PUBLISHED[model] else []
    row = run(tmp_path, f"model={model}", f"regime={regime}", f"offline={offline}", *vae)
    remote = wanted_files(PUBLISHED[model], regime)[0].remote
    assert row["status"] == "failed"
    for expected in (f"download {remote.source}", f"put it at {tmp_path / 'cache' / remote.name}"):
        assert expected in row["reason"]
    assert ("offline=true" if offline == "true" else "no connection") in row["reason"]
    assert "Traceback" not in row["reason"]
    assert "FetchError" not in row["reason"]


def test_a_metrics_group_has_files_too(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    said = dry_run("model=ffhq64", "regime=vp", "metrics=inception")
    assert said.startswith("model=ffhq64 regime=vp metrics=inception:\n")
    place = tmp_path / "torch" / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    assert f"to       {place} (not there yet)" in said
    said = dry_run("model=ffhq64", "regime=vp", "metrics=dinov2", "metrics.real=photos")
    assert "by hand (page: https://dl.fbaipublicfiles.com/" in said
    assert "fid-refs" not in said, "published statistics are of Inception features"
    assert f"reference: {tmp_path / 'photos'} (missing)" in said
    said = dry_run("model=ffhq64", "regime=vp", "metrics=inception", "metrics.reference=mine.npz")
    assert "fid-refs" not in said
    said = dry_run("model=glyphs", "metrics=inception", "metrics.weights=w.pth")
    assert said.splitlines()[1:] == [f"  inception weights: {tmp_path / 'w.pth'} (missing)"]


@pytest.mark.slow
def test_a_walk_over_everything_names_what_cannot_be_describes_each_file_once_and_writes_nothing(tmp_path):
    walk = ["-m", "model=glob(*)", "regime=vp,edm", "metrics=inception", "dry_run=true"]
    said = check(parse(walk))[1]
    for name, model in PUBLISHED.items():
        for regime in {"vp", "edm"} & set(model["files"]):
            entry = model["files"][regime]
            assert f"model={name} regime={regime} metrics=inception:\n" in said
            assert said.count(entry["url"] + "\n") + said.count(entry["url"] + " (page") == 1
    assert "model=celeba64 has no weights for regime=edm: use regime=vp" in said
    assert "model=file needs your weights" in said
    assert said.count("from     https://github.com/toshas") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_a_yardstick_is_refused_before_it_is_fetched():
    with pytest.raises(Usage, match=r"model=cifar10_cond: a network from a file .* add metrics=inception"):
        check(parse(["model=cifar10_cond"]))
    told = check(parse(["model=cifar10_cond", "dry_run=true"]))[1]
    assert "add metrics=inception" in told


def test_models_without_files_have_nothing_to_fetch():
    assert dry_run("model=glyphs", "regime=edm") == "model=glyphs regime=edm: nothing to fetch"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model=imagenet64", "regime=vp"], "model=imagenet64 has no weights for regime=vp: use regime=edm"),
        (
            ["model=digits", "regime=ve"],
            "model=digits has no weights for regime=ve: use regime=edm or regime=vp",
        ),
        (
            ["model=digits", "regime=vp", "model.training=1"],
            "has no training 1 for regime=vp: there are 0",
        ),
        (["model=file"], "model=file needs your weights: add model.path="),
        (["model=cifar10_cond", "model.files.edm.sha256=abc"], "64 lower-case hex digits"),
        (["model=cifar10_cond", "model.files.edm.url=file:///x.pkl"], "use an https:// address"),
        (["model=cifar10_cond", "+model.files.edm.sha=x"], "unknown option 'sha'. Did you mean 'sha256'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(arguments, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        dry_run(*arguments)
    assert "\n" not in str(caught.value)


# --- with weights: the package's own format stands in for a checkpoint ---------------------------


@pytest.fixture
def scored(monkeypatch):
    """Checkpoints scored as the glyphs are; remembers the models that came."""
    glyphs, given = glyphs_problem("vp"), []

    def problem(model, weaker, regime, metrics, device):
        made = build._model(model, regime, device)
        given.append(made)
        if not isinstance(made, Checkpoint):
            return made
        return replace(glyphs, name=made.name, denoiser=made.denoiser, model_id=made.model_id)

    monkeypatch.setattr(build, "_problem", problem)
    return given


@pytest.fixture
def weights(tmp_path):
    return shutil.copy(ASSETS / "vp.safetensors", tmp_path / "mine.safetensors")


def test_a_file_of_ones_own_runs_and_is_known_by_its_contents(tmp_path, weights, scored):
    given = ("model=file", "regime=vp", "solver=euler", "nfe=4", "samples=20")
    row = run(tmp_path, *given, f"model.path={weights}")
    assert row["status"] == "done", row["reason"]
    shutil.move(weights, tmp_path / "renamed.safetensors")
    again = run(tmp_path, *given, f"model.path={tmp_path / 'renamed.safetensors'}", "offline=true")
    assert again["run_key"] == row["run_key"]
    assert again["time_utc"] == row["time_utc"]  # found, not computed
    builtin = run(tmp_path, "model=glyphs", *given[1:])
    assert builtin["fid"] == row["fid"]


def test_neither_dry_run_nor_offline_nor_a_path_enters_the_run_key(weights, scored):
    cfg = compose("model=file", f"model.path={weights}", "regime=vp")
    problem = problem_of(cfg, "cpu")
    known = what_changes_numbers(cfg, problem)
    other = compose("model=file", "model.path=elsewhere", "regime=vp", "offline=true", "dry_run=true")
    assert what_changes_numbers(other, problem) == known
    assert what_changes_numbers(cfg, replace(problem, model_id="other")) != known
    assert what_changes_numbers(cfg, None) != what_changes_numbers(other, None)  # two failures, two rows


def test_the_statistics_of_the_model_are_what_inception_compares_with(tmp_path, weights, monkeypatch):
    np.savez(tmp_path / "ref.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    extractor = replace(glyphs_problem("vp").features, dim=2048)
    for name in ("inception", "dinov2"):
        monkeypatch.setitem(scored_on._EXTRACTORS, name, lambda *_, **__: extractor)
    given = ("model=file", f"model.path={weights}", "model.reference=ref.npz")
    problem = problem_of(compose(*given, "metrics=inception"), "cpu")
    assert problem.reference_name == "ref.npz"
    assert problem.reference.mu.shape == (2048,)
    with pytest.raises(ValueError, match="names no reference for metrics=dinov2"):
        problem_of(compose(*given, "metrics=dinov2"), "cpu")


def test_cached_weights_of_another_model_are_refused(tmp_path, weights, scored):
    (tmp_path / "cache").mkdir()
    shutil.copy(weights, tmp_path / "cache" / "w.safetensors")
    (tmp_path / "cache" / "cifar10-32x32.npz").write_bytes(b"x")
    url = "model.files.vp.url=https://example.org/w.safetensors"
    cfg = compose("model=cifar10_cond", "regime=vp", url, "model.files.vp.format=null", "offline=true")
    with pytest.raises(ValueError, match=r"model=cifar10_cond holds a network for images \[3, 16, 16\]"):
        problem_of(cfg, "cpu")


def test_on_the_cpu_a_network_sees_batches_of_one_size():
    inner = glyphs_problem("vp").denoiser.denoiser
    wrapped = placed(inner, "cpu")
    assert isinstance(wrapped, FixedBatch)
    assert wrapped.size == CPU_BATCH
    assert placed(wrapped, "cpu") is wrapped
    assert placed(wrapped, "meta") is inner
    with pytest.raises(ValueError, match="use device=cpu"):
        placed(model_of(compose("model=gaussian"), "cpu").denoiser, "meta")
