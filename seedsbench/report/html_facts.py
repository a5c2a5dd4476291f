"""What a study was made with, as HTML: commands, commit and machine for the top of its page, and all else."""

import re
from collections import Counter
from collections.abc import Callable
from html import escape

import pandas as pd

from seedsbench.report.commands import sweeps
from seedsbench.report.html_data import json_value
from seedsbench.report.rows import take
from seedsbench.report.texts import printable

_FEW = 3  # commands that are shown at once
# Beside every column that begins with "version".
_ENVIRONMENT = ("commit", "device", "device_name", "dtype", "threads", "world_size", "batch_size")
_ENVIRONMENT += ("numerics_version",)


def text(value: object) -> str:
    """Any text as HTML text or a quoted attribute; characters that HTML forbids are replaced."""
    return escape(printable(str(value)), quote=True)


def facts(df: pd.DataFrame) -> str:
    """The commands that make the rows again, the git commit, and the processors or GPUs, as a list."""
    told = {"Command": _commands(df), "Commit": _counted(df, "commit", _commit)}
    told |= {"Computed on": _machines(df)}
    lines = [f"<dt>{name}</dt><dd>{what}</dd>" for name, what in told.items()]
    return f'<dl class="facts">{"".join(lines)}</dl>\n'


def _commands(df: pd.DataFrame) -> str:
    made = sweeps(df["command"].dropna()) if "command" in df else []
    lines = [f"<code>{text(command)}</code>" for command in made]
    if not lines:
        return "each cell has its own: open it" if "command" in df else "not recorded"
    if len(lines) <= _FEW:
        return "<br>".join(lines)
    return f"<details><summary>{len(lines)} commands</summary>{'<br>'.join(lines)}</details>"


def _commit(value: str) -> str:
    name, _, changed = value.partition("-")
    return name[:12] + (" with changes of its files" if changed else "")


def _machines(df: pd.DataFrame) -> str:
    if "device_name" not in df:
        return "not recorded"
    ranks = df["world_size"].fillna(1)
    several = ranks.map(lambda n: "" if n == 1 else f"{n:g} \N{MULTIPLICATION SIGN} ")
    return _counted(df.assign(device_name=several + df["device_name"]), "device_name", str)


def _counted(df: pd.DataFrame, name: str, shown: Callable[[str], str]) -> str:
    """The distinct values of a column, most frequent first; of several how many cells had them."""
    known = take(df, df[name].notna())[name] if name in df else pd.Series(dtype=object)
    counts = Counter(shown(str(value)) for value in known)
    told = [
        value if len(counts) == 1 else f"{value} ({n} cell{'s' * (n > 1)})"
        for value, n in counts.most_common(_FEW)
    ]
    told += [f"{len(counts) - _FEW} more"] if len(counts) > _FEW else []
    return text(", ".join(told)) or "not recorded"


def environment(df: pd.DataFrame) -> str:
    """What the cells were computed with: each distinct value, and how many cells had it."""
    names = [*sorted(name for name in df if str(name).startswith("version")), *_ENVIRONMENT]
    lines = []
    for name in (name for name in names if name in df):
        counts = Counter(str(json_value(value, whole=True)) for value in df[name].dropna())
        told = [value if len(counts) == 1 else f"{value} ({n} cells)" for value, n in counts.most_common()]
        lines.append((re.sub(r"^versions?_", "", str(name)).replace("_", " "), "; ".join(told)))
    times = sorted(set(df["time_utc"].dropna()))
    lines.append(("computed (UTC)", " to ".join([*times[:1], *times[1:][-1:]])))
    seconds = df["seconds_sampling"].sum()
    told = f"{seconds:,.0f} s" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
    lines.append(("sampling, all cells", told if seconds > 0 else ""))
    lines = [(text(name), text(value)) for name, value in lines if value]
    body = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in lines)
    return f"<table><tbody>{body}</tbody></table>" if body else "<p>The rows record none.</p>"
