"""seedsbench/solvers/README.md lists every solver as it is."""

import os
import re
from pathlib import Path

import pytest

import seedsbench
from seedsbench import registry

FOLDER = Path(seedsbench.__file__).parent / "solvers"
TEXT = (FOLDER / "README.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if "| `" in line]
TABLE = {row[0].strip("`"): row[1:] for row in ROWS if len(row) == 7}
NAMES = sorted(path.stem for path in (registry.conf_dir() / "solver").glob("*.yaml"))


def test_every_solver_is_listed_once():
    assert sorted(row[0].strip("`") for row in ROWS if len(row) == 7) == NAMES


def test_the_row_says_where_it_is_and_what_it_declares(solver_name):
    name = solver_name
    file, paper, *declared = TABLE[name]
    module = registry.load("solver", name)["_target_"].rpartition(".")[0]
    place = Path(os.path.relpath(FOLDER.parents[1] / module.replace(".", "/"), FOLDER)).as_posix()
    assert file == f"[{place}.py]({place}.py)"
    assert paper
    solver = seedsbench.solver(name)
    found = [solver.nfe(9) - solver.nfe(8), solver.order, "yes" if solver.stochastic else "no"]
    assert declared == [*map(str, found), str(solver.weak_order or "-")]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", TEXT))))
def test_what_it_points_to_is_there(link):
    assert (FOLDER / link).is_file()


def test_the_names_it_gives_are_in_the_files_it_gives_for_them():
    for line in TEXT.partition("## Where to find")[2].splitlines():
        sources = "".join((FOLDER / link).read_text() for link in re.findall(r"\]\(([^)]+)\)", line))
        for name in re.findall(r"`(\w+)`", line.partition("used by")[0]):
            assert re.search(rf"(def|class) {name}\b", sources), f"{name}: {line}"
