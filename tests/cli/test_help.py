"""--help: a page that fits a terminal, and all about each choice that there is."""

import dataclasses
import typing

import pytest
import yaml

from seedsbench import registry
from seedsbench.checks import Range, allowed_values, check_options
from seedsbench.cli.choices import choice_facts
from seedsbench.cli.command import GROUPS, Usage
from seedsbench.cli.help import choice_text, help_text
from tests.package.test_configs import CHOICES
from tests.support.cells import python, write_choices

MINE = """
from dataclasses import dataclass
from typing import Annotated
from seedsbench.checks import Range
from seedsbench.solvers.euler_maruyama import EulerMaruyama

@dataclass(frozen=True)
class Mine(EulerMaruyama):
    '''A solver of one's own.'''

    strength: Annotated[float, Range(0, 3)] = 1.5
"""


def test_the_page_fits_and_its_first_screen_says_how_to_start():
    lines = help_text(()).splitlines()
    assert len(lines) <= 80
    assert not [line for line in lines if len(line) > 80]
    first = "\n".join(lines[:23])  # of 24, one is the prompt's
    for said in ("-m solver=seeds1,seeds3,heun nfe=10,20,50", "--help solver=seeds3", "-sc install=bash"):
        assert said in first
    whole = "\n".join(lines)
    for group in GROUPS:
        assert f"\n{group}: " in whole
        assert all(name in whole for name in registry.names(group))


def test_a_solver_is_told_with_its_options_their_values_its_budget_and_its_source():
    text = help_text(("solver=seeds3",))
    for said in (
        *("solver.prediction=data", "data | noise | edm", "solver.eta=1.0", "a number in [0, 1]"),
        *("Smallest budget: nfe=4", "Gonzalez et al.", "seedsbench.solvers.seeds.Seeds3", "seeds3.yaml"),
    ):
        assert said in text, said


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_has_a_page(group, name):
    facts = choice_facts(group, name)
    text = choice_text(facts)
    assert facts.summary, "its YAML opens with a comment"
    assert str(facts.path) in text
    config = registry.load(group, name, {"offline": False}) if facts.target else {}
    assert {option.name for option in facts.options} >= {key for key in config if key[0] != "_"}
    if group in ("solver", "schedule", "grid", "guidance", "tracker"):
        assert all(option.allowed for option in facts.options)


def test_the_allowed_values_of_solvers_are_those_that_are_checked(solver_name):
    """A choice that is told is taken, and none but these are."""
    solver = registry.build(registry.load("solver", solver_name))
    hints = typing.get_type_hints(type(solver), include_extras=True)
    for field in dataclasses.fields(solver):
        told = allowed_values(hints[field.name])
        if "string" in told or not told.replace(" | ", "").replace("_", "").isalnum():
            continue
        for value in told.split(" | "):
            check_options("it", hints, {field.name: yaml.safe_load(value)})
        with pytest.raises(ValueError, match=field.name):
            check_options("it", hints, {field.name: "nothing of these"})


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        (float, "a number"),
        (typing.Annotated[float, Range(0, 1, open_low=True)], "a number in (0, 1]"),
        (typing.Annotated[int | None, Range(1, 5)], "an integer in [1, 5] | null"),
        (bool, "true | false"),
        (typing.Literal["a", "b", 3], "a | b | 3"),
        (typing.Annotated[list[float], Range(0)], "a list, each a number in [0, inf)"),
        (tuple[int, str], "a list of 2: an integer, a string"),
        (dict[str, int], "a mapping"),
        (object, ""),
        (None, ""),
    ],
)
def test_allowed_values_are_said_in_words(hint, said):
    assert allowed_values(hint) == said


def test_a_group_is_a_line_a_choice():
    lines = help_text(("guidance",)).splitlines()
    assert [line.split()[0] for line in lines] == registry.names("guidance")
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize(
    ("word", "said"),
    [("solver=seeds33", "Did you mean 'seeds3'"), ("slover=seeds3", "'solver'"), ("nfe=20", "--help solver")],
)
def test_what_there_is_no_help_on_is_said(word, said):
    with pytest.raises(Usage, match=said):
        help_text((word,))


def test_a_choice_of_ones_own_has_a_page_too(tmp_path):
    folder = write_choices(
        tmp_path / "mine", "solver", "mine", MINE, {"mine": "Mine\nstrength: 1.5  # of it"}
    )
    said = python("-m", "seedsbench", "--help", "solver=mine", "--config-dir", folder, folder=tmp_path)
    for part in ("A solver of one's own.", "solver.strength=1.5", "a number in [0, 3]", "mine.Mine", "of it"):
        assert part in said
