"""What makes a curve: the solver with its parameters, and everything else that may change numbers but seed
and budget. A curve's label says what it differs in from others; two configurations never share one.
"""

import hashlib
import json

import pandas as pd

from seedsbench.report.points import asked_steps
from seedsbench.report.texts import shown_name
from seedsbench.report.verdicts import RunId

# Beside solver and parameters these make a curve of their own; named in its label where they vary.
SETTINGS = (
    *("schedule", "grid", "final", "model_id", "real_id", "dtype", "seeding", "afs"),
    *("network_precision", "compile", "guidance", "numerics_version"),
)
# So do the options of these: the column that holds them, and the column that says whose options they are.
OPTIONS = {"schedule_params": "schedule", "grid_params": "grid", "metrics_params": "extractor"}
OPTIONS |= {"guidance_params": "guidance"}
# What a finished row that does not name a setting was computed with.
_DEFAULTS = {"network_precision": "fp32", "compile": "False", "afs": "False", "seeding": "philox"}
# The same of columns that no row had at first, whatever became of it.
_AT_FIRST = {"guidance": "none", "guidance_params": "{}"}
NAMES = {"network_precision": "precision"}  # settings that people know by another name
MISSING = "?"  # a row does not say
NONE = ""  # a row's schedule or grid has no such option
MOST_OPTIONS = 200  # of one group; where rows have more they are told apart, but not named
COMPARED_STUDY = "compared_study"  # a column of the rows of two studies: which one, 0 or 1


def curve_labels(rows: pd.DataFrame) -> pd.Series:
    """A label for each row: the solver, and only those parameters and settings in which curves differ."""
    settings = settings_of(rows)
    settings = settings[[name for name in settings if _makes_curves(rows, settings, str(name))]]
    params = {text: json.loads(text) for text in rows["solver_params"].unique()}
    by_solver = rows.groupby("solver", sort=False)["solver_params"].unique()
    varying = {solver: _varying([params[text] for text in texts]) for solver, texts in by_solver.items()}
    labels, owner = [], {}
    lines = zip(rows["solver"], rows["solver_params"], settings.to_numpy(object).tolist(), strict=True)
    for solver, text, values in lines:
        given = {name: params[text].get(name) for name in varying[solver]}
        told = [_option(name, value) for name, value in given.items() if value is not None]
        told += [_setting(str(n), v) for n, v in zip(settings, values, strict=True) if v != NONE]
        label = shown_name(" ".join([solver, *told]))
        identity = (solver, text, *values)
        # Two may print alike (0.123451 and 0.123452, null and left out, long names): a hash tells them apart.
        if owner.setdefault(label, identity) != identity:
            label += " #" + hashlib.sha256(repr(identity).encode()).hexdigest()[:8]
        labels.append(label)
    return pd.Series(labels, index=rows.index, dtype="object")


def runs_of(rows: pd.DataFrame) -> pd.Series:
    """The RunId of each row. Latents are those of a seed, by one way of seeding, in one version."""
    seeding = as_text(rows, "seeding").replace(MISSING, _DEFAULTS["seeding"])
    parts = (as_text(rows, "training"), seeding, as_text(rows, "numerics_version"), rows["seed"])
    runs = [
        RunId(training, f"{way} {version} {seed}")
        for training, way, version, seed in zip(*parts, strict=True)
    ]
    return pd.Series(runs, index=rows.index, dtype="object")


def settings_of(rows: pd.DataFrame) -> pd.DataFrame:
    """SETTINGS as text, with the default where a finished row names none; OPTIONS ('grid.rho') as JSON."""
    settings = pd.DataFrame({name: as_text(rows, name) for name in SETTINGS}, index=rows.index)
    for name, value in _DEFAULTS.items():
        settings.loc[(settings[name] == MISSING) & (rows["status"] == "done"), name] = value
    if "training" in rows:  # trainings of one network are runs of one curve; several of one training are not
        known = rows["training"].notna()
        ids = settings.loc[known, "model_id"].groupby(rows.loc[known, "training"]).nunique()
        settings.loc[known & rows["training"].map(ids).eq(1), "model_id"] = NONE
    settings["guidance"] = settings["guidance"].replace(MISSING, _AT_FIRST["guidance"])
    for column in OPTIONS:
        texts = as_text(rows, column).replace(MISSING, _AT_FIRST.get(column, MISSING))
        params = {text: json.loads(text) for text in texts.unique() if text != MISSING}
        options = sorted({name for one in params.values() for name in one})
        if len(options) > MOST_OPTIONS:
            settings[column] = texts
            continue
        for option in options:
            told = {text: _json(one[option]) if option in one else NONE for text, one in params.items()}
            settings[f"{column.removesuffix('_params')}.{option}"] = texts.map({**told, MISSING: MISSING})
    return settings


def _makes_curves(rows: pd.DataFrame, settings: pd.DataFrame, name: str) -> bool:
    """Whether rows differ in a setting; of two studies compared, whether those of one do: where each study
    has one value of it, `compare` says so once."""
    parts = rows.groupby(COMPARED_STUDY).groups.values() if COMPARED_STUDY in rows else [rows.index]
    return any(_differs(rows.loc[part], settings.loc[part], name) for part in parts)


def _differs(rows: pd.DataFrame, settings: pd.DataFrame, name: str) -> bool:
    """Whether rows have two values of a setting; of an option, rows of the same schedule, grid or extractor.

    A list, such as the levels of an explicit grid, belongs to a number of steps: it differs where rows of a
    solver at one budget have two. (An interval of guidance does not.)
    """
    values = settings[name]
    if len(set(values) - {MISSING}) < 2:
        return False
    if "." not in name:
        return True
    by = [whose(rows, name)]
    if values.str.startswith("[").any() and not name.startswith("guidance."):
        by += [rows["solver"], rows["nfe_budget"], asked_steps(rows)]
    known = pd.Series(values.loc[values.ne(MISSING)])
    return bool((known.groupby([one.loc[known.index] for one in by], dropna=False).nunique() > 1).any())


def whose(rows: pd.DataFrame, option: str) -> pd.Series:
    """Whose option it is in each row: of 'grid.rho' the grid."""
    return as_text(rows, OPTIONS[f"{option.partition('.')[0]}_params"])


def as_text(df: pd.DataFrame, name: str) -> pd.Series:
    """A column as text; whole numbers without a point, missing values as MISSING."""

    def told(value: object) -> str:
        if isinstance(value, float) and abs(value) < 1e6:
            return f"{value:g}"
        return MISSING if pd.isna(value) else str(value)  # type: ignore[call-overload]

    return df[name].map(told).astype("object") if name in df else pd.Series(MISSING, index=df.index)


def _varying(params: list[dict]) -> list[str]:
    names = sorted({name for one in params for name in one})
    if len(names) > MOST_OPTIONS:
        return []
    return [name for name in names if len({_json(one.get(name)) for one in params}) > 1]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _option(name: str, value: object) -> str:
    """An option in a label; a long word, as the name of a class, says by itself what it is."""
    return value[:40] if isinstance(value, str) and len(value) > 12 else f"{name}={_short(value)}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return f"{value:.4g}" if isinstance(value, float) else text[:24]


def _setting(name: str, value: str) -> str:
    if "." in name and value != MISSING:
        return f"{name}={_short(json.loads(value))}"
    said = NAMES.get(name, name.removesuffix("_id"))
    return f"{said}={value[:8] if name.endswith('_id') else value}"
