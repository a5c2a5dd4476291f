"""Commands of single cells put together to sweeps make exactly those cells."""

import itertools
import shlex

from hypothesis import given
from hypothesis import strategies as st

from seedsbench.report.commands import MOST_COMMANDS, sweeps


def cells_of(command):
    """The cells of a sweep, each as the set of its overrides."""
    words = shlex.split(command)
    assert words[0] == "seedsbench"
    many = [[f"{key}={one}" for one in values.split(",")]
            for key, _, values in (word.partition("=") for word in words if "=" in word)]  # fmt: skip
    assert ("-m" in words) == any(len(values) > 1 for values in many)
    return [frozenset(cell) for cell in itertools.product(*many)]


cells = st.tuples(st.sampled_from(["heun", "ddim"]), st.sampled_from([5, 10, 100]), st.integers(0, 2))


@given(st.lists(cells, min_size=1, max_size=30), st.booleans())
def test_sweeps_make_the_cells_and_no_other_each_once(found, odd):
    commands = [f"seedsbench solver={s} nfe={n} seed={k}" for s, n, k in found]
    if odd:
        commands.append("seedsbench solver=heun solver.k=2 nfe=10 seed=0")
    made = [cell for command in sweeps(commands) for cell in cells_of(command)]
    assert len(set(made)) == len(made)
    assert set(made) == {cell for command in commands for cell in cells_of(command)}
    assert sweeps(reversed(commands)) == sweeps(commands)


def test_a_full_sweep_is_one_command():
    every = itertools.product(("heun", "ddim"), (10, 20, 100), (0, 1))
    commands = [f"seedsbench --config-dir 'my confs' solver={s} nfe={n} seed={k}" for s, n, k in every]
    one = "seedsbench -m --config-dir 'my confs' solver=ddim,heun nfe=10,20,100 seed=0,1"
    assert sweeps(commands) == [one]


def test_what_is_no_command_or_too_many_is_left_out():
    assert sweeps(["rm -rf /", "seedsbench 'unclosed", "", "seedsbench nfe=10"]) == ["seedsbench nfe=10"]
    assert sweeps(f"seedsbench nfe={n}" for n in range(MOST_COMMANDS + 1)) == []
