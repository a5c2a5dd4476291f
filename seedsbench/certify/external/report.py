"""certificate-field.csv and .md: the rows of the field, and what departs, where and how to see it."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from seedsbench.certify.external.measure import POWERS
from seedsbench.certify.external.published import Library, Probe
from seedsbench.report.table import markdown_table

_INTRODUCTION = """\
What other people's samplers do beside what is published of them, measured as [ours](certificate.md) are.
`seedsbench-certify --external` makes every number here again, or those of one library if it is named.
**{held} of {all} hold.**

- **Drift order**: noise off, on the two-dimensional mixture, from successive differences at 12 to 192 steps,
  the finest that are well above what the library rounds off (many schedulers of diffusers compute in
  float32); in float64 up to 768 steps where the limit shows late. All see the same levels. An order holds
  from 0.3 below; in float32 one of 3 or more from 0.6 below, where the limit is hidden. `said -`: the noise
  of an ancestral step is part of its rule, and without it there is no order to claim.
  A method of order 3 that interpolates the image exactly is also held to that, for float32 hides it.
- **Weak order**: of the variance on Gaussian data, 64 to 128 steps, and of four expectations on the mixture
  by quadrature (without memory only).
"""
_REPRODUCTION = """\
The smallest reproduction of a wrong coefficient is one step on an image that depends on the noise level
alone: D = 1, s, s^2, where s = -log sigma counted from the start of the step. What the step makes of it, as
shares of the exact integral, follows each entry: 1 is right. (Twenty steps of 0.25, noise off, the eleventh:
`step_shares` in `seedsbench/certify/external/measure.py`.) Where all three are 1 the fault is in a stage,
which only an image that depends on x shows; for tableaus the order condition that is missed stands there."""
_HEADS = [
    "sampler",
    "published by",
    "drift said",
    "drift",
    "weak said",
    "weak, Gaussian",
    "weak, mixture",
    "",
]


def write_field(rows: list[dict[str, Any]], probes: list[Probe], folder: Path) -> list[Path]:
    """Write both files; rows in the order they are shown, those of a library together."""
    df = pd.DataFrame(rows)
    held = int((df["verdict"] == "holds").sum())
    lines = ["# Certificate of the field", "", _INTRODUCTION.format(held=held, all=len(df))]
    departs = [row for row in rows if row["verdict"] != "holds"]
    lines += ["## What departs, and at which coefficient", ""]
    lines += [_REPRODUCTION, "", *map(_departure, departs)]
    for library, group in df.groupby("library", sort=False):
        release = group["version"].iloc[0]
        lines += ["", f"## {library}{f' {release}' if release else ''}", ""]
        lines += markdown_table(_HEADS, [_cells(row) for row in group.to_dict("records")])
    for probe in probes:
        lines += ["", f"## {probe.heading}", "", probe.text, ""]
        lines += markdown_table(list(probe.columns), probe.rows())
    text = folder / "certificate-field.md"
    text.write_text("\n".join([*lines, ""]), encoding="utf-8", newline="\n")
    return [text, write_rows(rows, folder)]


def write_rows(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Write certificate-field.csv alone."""
    table = folder / "certificate-field.csv"
    pd.DataFrame(rows).to_csv(table, index=False, float_format="%.6g", lineterminator="\n", encoding="utf-8")
    return table


def older_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows that the folder's CSV holds, none without one."""
    table = folder / "certificate-field.csv"
    if not table.is_file():
        return []
    df = pd.read_csv(table, dtype={"version": str})
    return df.fillna({"version": "", "cause": ""}).to_dict("records")


def libraries_first(rows: list[dict[str, Any]], libraries: list[Library]) -> list[dict[str, Any]]:
    """Rows in the order of the libraries; those of one that is unknown now are dropped."""
    return [row for library in libraries for row in rows if row["library"] == library.name]


def _departure(row: dict[str, Any]) -> str:
    shares = ", ".join(_number(row[f"share_s{power}"]) for power in POWERS)
    return f"- {row['library']} `{row['solver']}`: **{row['verdict']}**; {row['cause']}. ({shares})"


def _cells(row: dict[str, Any]) -> list[str]:
    numbers = [_number(row[name]) for name in ("drift_order", "weak_variance_gaussian", "weak_mixture")]
    said = [_number(row[name], "g") for name in ("order", "weak_order")]
    verdict = row["verdict"] if row["verdict"] == "holds" else f"**{row['verdict']}**"
    return [row["solver"], row["source"], said[0], numbers[0], said[1], *numbers[1:], verdict]


def _number(value: float, spec: str = ".2f") -> str:
    return "-" if math.isnan(value) else format(value, spec)
