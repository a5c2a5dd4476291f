"""The texts of `seedsbench --help`: a page, the choices of a group, and all about one choice."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from seedsbench import registry
from seedsbench.checks import nearest
from seedsbench.cli.command import GROUPS, Usage

if TYPE_CHECKING:
    from seedsbench.cli.choices import ChoiceFacts, Option

WIDTH = 80

_FIRST_SCREEN = """\
seedsbench: diffusion samplers compared under one measured budget of network
evaluations (NFE). No weights, GPU or network are needed for the embedded model.

  seedsbench key=value ...             a cell: one solver at one budget
  seedsbench -m key=a,b key2=c,d ...   a study: every combination

Examples
  seedsbench -m solver=seeds1,seeds3,heun nfe=10,20,50
  seedsbench -m regime=vp,ve,iddpm,edm solver=seeds3,heun nfe=20
  seedsbench regime=vp grid=edm solver=seeds3 solver.c2=0.4 seed=1
  seedsbench -m guidance=cfg guidance.scale=1,1.5,2,3 solver=seeds3,heun nfe=20

More
  seedsbench --help solver             the solvers, a line each; so of any group
  seedsbench --help solver=seeds3      options, ranges, smallest budget, source
  seedsbench -m ... plan=true          what it would cost; dry_run=true: fetches
  seedsbench --cfg job                 every key of a cell, with its value
  eval "$(seedsbench -sc install=bash)"    Tab completes keys and choices
  seedsbench-report results/latest     table, figures and page of a study again
  seedsbench-check results/latest      are its rows what they claim to be?
"""
_KEYS = """\
Other keys and their defaults
  nfe=20              network evaluations a sample may cost, the final included
  samples=2000  seed=0  repeats=1  labels=balanced|random|none|<class>
  final=denoise|euler|stop  afs=false  dtype=float64|float32
  device=auto|cpu|cuda  batch_size=256|auto  precision=fp32|tf32|bf16|fp16
  compile=false  seeding=philox|edm  published=false  force=false  plan=false
  results_dir=results  study=<time stamp>  dry_run=false  offline=false
  debug=false  save_every=60  log_progress=60  keep_statistics=false
  keep_samples=0|N|all  hydra/launcher=basic|joblib|slurm_1gpu|slurm_8gpu

Your own solver: DIR/solver/<name>.yaml and a module in DIR; --config-dir DIR.
Tab completion in fish: seedsbench -sc install=fish | source; in zsh as in bash.
"""


def help_text(words: tuple[str, ...]) -> str:
    """What --help says of these words: none, a group, or group=name. Raises Usage for others."""
    try:
        return "\n\n".join(map(_of_word, words)) if words else _page()
    except ValueError as error:
        raise Usage(str(error)) from error


def _of_word(word: str) -> str:
    group, _, name = word.partition("=")
    if group not in GROUPS:
        told = "--help takes a group, as --help solver, or a choice, as --help solver=seeds3"
        raise Usage(f"{nearest(group, GROUPS, what='group')} ({told})")
    if not name:
        return _of_group(group)
    from seedsbench.cli.choices import choice_facts

    return "\n\n".join(choice_text(choice_facts(group, one)) for one in name.split(","))


def _page() -> str:
    lists = [
        textwrap.fill(f"{group}: {', '.join(registry.names(group))}", WIDTH, subsequent_indent="  ")
        for group in ("solver", *(group for group in GROUPS if group != "solver"))
    ]
    title = "What can be chosen (group=name; options of a choice: group.option=value)"
    return "\n".join([_FIRST_SCREEN, title, *lists, "", _KEYS.rstrip("\n")])


def _of_group(group: str) -> str:
    from seedsbench.cli.choices import summary_of

    paths = {name: registry.path_of(group, name) for name in registry.names(group)}
    if not paths:
        return f"{group}: there is none"
    width = max(map(len, paths))
    return "\n".join(
        f"{name:{width}}  {summary_of(path)}" for name, path in paths.items() if path is not None
    )


def choice_text(facts: ChoiceFacts) -> str:
    """A choice on a page: what it is, its options, what it costs, where it is from."""
    parts = [f"{facts.group}={facts.name}", _paragraph(facts.summary)]
    if facts.doc and facts.doc not in facts.summary:
        parts += map(_paragraph, facts.doc.split("\n\n"))
    if facts.options:
        options = [line for option in facts.options for line in _option_lines(facts.group, option)]
        parts.append("\n".join(["Options and their defaults", *options]))
    if facts.sets:
        parts.append("\n".join(["It sets", *(f"  {line}" for line in facts.sets)]))
    if cost := _cost(facts):
        parts.append(cost)
    parts.append("\n".join(_source_lines(facts)))
    return "\n\n".join(parts)


def _paragraph(text: str) -> str:
    """Indented by two and filled; lists and examples, which are indented themselves, keep their lines."""
    shaped = any(line.startswith((" ", ">>>")) for line in text.splitlines())
    return textwrap.indent(text if shaped else textwrap.fill(text, WIDTH - 2), "  ")


def _option_lines(group: str, option: Option) -> list[str]:
    """`solver.c2=0.5   a number in [0.001, 1]`, and beneath it what its comment adds."""
    note = option.note.removeprefix(option.allowed).lstrip(": ") if option.allowed else option.note
    head = f"  {group}.{option.name}={option.default}"
    first = f"{head:<34}  {option.allowed}".rstrip()
    return [first, *textwrap.wrap(note, WIDTH, initial_indent="      ", subsequent_indent="      ")]


def _cost(facts: ChoiceFacts) -> str:
    solver = facts.solver
    if solver is None:
        return ""
    weak = "" if solver.weak_order is None else f", weak order {solver.weak_order}"
    noise = "stochastic" if solver.stochastic else "deterministic"
    return "\n".join(
        [
            f"With these: {noise}, drift order {solver.order}{weak}",
            f"Smallest budget: nfe={solver.total_nfe(1)}, for one step and the end (final=denoise)",
            f"Two steps cost {solver.total_nfe(2)}, ten {solver.total_nfe(10)}",
        ]
    )


def _source_lines(facts: ChoiceFacts) -> list[str]:
    origin = textwrap.fill(facts.origin, WIDTH, initial_indent="Source: ", subsequent_indent="  ")
    lines = [origin] if facts.origin and facts.origin != facts.summary else []
    return [*lines, *([f"Class or function: {facts.target}"] if facts.target else []), f"File: {facts.path}"]
