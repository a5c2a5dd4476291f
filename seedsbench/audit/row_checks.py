"""What can be wrong with one row: a function each, from a claim to the faults in it, and a table of them.

A check raises NotHere where it cannot be made on this machine; what it has found by then stands.
"""

import json
import math
from collections.abc import Callable, Iterator
from statistics import fmean, pstdev
from typing import Any

from scipy.special import gammainc

from seedsbench import registry
from seedsbench.api import evaluations_of, levels_within
from seedsbench.audit.claim import BadCommand, Claim, NotHere
from seedsbench.bench.cell import NUMERICS_VERSION
from seedsbench.bench.rows.columns import asked, identity_of, solver_facts
from seedsbench.bench.rows.run_key import run_key
from seedsbench.bench.rows.statistics import read_kept_statistics
from seedsbench.bench.rows.store import row_text
from seedsbench.bench.scoring import floor_fids
from seedsbench.metrics.fid import frechet_distance
from seedsbench.metrics.inception_score import inception_score
from seedsbench.solvers.base import BudgetError

Check = Callable[[Claim], Iterator[str]]

CLOSE = 1e-6
"""How far scores may be, relatively, from those computed again."""
FLOOR_SETS = 16
"""Sets of real samples that say how far scores of so few vary."""
MOST_REAL = 10**5
"""Samples of a set at most."""
FLOOR_CHANCE = 1e-4
"""A score is too low if a set of real samples scores as low with less than this probability."""
HOPELESS = 1e-6
"""A score is too low, whatever the features, below this share of its floor."""
SCORE_RANGES = {
    "is_mean": (1, math.inf),
    "saturated": (0, 1),
    "precision": (0, 1),
    "recall": (0, 1),
    "coverage": (0, 1),
    "density": (0, math.inf),
}
"""What no score can be beyond."""
ALWAYS = ("model", "regime", "samples", "seed", "nfe_budget", "nfe_max", "n_steps", "extractor_id")
ALWAYS += ("reference_id", "seconds_sampling", "largest", "command")
"""Columns that every finished row fills."""
BESIDE_FID = ("images_per_second", "saturated")
"""And those that a row with an FID fills: exact paths cost time of their own, and need no images."""
_AT_FIRST = {"guidance": "none", "guidance_params": {}}
"""What rows from before there was a column are to be read as."""


def version(claim: Claim) -> Iterator[str]:
    """The arithmetic is this package's."""
    made = claim.row.get("numerics_version")
    if made != NUMERICS_VERSION and not (made is None and not claim.done):
        old = made is None or made < NUMERICS_VERSION
        advice = "run it again" if old else "check it with a newer package"
        yield f"numerics_version is {made}, this package's {NUMERICS_VERSION}: {advice}"


def key_of_command(claim: Claim) -> Iterator[str]:
    """The run key is that of the command."""
    try:
        cell = claim.cell
    except BadCommand as error:
        yield str(error)
        return
    key = run_key(cell, None if claim.row.get("model_id") is None else claim.problem)
    if key != claim.row["run_key"]:
        yield f"its command makes the key {key}"


def settings(claim: Claim) -> Iterator[str]:
    """Columns say what the command does, with the network, features and reference that it names."""
    cell = claim.cell
    said = asked(cell)
    del said["time_utc"]
    if "training" not in claim.row and not said["training"]:  # a row from before there was a second one
        del said["training"]
    yield from _differing(claim, said)
    if claim.done:
        yield from _differing(claim, solver_facts(registry.build(cell.solver)))
    if claim.row.get("model_id") is not None:
        yield from _differing(claim, identity_of(claim.problem))


def _differing(claim: Claim, said: dict[str, Any]) -> Iterator[str]:
    """One fault of all columns that do not say what they should."""
    row, plain, apart = claim.row, json.loads(row_text({**claim.row, **said})), []
    for name in said:
        found, wanted = row.get(name, _AT_FIRST.get(name)), plain[name]
        if name in ("schedule_params", "grid_params") and isinstance(found, dict):
            # What the command leaves to the network, the row of a finished cell says.
            found = {key: None if wanted.get(key) is None else value for key, value in found.items()}
        if found != wanted:
            apart.append(f"{name} is {found!r:.80}, by its command {wanted!r:.80}")
    if apart:
        yield "; ".join(apart)


def evaluations(claim: Claim) -> Iterator[str]:
    """Evaluations are within the budget, and those that the steps cost; a skipped budget fits no step."""
    row = claim.row
    if row["status"] == "failed":
        return
    budget, nfe, most, n_steps = (row.get(name) or 0 for name in ("nfe_budget", "nfe", "nfe_max", "n_steps"))
    if claim.done and not nfe <= most <= budget:
        yield f"nfe {nfe:g}, nfe_max {most} and nfe_budget {budget} should not fall"
    cell = claim.cell
    groups = (cell.solver, cell.schedule, cell.grid, cell.guidance)
    solver, schedule, grid, guidance = map(registry.build, groups)
    if claim.done and not solver.adaptive:
        least = solver.total_nfe(n_steps, cell.final, afs=cell.afs)
        if nfe < least:
            yield f"nfe is {nfe:g}, but {n_steps} steps of {row['solver']} cost {least}"
            return
    guided = guidance.of(claim.problem.denoiser)
    try:
        sigmas, fitted = levels_within(cell.nfe, guided, solver, schedule, grid, cell.final, afs=cell.afs)
    except BudgetError as error:
        if claim.done:
            yield str(error)
        return
    steps = len(sigmas) - 1
    if not claim.done:
        yield f"it is skipped, but {steps} steps fit into nfe={cell.nfe}"
    else:
        promised = evaluations_of(guided, solver, sigmas, fitted, cell.final, afs=cell.afs)
        fits = most <= promised if solver.adaptive else nfe == most == promised
        if n_steps != steps or not fits:
            yield f"{n_steps} steps and nfe {nfe:g} (at most {most}), promised are {steps} and {promised}"


def above_floor(claim: Claim) -> Iterator[str]:
    """The FID is not far below what real samples score.

    A perfect sampler's FID is about a sum of squares, so a chi-squared number, scaled: its mean and spread
    are those of sets of real samples, as many in each. (The mean less five spreads is below 0 in few
    dimensions, where chance goes far: a tenth of the floor is nothing rare in two.)
    """
    if not claim.done or not (real := claim.row.get("fid_floor")) or (fid := claim.row["fid"]) >= real:
        return
    if fid < HOPELESS * real:
        yield f"fid is {fid:.3g}, its floor {real:.3g}: no set of real samples scores so low"
        return
    if claim.cell.samples > MOST_REAL:
        raise NotHere(f"the time that {FLOOR_SETS} sets of {claim.cell.samples} real samples take")
    fids = floor_fids(claim.problem, claim.cell.samples, claim.cell.labels, FLOOR_SETS)
    if fids is None:
        return
    mean = fmean(fids)
    freedom = 2 * (mean / max(pstdev(fids), 1e-9 * mean)) ** 2
    if gammainc(freedom / 2, freedom / 2 * fid / mean) < FLOOR_CHANCE:
        found = f"of {FLOOR_SETS} real sets the lowest scores {min(fids):.3g}"
        yield f"fid is {fid:.3g}, far below its floor {real:.3g} ({found})"


def limits(claim: Claim) -> Iterator[str]:
    """A finished row is complete, and no score is what it cannot be."""
    row = claim.row
    if not claim.done:
        return
    filled = ALWAYS if row.get("fid") is None else (*ALWAYS, *BESIDE_FID)
    if absent := [name for name in filled if row.get(name) is None]:
        yield f"it is done, without {', '.join(absent)}"
    for name, (low, high) in SCORE_RANGES.items():
        if (value := row.get(name)) is not None and not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
            yield f"{name} is {value:g}, beyond [{low}, {high}]"
    if (score := row.get("is_mean")) is not None:
        classes = claim.problem.features.n_classes
        if score > classes * (1 + 1e-9):
            yield f"is_mean is {score:g}, with {classes} classes"


def speed(claim: Claim) -> Iterator[str]:
    """Images a second are the samples by the seconds of sampling."""
    names = ("images_per_second", "seconds_sampling", "samples")
    rate, seconds, samples = map(claim.row.get, names)
    if (
        claim.done
        and rate
        and seconds
        and samples
        and not math.isclose(rate * seconds, samples, rel_tol=CLOSE)
    ):
        yield f"images_per_second is {rate:g}, but {samples} samples took {seconds:g} s"


def kept_statistics(claim: Claim) -> Iterator[str]:
    """Statistics are there where the row names them, undamaged, and this row's."""
    row, path = claim.row, claim.statistics_path
    named = row.get("statistics_id")
    if named is None:
        if claim.done and path.exists():
            yield f"{path.name} is there, but the row names no statistics"
        return
    try:
        kept = read_kept_statistics(path)
    except FileNotFoundError:
        yield f"its statistics, {path.name}, are missing"
        return
    except ValueError as error:
        yield f"its statistics are damaged: {error}"
        return
    if kept.id != named:
        yield f"its statistics are {kept.id}, the row names {named}"
    expected = (row.get("samples"), row.get("extractor"), row.get("extractor_id"), row.get("reference_id"))
    if (kept.moments.n, kept.extractor, kept.extractor_id, kept.reference_id) != expected:
        yield "its statistics are of other samples, features or another reference than the row"


def scores(claim: Claim) -> Iterator[str]:
    """IS and FID are those of the statistics, the FID against the reference that the row names."""
    row = claim.row
    kept = claim.statistics if row.get("statistics_id") else None
    if kept is None:
        return
    n, mine = kept.moments.n, kept.moments
    if kept.logits is not None and row.get("is_mean") is not None:
        splits = (row.get("metrics_params") or {}).get("splits", 10)
        is_mean, is_std = inception_score(kept.logits, min(splits, n))
        yield from _other_scores(claim, {"is_mean": is_mean, "is_std": is_std}, 1.0)
    reference = claim.problem.reference
    if reference is not None and claim.problem.reference_id == row.get("reference_id"):
        fid = frechet_distance(mine.mu, mine.sigma, reference.mu, reference.sigma)
        yield from _other_scores(claim, {"fid": fid}, float(reference.sigma.trace()))


def _other_scores(claim: Claim, found: dict[str, float], scale: float) -> Iterator[str]:
    """scale: of the numbers whose difference a score may be, and which sets its rounding."""
    for name, value in found.items():
        said = claim.row.get(name)
        if said is None or not math.isclose(said, value, rel_tol=CLOSE, abs_tol=1e-9 * scale):
            yield f"{name} is {said}, by its statistics {value:.9g}"


ROW_CHECKS: dict[str, Check] = {
    "version": version,
    "run_key": key_of_command,
    "settings": settings,
    "promise": evaluations,
    "floor": above_floor,
    "limits": limits,
    "speed": speed,
    "statistics": kept_statistics,
    "scores": scores,
}
