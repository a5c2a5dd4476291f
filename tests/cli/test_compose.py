"""Configurations of many cells: what is put together from parts is what Hydra composes."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError

from seedsbench import registry
from seedsbench.cli.compose import compose, compose_each, composing


@pytest.fixture(autouse=True)
def study(monkeypatch):
    monkeypatch.setenv("SEEDSBENCH_STUDY", "study")


def told(cfg):
    """All of a configuration but what Hydra notes about the command."""
    return OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))


@pytest.mark.parametrize("rest", [["regime=vp"], ["schedule=ve", "nfe=7", "samples=10"]], ids=" ".join)
def test_a_file_put_in_anothers_place_is_what_hydra_composes(rest):
    solvers = registry.names("solver")[::6]
    cells = [[f"model={model}", f"solver={name}"] for model in ("glyphs", "file") for name in solvers]
    cells += [["model=gaussian", f"metrics={name}"] for name in registry.names("metrics")]
    cells += [["model=gaussian", f"grid={name}"] for name in registry.names("grid")[::3]]
    with composing([]):
        for quick, cell in zip(compose_each([[*rest, *c] for c in cells], {}), cells, strict=True):
            whole = compose([*rest, *cell])
            assert told(quick) == told(whole)
            assert quick.hydra.runtime.choices == whole.hydra.runtime.choices
            with pytest.raises(ConfigAttributeError):
                quick.solver.nonsense = 1


@pytest.mark.parametrize(
    "text",
    [
        "defaults: [heun]\nrho: 3\n",
        "# @package _global_\nsolver: {_target_: mine}\nnfe: 9\n",
        "rho: ${nfe}\n",
    ],
    ids=["builds on another", "sets other keys too", "refers to another key"],
)
def test_a_solver_of_ones_own_may_say_more_than_options(tmp_path, text):
    (tmp_path / "solver").mkdir()
    (tmp_path / "solver" / "mine.yaml").write_text(text)
    cells = [["solver=euler"], ["solver=mine"], ["solver=heun"], ["solver=mine", "nfe=5"]]
    with composing([str(tmp_path)]):
        found = [told(cfg) for cfg in compose_each(cells, {})]
        assert found == [told(compose(cell)) for cell in cells]
        assert len(set(found)) == 4


def test_an_unknown_option_is_named_whichever_solver_came_before(tmp_path):
    with composing([]), pytest.raises(ValueError, match=r"solver\.c2"):
        compose_each([["solver=seeds3", "solver.c2=0.4"], ["solver=heun", "solver.c2=0.4"]], {})
