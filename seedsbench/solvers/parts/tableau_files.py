"""Exponential tableaus as files: `solvers/tableaus/<name>.yaml`, weights written as in their papers.

    source: Cox and Matthews 2002, eq. 23 to 25
    order: 3
    exact_for_constants: true
    nodes: [0, 1/2, 1]
    stages:
      - []                     # at 1/2
      - [2 phi1]               # at 1
    end: [4 phi2 - 8 phi3, 4 phi3 - phi2]

phi2 is phi_2(z) and phi2(1/2) is phi_2(z/2), z = -h; a number is a coefficient, as 4/3, and 0 a weight that
is nothing. Where a constant N is integrated exactly, the weight of the first stage follows from the others
and is left out; of others (Lawson's) it is written. `order` is what the coefficients have, which is checked
when they are read; `published`, where that is another one, what is said of them, and `cause` why they have
it not.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from seedsbench.checks import nearest
from seedsbench.solvers.parts.tableau import ExponentialTableau, Weight, row

_TERM = re.compile(r"\s*([+-]?)\s*(\d+(?:/\d+)?)?\s*phi(\d)(?:\((\d+(?:/\d+)?)\))?")
_FOLDER = files("seedsbench.solvers") / "tableaus"


@dataclass(frozen=True)
class TableauFile:
    """source: where they are from. published: the order said of them. cause: why theirs is another."""

    coefficients: ExponentialTableau
    source: str
    published: int
    cause: str


@cache
def tableau_names() -> list[str]:
    """The names of all files, sorted."""
    return sorted(
        place.name.removesuffix(".yaml") for place in _FOLDER.iterdir() if place.name.endswith("yaml")
    )


@cache
def tableau_file(name: str) -> TableauFile:
    """The file of this name; ValueError, with the nearest names, if there is none."""
    if name not in tableau_names():
        raise ValueError(f"solver.tableau: {nearest(str(name), tableau_names(), what='tableau')}")
    return read_tableau(yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def read_tableau(entries: dict[str, Any]) -> TableauFile:
    """From the entries of a file; ValueError for weights that do not read or do not have the order."""
    exact = entries["exact_for_constants"]
    nodes = tuple(_number(node) for node in entries["nodes"])
    rows = [[parse_weight(str(text)) for text in texts] for texts in (*entries["stages"], entries["end"])]
    weights = []
    for i, (node, given) in enumerate(zip((*nodes[1:], 1.0), rows, strict=True), 1):
        stages = len(nodes) if i == len(nodes) else i
        full = row(node, *given) if exact else tuple(given)
        weights.append(full + ((),) * (stages - len(full)))
    *a, b = weights
    coefficients = ExponentialTableau(nodes, ((), *a), b, entries["order"], exact)
    published = entries.get("published", entries["order"])
    return TableauFile(coefficients, entries["source"], published, entries.get("cause", ""))


def parse_weight(text: str) -> Weight:
    """The terms of a weight as "4 phi2 - 8 phi3(1/2)"; no terms of "0". ValueError for anything else."""
    if text.strip() == "0":
        return ()
    terms, place = [], 0
    while place < len(text.rstrip()):
        found = _TERM.match(text, place)
        if found is None or (terms and not found[1]):
            raise ValueError(
                f"weight {text!r} does not read at {text[place:]!r}: write it as 4 phi2 - 8 phi3(1/2)"
            )
        sign, coefficient, k, node = found.groups()
        size = _number(coefficient or 1)
        terms.append((-size if sign == "-" else size, int(k), _number(node or 1)))
        place = found.end()
    return tuple(terms)


def _number(text: Any) -> float:
    return float(Fraction(str(text)))
