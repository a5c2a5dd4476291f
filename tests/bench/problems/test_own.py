"""From one's own float32 network to a row: the documented recipe, and each wrong form of it in one line."""

import re
import sys

import pytest
import torch

from seedsbench.bench.problems import build
from seedsbench.bench.problems.build import problem_of
from seedsbench.bench.rows.run_key import run_key
from seedsbench.cli.command import Usage, parse
from seedsbench.metrics.values import values_extractor
from tests.support.cells import check, compose, python, rows_of, run
from tests.support.documents import blocks, commands, files
from tests.support.extractors import some_images, write_images

PAGE = "docs/bring-your-network.md"
MYNET = files()["mynet.py"]
COMMAND = next(block for block in blocks(PAGE) if block.language == "bash")
QUICK = ("model=python", "metrics=values", "metrics.reference=images", "solver=euler", "nfe=4", "samples=8")


def forget_loaded():
    """Have models loaded anew, as another process does."""
    build._problem.cache_clear()
    build._model.cache_clear()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory, with images to compare with and the recipe's mynet.py."""
    monkeypatch.chdir(tmp_path)
    forget_loaded()
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_images(tmp_path / "images", some_images(200))  # more than values
    (tmp_path / "mynet.py").write_text(MYNET)
    return tmp_path


def row_of(folder, *overrides, text=None):
    """The row of mynet.py, or of this text as own.py, which says no shape."""
    given = ["model.path=mynet.py:build"]
    if text is not None:
        (folder / "own.py").write_text(text)
        given = ["model.path=own.py:build", "model.shape=[3,8,8]"]
    forget_loaded()
    return run(folder, *QUICK, *given, *overrides)


def done(row):
    assert row["status"] == "done", row["reason"]
    return row


def test_the_recipe_of_twelve_lines_leaves_a_row(folder):
    lines = [*MYNET.splitlines(), *COMMAND.text.splitlines()]
    assert len([line for line in lines if line]) <= 12
    ((_, *words),) = commands(COMMAND, folder)
    words += ["samples=16", "device=cpu", "study=own"]
    python("-m", "seedsbench", *words, folder=folder)
    (row,) = rows_of(folder / "results" / "own").values()
    done(row)
    assert (row["reason"], row["model"], row["extractor"]) == (None, "python", "values")
    assert row["warning"] is None
    assert row["nfe"] <= 8
    assert (folder / "results" / "own" / "report.html").is_file()
    (found,), _ = check(parse(words))
    assert run_key(found.cell, problem_of(found.cell, "cpu")) == row["run_key"], "in any process: found done"


FORMS = {
    "module": "return Net()",
    "function": "net = Net()\n    return lambda x, sigma, labels: net(x.float(), sigma)",
    "method": "return Net().forward",
    "itself": "return seedsbench.analytic.Gaussian(0.1, 0.5, (3, 8, 8))",
}
DENOISING = """
import torch, seedsbench
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.variance = torch.nn.Parameter(torch.tensor(0.25))
    def forward(self, x, sigma, labels=None):
        sigma = sigma.reshape(-1, 1, 1, 1)
        return x * self.variance / (self.variance + sigma**2)
def build(std=0.5):
    {form}
"""


@pytest.mark.parametrize("form", FORMS)
def test_whatever_denoises_can_be_returned(folder, form):
    assert done(row_of(folder, text=DENOISING.format(form=FORMS[form])))["warning"] is None


@pytest.mark.parametrize("form", ["module", "function"])
def test_a_yaml_whose_target_returns_a_denoiser_is_a_model(folder, form, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    (folder / f"own_{form}.py").write_text(DENOISING.format(form=FORMS[form]))
    (folder / "model").mkdir()
    text = f"_target_: own_{form}.build\nname: mine\nshape: [3, 8, 8]\nstd: 0.5\n"
    (folder / "model" / "mine.yaml").write_text(text)
    forget_loaded()
    assert done(run(folder, *QUICK, "model=mine", config_dirs=[folder]))["model"] == "mine"
    forget_loaded()
    assert "sdt" in run(folder, *QUICK, "model=mine", "+model.sdt=1", config_dirs=[folder])["reason"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (None, "model=python needs your function: add model.path=<file.py>:<function>"),
        ("mynet.py", "model.path=mynet.py: give model.path=<file.py>:<function>"),
        ("mynet.pth:build", "model.path=mynet.pth:build: give model.path=<file.py>:<function>"),
        ("nowhere.py:build", "nowhere.py: no such file"),
        ("mynet.py:biuld", "mynet.py: unknown function 'biuld'. Did you mean 'build'?"),
        ("broken.py:build", "broken.py:2 is no Python"),
    ],
)
def test_what_its_text_tells_is_refused_before_anything_runs(folder, path, said):
    (folder / "broken.py").write_text("x = 1\ndef build(:\n")
    given = "model.path=null" if path is None else f"model.path='{path}'"
    with pytest.raises(Usage) as caught:
        check(parse(["model=python", given, *QUICK[1:]]))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "results").exists()


WRONG = {
    "import": ("import nothing_like_it\ndef build(): pass", "raised ModuleNotFoundError: .* \\(own.py:1\\)"),
    "raises": (
        "def build():\n    x = 1\n    raise KeyError('weights')",
        r"own\.py:build raised KeyError: .* \(own.py:3\)",
    ),
    "none": ("def build(): pass", "own.py:build returned NoneType: expected a denoiser"),
    "dict": ("def build(): return {}", "own.py:build returned dict: expected a denoiser"),
    "number": ("build = 3", "own.py:build is int: give a function that returns a denoiser"),
    "no shape": (
        "import torch\ndef build(): return torch.nn.Identity()",
        r"of which shape .* as model\.shape=\[3,32,32\]",
    ),
    "needs": ("def build(width, depth=1): pass", "own.py:build needs width: give model.options={width: ...}"),
    "arguments": ("def build(): return lambda x: x", r"no denoiser: .*TypeError.*positional argument"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_only_running_it_tells_is_the_rows_reason(folder, name):
    text, said = WRONG[name]
    row = row_of(folder, *(["model.shape=null"] if name == "no shape" else []), text=text + "\n")
    assert row["status"] == "failed"
    assert re.search(said, row["reason"]), row["reason"]


def test_unknown_options_are_named_and_known_ones_passed(folder):
    text = DENOISING.format(form="assert std == 0.7\n    return Net()")
    done(row_of(folder, "+model.options={std: 0.7}", text=text))
    row = row_of(folder, "+model.options={sdt: 0.7}", text=text)
    assert row["reason"] == "own.py:build: unknown option 'sdt'. Did you mean 'std'?"


def test_a_shape_that_is_not_the_denoisers_is_refused(folder):
    row = row_of(folder, "model.shape=[3,16,16]")
    assert "holds a network for images [3, 8, 8] and 0 classes" in row["reason"]


NOISE_PREDICTION = "looks like a noise prediction: use seedsbench.denoiser(net, 'epsilon', ...)"


@pytest.mark.parametrize(
    ("returned", "status", "said"),
    [
        # D -> x at low noise, but keeps pure noise
        ("x / (1 + variance).sqrt()", "done", None),
        ("x * (variance / (1 + variance)).sqrt()", "failed", NOISE_PREDICTION),
        ("0.01 * x + 0.3", "done", "the denoiser's "),
    ],
)
def test_noise_predictions_are_refused_with_the_way_out_and_milder_findings_are_a_warning(
    folder, returned, status, said
):
    text = "def net(x, sigma, labels):\n    variance = sigma.reshape(-1, 1, 1, 1) ** 2\n"
    row = row_of(folder, text=text + f"    return {returned}\ndef build():\n    return net\n")
    assert row["status"] == status
    assert said is None or said in row["warning" if status == "done" else "reason"]


WITH_PARTS = """
import torch, seedsbench
import parts
SCALE = torch.tensor(0.5)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.variance = torch.nn.Parameter(torch.load("w.pt"))
    def forward(self, x, sigma, labels=None):
        return parts.shrink(x, self.variance, sigma)
def build(std=0.5):
    return Net()
"""
PARTS = """
def shrink(x, variance, sigma):
    return x * variance / (variance + sigma.reshape(-1, 1, 1, 1) ** 2)
"""


def problem(path="own.py:build", *overrides):
    forget_loaded()
    return problem_of(compose(*QUICK, f"model.path={path}", "model.shape=[3,8,8]", *overrides), "cpu")


def test_a_model_is_known_by_what_is_inside(folder):
    (folder / "own.py").write_text(WITH_PARTS)
    (folder / "parts.py").write_text(PARTS)
    (folder / "aside.py").write_text("x = 1\n")
    torch.save(torch.tensor(0.25), folder / "w.pt")
    known = [problem().model_id]
    assert problem().model_id == known[0]
    (folder / "aside.py").write_text("x = 2\n")
    (folder / "renamed.py").write_text(WITH_PARTS)
    assert problem("renamed.py:build").model_id == known[0]

    torch.save(torch.tensor(0.26), folder / "w.pt")
    known.append(problem().model_id)
    known.append(problem("own.py:build", "+model.options={std: 0.6}").model_id)
    (folder / "parts.py").write_text(PARTS.replace("x *", "1.0 * x *"))
    known.append(problem().model_id)
    (folder / "own.py").write_text(WITH_PARTS.replace("def build", "# changed\ndef build"))
    known.append(problem().model_id)
    assert len(set(known)) == len(known)


def test_two_folders_may_have_modules_of_one_name(folder):
    values = {}
    for name, factor in (("one", "1.0"), ("two", "0.99")):
        (folder / name).mkdir()
        (folder / name / "own.py").write_text(WITH_PARTS.replace('torch.load("w.pt")', "torch.tensor(0.25)"))
        (folder / name / "parts.py").write_text(PARTS.replace("x *", f"{factor} * x *"))
        denoiser = problem(f"{name}/own.py:build").denoiser
        values[name] = float(denoiser(torch.ones(1, 3, 8, 8), torch.tensor(0.5)).mean())
    assert values["two"] == pytest.approx(0.99 * values["one"])


def test_numbers_that_a_function_refers_to_are_inside_too(folder):
    text = "import torch\nTABLE = torch.tensor({})\ndef one(x, s, labels):\n    return two(x, s)\n"
    text += "def two(x, s):\n    return x * TABLE / (TABLE + s.reshape(-1, 1, 1, 1)**2)\n"
    text += "def build():\n    from pathlib import Path\n    global TABLE\n"
    text += "    TABLE = torch.tensor(float(Path('v.txt').read_text()))\n    return one\n"
    (folder / "own.py").write_text(text.format(0.1))
    found = set()
    for value in ("0.25", "0.3", "0.25"):
        (folder / "v.txt").write_text(value)
        found.add(problem().model_id)
    assert len(found) == 2


def test_values_are_the_pixels_of_samples_and_of_references_alike():
    extractor = values_extractor((3, 8, 8))
    images = some_images(5)
    of_images, _ = extractor.padded(images)
    of_samples, _ = extractor.padded(images.double() / 127.5 - 1)
    assert torch.equal(of_images, of_samples)
    grey = values_extractor((1, 8, 8))
    assert torch.equal(grey.padded(images[:, :1].expand(-1, 3, -1, -1))[0], of_images[:, :64])
    assert len({extractor.id, grey.id}) == 2
    for wrong in (images, images[:, :, :4]):
        with pytest.raises(
            ValueError, match=r"reference images are .*, samples \(1, 8, 8\): use the same size"
        ):
            grey.padded(wrong)
    with pytest.raises(ValueError, match=r"12288 values, at most 4096: use metrics=inception"):
        values_extractor((3, 64, 64))


def test_own_networks_run_in_lower_precision_and_functions_say_that_they_cannot(folder):
    plain, low = row_of(folder), done(row_of(folder, "precision=bf16"))
    assert low["fid"] != plain["fid"]
    assert low["fid"] == pytest.approx(plain["fid"], rel=0.05)
    module, function = (DENOISING.format(form=FORMS[form]) for form in ("module", "function"))
    done(row_of(folder, "precision=bf16", text=module))
    said = row_of(folder, "precision=bf16", text=function)["reason"]
    assert "has no network to run another way" in said
