"""Every code block of README, CONTRIBUTING and docs/ is run, or composed where it needs what is not here."""

import importlib
import json
import os
import re
import shutil
import sys

import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from seedsbench.analytic import FiniteData
from tests.support.documents import PAGES, Block, blocks, commands, files
from tests.support.edm_checkpoint import write_edm
from tests.support.extractors import some_images, write_images
from tests.support.machine import ROOT

tomllib = pytest.importorskip("tomllib")  # Python 3.11

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BLOCKS = {page: blocks(page) for page in PAGES}
WITH_SLOW = [page for page in PAGES if any(block.slow for block in BLOCKS[page])]
PACKAGES = [package for extra in PROJECT["optional-dependencies"].values() for package in extra]
TOOLS = {re.match(r"[\w-]+", package)[0] for package in PACKAGES} | {"mkdocs"}
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
FEW = "samples=32"
SHARED = ROOT / "scripts" / "benchmarks" / "publish.py"
"""Where options of several benchmarks are."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the commands run: pictures, a checkpoint, small studies, and the files that the pages hold."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_images(tmp_path / "images", some_images(200))
    write_edm(tmp_path / "network.pkl")
    for study in ("example", "before", "after"):
        rows = tmp_path / "results" / study / "rows"
        rows.mkdir(parents=True)
        for path in (ROOT / "results" / "example" / "rows").glob("*.json"):
            row = json.loads(path.read_text())
            if row["seed"] == 0 and row["nfe_budget"] < 50:
                shutil.copy(path, rows)
    for name, text in files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def given(block):
    """What a Python block may take for granted."""
    names = {"denoiser": FiniteData(torch.zeros(1, 3, 8, 8))}
    if re.search(r"\bpipe\b", block.text):
        pytest.importorskip("diffusers")
        names["pipe"] = importlib.import_module("tests.support.tiny_pipelines").made("DDPMPipeline")
    return names


class Page:
    """A page's blocks, one after another in a folder. slow: whether slow ones run, or are only composed."""

    def __init__(self, folder, capsys, monkeypatch, slow=False):
        self.folder, self.capsys, self.monkeypatch, self.slow = folder, capsys, monkeypatch, slow
        self.names = {}

    def run(self, block: Block):
        if block.title or block.language not in ("python", "bash"):
            return
        if block.language == "python":
            code = compile(block.text, block.place, "exec")
            if not block.needs:
                self.names = {**given(block), **self.names}
                exec(code, self.names)
            return
        really = not block.needs and (self.slow or not block.slow)
        found = commands(block, self.folder)
        assert found, f"{block.place}: no command"
        for name, *words in found:
            self.command(block, name, words, really)

    def command(self, block, name, words, really):
        if name == "torchrun":
            start = words.index("-m")
            assert words[start + 1] == "seedsbench", block.place
            name, words = "seedsbench", words[start + 2 :]
        if name == "seedsbench":
            self.seedsbench(block, words, really)
        elif name in ("seedsbench-fetch", "seedsbench-verify"):
            self.called(block, name, [*words, *{"dry_run=true"} - {*words}])
        elif name in PROJECT["scripts"] and really:
            self.called(block, name, words)
        elif name in PROJECT["scripts"]:
            said = self.called(block, name, ["--help"])
            assert {word for word in words if word.startswith("--")} <= {*re.findall(r"--[\w-]+", said)}
        elif name == "pip":
            extras = {extra for word in words for extra in re.findall(r"\[(\w+)\]", word)}
            assert extras <= set(PROJECT["optional-dependencies"]), block.place
        elif name == "python" and words[0] != "-m":
            self.script(block, words)
        else:
            assert name in {"python", *TOOLS}, f"{block.place}: what is {name}?"
            for word in words:
                assert "/" not in word or (ROOT / word).exists() or (self.folder / word).exists(), word

    def seedsbench(self, block, words, really):
        if any(word in ("--help", "--cfg") for word in words):
            self.called(block, "seedsbench", words)
        elif not really:
            self.called(block, "seedsbench", [*words, *{"dry_run=true"} - {*words}])
        else:
            few = [] if any(word.startswith("samples=") for word in words) else [FEW]
            codes = (0, 1) if block.fails else (0,)
            self.called(block, "seedsbench", [*words, *few, "device=cpu"], codes)

    def script(self, block, words):
        """A script of ours, which is there and has these options."""
        path = ROOT / words[0]
        assert path.is_file(), f"{block.place}: {words[0]}"
        options = path.read_text() + SHARED.read_text()
        config = ROOT / "scripts" / "conf" / f"{path.stem}.yaml"
        keys = set(OmegaConf.load(config)) if config.is_file() else set()
        for word in words[1:]:
            if word.startswith("--"):
                assert f'"{word.split("=")[0]}"' in options, f"{block.place}: {word}"
            elif "=" in word:
                assert word.split("=")[0] in keys, f"{block.place}: {word}"

    def called(self, block, name, words, codes=(0,)):
        """What a command of ours said, which must end with one of these exit codes."""
        main = get_object(PROJECT["scripts"][name].replace(":", "."))
        self.monkeypatch.setattr(sys, "argv", [name, *words])  # where Hydra looks
        self.capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
        said = "".join(self.capsys.readouterr())
        assert (code or 0) in codes, f"{block.place}: {name} {' '.join(words)}\n{said}"
        return said


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, folder, capsys, monkeypatch, nothing_loaded):
    runner = Page(folder, capsys, monkeypatch)
    for block in BLOCKS[page]:
        runner.run(block)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SLOW)
def test_the_slow_blocks_of_a_page_run(page, folder, capsys, monkeypatch, nothing_loaded):
    runner = Page(folder, capsys, monkeypatch, slow=True)
    for block in BLOCKS[page]:
        runner.run(block)


def test_a_block_is_marked_in_one_of_two_ways():
    marks = {block.mark for found in BLOCKS.values() for block in found}
    assert all(not mark or re.fullmatch(r"needs \S.*|slow(, a cell fails)?", mark) for mark in marks), marks


@pytest.mark.parametrize("page", PAGES)
def test_no_code_is_outside_a_block_that_is_read(page):
    """Each fence is found (a mark two lines above, or a language without a name, would hide one)."""
    text = (ROOT / page).read_text()
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(BLOCKS[page])
    marked = [block for block in BLOCKS[page] if block.mark]
    assert len(re.findall(r"^<!-- (?:needs|slow)", text, re.MULTILINE)) == len(marked)
    assert not re.search(r"^\n {4}(?:seedsbench|pip|python|pytest)\b", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for path, heading in LINK.findall((ROOT / page).read_text()):
        if "://" in path:
            continue
        target = (ROOT / page).parent / path
        assert target.exists(), f"{page}: {path}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading[1:] in slugs, f"{page}: {path}{heading}"


def test_the_readme_is_short_and_begins_with_the_two_promises():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    first, second = [block.text.strip() for block in BLOCKS["README.md"][:2]]
    assert first == "pip install -e . && seedsbench -m solver=seeds1,seeds3,heun nfe=10,20,50"
    assert second == 'pip install -e ".[test]" && pytest -n auto'


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_not_long(page):
    lines = (ROOT / page).read_text().splitlines()
    assert [line for line in lines if len(line) > 110 and not line.startswith("|")] == []


def notebook():
    return json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())


def test_the_tutorial_has_ten_cells_and_what_they_print():
    cells = [cell for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 10
    installs, *others = cells
    assert "pip install" in installs["source"][0]
    assert all(cell["outputs"] for cell in others)
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    """As it stands, but for the installation."""
    nbformat, nbclient = (pytest.importorskip(name) for name in ("nbformat", "nbclient"))
    monkeypatch.setenv("PATH", f"{commands_of_ours(tmp_path)}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    read = nbformat.reads(json.dumps(notebook()), as_version=4)  # which joins the lines of cells
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(read, timeout=1800, kernel_name="python3", resources=place).execute()
    rows = [json.loads(path.read_text()) for path in tmp_path.glob("results/tutorial/rows/*.json")]
    assert {row["solver"] for row in rows} == {"heun", "dpmpp_2m", "lookahead"}
    assert {row["status"] for row in rows} == {"done"}


def commands_of_ours(folder):
    """A folder of our commands, as an installation has them."""
    place = folder / "bin"
    place.mkdir()
    for name, target in PROJECT["scripts"].items():
        module, _, function = target.partition(":")
        text = f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
        text += f"if __name__ == '__main__':\n    sys.exit({function}())\n"
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    return place
