"""The door: a command becomes the cells that Hydra would compose, typed."""

import dataclasses

import pytest
from hydra import compose

from seedsbench.bench.cell import Cell
from seedsbench.bench.rows.columns import asked
from seedsbench.cli.command import parse
from seedsbench.cli.compose import cell_of, compose_each, composing, compositions
from seedsbench.files.rows import title_of


def whole(words):
    """The cell of a configuration that Hydra composes with all overrides at once."""
    cfg = compose("config", words, return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    return cell_of(compose("config", words), choices, "study")


@pytest.mark.slow
def test_values_set_on_what_is_composed_already_are_what_hydra_composes():
    cells = [
        ["solver=seeds3", "solver.c2=0.4", "nfe=7"],
        ["solver=seeds3", "nfe=8", "labels=null", "afs=true", "save_every=inf"],
        ["regime=vp", "grid=edm", "grid.rho=5", "model=gaussian", "model.means=[[0.1,0.2]]"],
        ["model=file", "model.path='a b.pth'", "+model.hints={image_size: 64}", "offline=true"],
        ["experiment=seeds_released", "seed=18446744073709551615"],
    ]
    with composing():
        for words, found in zip(cells, compose_each(cells, "study"), strict=True):
            assert found.cell == whole(words)
            assert found.words == tuple(words)


def test_a_cell_is_typed_and_frozen():
    with composing():
        (found,) = compose_each([["solver=heun", "labels='3'", "save_every=1"]], "study")
    cell = found.cell
    assert isinstance(cell, Cell)
    assert (cell.labels, cell.save_every, cell.study, cell.choices["solver"]) == (3, 1.0, "study", "heun")
    assert type(cell.solver) is type(cell.model) is dict
    with pytest.raises(dataclasses.FrozenInstanceError):
        cell.nfe = 3


@pytest.mark.parametrize(
    "text",
    [
        "defaults: [heun]\nrho: 3\n",
        pytest.param("# @package _global_\nsolver: {_target_: mine}\nnfe: 9\n", marks=pytest.mark.slow),
        pytest.param("rho: ${nfe}\n", marks=pytest.mark.slow),
        "name: ${hydra:runtime.choices.grid}\n",
    ],
    ids=["builds on another", "sets other keys too", "refers to another key", "refers to a choice"],
)
def test_a_solver_of_ones_own_may_say_more_than_options(tmp_path, monkeypatch, text):
    (tmp_path / "solver").mkdir()
    (tmp_path / "solver" / "mine.yaml").write_text(text)
    monkeypatch.setenv("SEEDSBENCH_CONF", str(tmp_path))
    cells = [["solver=euler"], ["solver=mine"], ["solver=heun"], ["solver=mine", "nfe=5"]]
    with composing():
        found = [one.cell for one in compose_each(cells, "study")]
        assert found == [whole(words) for words in cells]
    assert len({str(cell) for cell in found}) == 4


def test_an_unknown_option_is_named_whichever_solver_came_before():
    with composing(), pytest.raises(ValueError, match=r"solver\.c2"):
        compose_each([["solver=seeds3", "solver.c2=0.4"], ["solver=heun", "solver.c2=0.4"]], "study")


def titles(*words):
    cells = [one.cell for one in compositions(parse(words), "study")]
    return [title_of(asked(cell), cell.varied) for cell in cells]


def test_a_title_says_what_differs_between_the_cells_of_a_command():
    swept = titles("-m", "solver=seeds3", "solver.c2=0.3,0.4", "grid=edm,ve", "solver.eta=0.5", "final=stop")
    same = "glyphs/edm seeds3 nfe=20 seed=0"
    assert swept == [f"{same} solver.c2={c2} grid={grid}" for c2 in (0.3, 0.4) for grid in ("edm", "ve")]
    assert titles("solver=seeds3", "solver.c2=0.3", "final=stop") == [same]
    assert titles("-m", "nfe=20", "seed=0,1", "schedule=vp,linear", "final=stop,denoise")[-1].endswith(
        " nfe=20 seed=1 schedule=linear final=denoise"
    )


def test_a_title_names_the_scheduler_and_the_guidance_once():
    chosen = ("-m", "solver=diffusers", "solver.scheduler=PNDMScheduler,DDIMScheduler", "guidance=cfg")
    assert titles(*chosen, "guidance.scale=2,3")[::3] == [
        "glyphs/edm diffusers(PNDMScheduler) cfg(scale=2) nfe=20 seed=0",
        "glyphs/edm diffusers(DDIMScheduler) cfg(scale=3) nfe=20 seed=0",
    ]
