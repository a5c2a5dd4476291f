"""Studies made up for tests of the report: rows as the benchmark writes them, and strips of samples."""

import json
import zlib
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from PIL import Image

from seedsbench.report.main import build_report
from seedsbench.report.pareto import panels
from seedsbench.report.rows import read_rows

# Family, order, evaluations a step, and scale and rate at which the FID falls.
SOLVERS = {
    "seeds1": ("seeds", 1, 1, 90, 1.6),
    "seeds2": ("seeds", 2, 2, 160, 2.0),
    "seeds3": ("seeds", 3, 3, 220, 2.2),
    "seeds3_asreleased": ("seeds", 1, 3, 200, 2.0),
    "heun": ("edm", 2, 2, 60, 1.9),
    "euler": ("edm", 1, 1, 9, 1.2),
    "karras_sde": ("edm", 2, 2, 160, 1.9),
    "ddim": ("ddim", 1, 1, 10, 1.2),
    "dpmpp_2m": ("dpm_solver", 2, 1, 3.0, 1.0),
}

# A panel that printed FIDs may be compared with.
CIFAR10 = {"model": "cifar10_uncond", "extractor": "inception-v3", "regime": "vp", "fid_floor": None}
CIFAR10 |= {"samples": 50000, "reference": "cifar10-32x32.npz"}


def make_row(solver, budget, *, seed=0, model="glyphs", regime="edm", params=None, **changes):
    """A row as the benchmark writes it, with an FID that falls to a floor."""
    family, order, per, scale, rate = SOLVERS.get(solver, ("mine", 1, 1, 40, 1.5))
    nfe = (budget - 1) // per * per + 1
    hash_ = zlib.crc32(repr((solver, budget, seed, model, regime, params)).encode())
    worse = {"ve": 5, "vp": 1.4, "iddpm": 1.2}.get(regime, 1.0)
    fid = worse * (0.15 + scale * nfe**-rate) * (1 + 0.06 * (hash_ % 1000 / 500 - 1))
    row = {
        "status": "done", "reason": None, "model": model, "regime": regime,
        "schedule": "linear" if regime in ("edm", "iddpm") else regime, "grid": regime,
        "solver": solver, "solver_params": params or {}, "solver_family": family, "order": order,
        "nfe_budget": budget, "nfe": float(nfe), "nfe_max": nfe, "n_steps": nfe // per, "samples": 2000,
        "seed": seed, "repeat": seed, "labels": "balanced", "final": "denoise", "fid": fid, "fid_floor": 0.2,
        "is_mean": 9.5 - fid / 10, "is_std": 0.1, "extractor": "glyphs-64d",
        "extractor_id": "e1", "reference_id": "r1", "stochastic": False,
        "model_id": f"m-{regime}", "seconds_sampling": 2.0, "seconds_features": 0.5, "seconds_scoring": 0.1,
        "images_per_second": 2000 / nfe, "device": "cpu", "batch_size": 64, "world_size": 1,
        "time_utc": "2025-01-01T00:00:00Z", "versions_torch": "2.9", **changes,
    }  # fmt: skip
    if row["status"] != "done":
        unknown = ("nfe", "nfe_max", "fid", "fid_floor", "is_mean", "is_std", "images_per_second")
        unknown += ("extractor", "extractor_id", "reference_id", "n_steps", "solver_family", "order")
        row |= dict.fromkeys(unknown)
    return {"run_key": f"{hash_:08x}{zlib.crc32(repr(sorted(changes.items())).encode()):08x}", **row}


def repeated(solver, budget, fids, **changes):
    """Rows of seeds 0, 1 ... with these FIDs."""
    return [make_row(solver, budget, seed=k, fid=fid, **changes) for k, fid in enumerate(fids)]


def usual_rows():
    """Seven solvers at three budgets and seeds, one more that failed once, and a skipped cell."""
    solvers = ["seeds1", "seeds2", "seeds3", "seeds3_asreleased", "heun", "dpmpp_2m", "ddim"]
    rows = [make_row(s, b, seed=k) for s in solvers for b in (10, 20, 50) for k in range(3)]
    rows += [make_row("karras_sde", b) for b in (20, 50)]
    skipped = "NFE budget 2 fits no step of seeds3: use 4 or more"
    failed = "non-finite sample at step 3 (sigma 12.1)"
    rows.append(make_row("seeds3", 2, status="skipped", reason=skipped))
    return [*rows, make_row("karras_sde", 10, status="failed", reason=failed)]


def write_study(folder, rows, sheets=False):
    """rows/ and, where wanted, samples/ of a study; its folder."""
    (folder / "rows").mkdir(parents=True)
    (folder / "samples").mkdir()
    for row in rows:
        (folder / "rows" / f"{row['run_key']}.json").write_text(json.dumps(row))
        if sheets and row["status"] == "done":
            strip(row).save(folder / "samples" / f"{row['run_key']}.png")
    return folder


def frame(folder, rows):
    """The table that is read of these rows, without a fault, in a study of its own in the folder."""
    df, faults = read_rows(write_study(Path(mkdtemp(dir=folder)), rows))
    assert faults == []
    return df


def panels_of(folder, rows):
    return panels(frame(folder, rows))


def report_of(folder, rows, sheets=False):
    """The report of these rows; its study is folder/study."""
    return build_report(write_study(folder / "study", rows, sheets))


def strip(row):
    """Sixteen images of 16 x 16 pixels, of squares in colours of their own."""
    random = np.random.default_rng(zlib.crc32(row["run_key"].encode()))
    return Image.fromarray(random.integers(0, 256, (4, 64, 3), np.uint8).repeat(4, 0).repeat(4, 1))
