"""What the documentation site adds to docs/*.md: all solvers, choices and options; its links."""

import re
from pathlib import Path

import pytest

from scripts import make_docs
from seedsbench import registry
from seedsbench.cli.command import GROUPS
from tests.support.machine import ROOT


@pytest.fixture(scope="module")
def solvers():
    return "\n".join(make_docs.solver_pages())


@pytest.fixture(scope="module")
def configuration():
    return "\n".join(make_docs.configuration_pages())


def test_every_solver_has_its_paper_and_all_its_options(solvers):
    parts = dict(re.findall(r"^### `(\w+)`$(.*?)(?=^### |\Z)", solvers, re.DOTALL | re.MULTILINE))
    assert sorted(parts) == registry.names("solver")
    for name, text in parts.items():
        options = set(registry.load("solver", name)) - {"_target_"}
        assert options == {*re.findall(r"^\| `solver\.(\w+)` \|", text, re.MULTILINE)}, name
        assert re.search(r"^\*Paper\*: \S", text, re.MULTILINE), name
    assert "| `solver.c2` | `0.3333333333333333` | a number in " in parts["seeds3"]
    assert "*Order* 3, weak order 2; draws noise. *Evaluations*: 3 a step" in parts["seeds3"]


def test_every_key_and_choice_is_in_the_reference(configuration):
    said = {*re.findall(r"^#### `(\w+=\w+)`$", configuration, re.MULTILINE)}
    groups = set(GROUPS) - {"solver"}
    assert said == {f"{group}={name}" for group in groups for name in registry.names(group)}
    keys = re.findall(r"^(\w+): .*# ", (registry.conf_dir() / "config.yaml").read_text(), re.MULTILINE)
    assert len(keys) > 20
    assert all(f"| `{key}` |" in configuration for key in keys)
    assert "| `guidance.interval` |" in configuration


def test_a_cell_of_a_table_keeps_its_signs():
    (line,) = make_docs.table(("",), [(make_docs.escaped("a | b_c <d>"),)]).splitlines()[2:]
    assert line == r"| a \| b\_c &lt;d> |"


def test_links_that_leave_the_folder_are_followed_and_rewritten():
    found = make_docs.linked()
    assert {"results/example/figures/pareto.png", "results/certificate.md", "SECURITY.md"} <= {*found}
    assert all((ROOT / path).is_file() for path in found)
    for link, folder, site in [
        ("docs/guidance.md", ".", "guidance.md"),
        ("../results/flow.png", "docs", "results/flow.png"),
        ("results/example/", ".", "results/example/table.md"),
        ("../README.md", "docs", "index.md"),
        ("seedsbench/solvers/README.md", ".", "solvers.md"),
        ("api.md", "docs", "api.md"),
    ]:
        assert make_docs.site_link(link, Path(folder), Path()) == site
    assert make_docs.site_link("rank-transfer.png", Path("results"), Path("results")) == (
        "../results/rank-transfer.png"
    )


def test_docstrings_keep_a_line_for_each_parameter():
    pytest.importorskip("griffe")
    from scripts.plain_docstrings import markdown

    said = markdown("Sum *all*.\n\nx: (B,) numbers,\n    finite.\nseed, n: in [0, 2**64).\n\n    f(**x)")
    assert said == "\n\n".join(
        [
            r"Sum \*all\*.",
            "- `x`: (B,) numbers,\n  finite.\n- `seed`, `n`: in \\[0, 2\\*\\*64).",
            "    f(**x)",
        ]
    )


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # converted notebooks are kept in the current folder
    build = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    build.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "solvers.html", "tutorial.html", "results/certificate.html"} <= pages
