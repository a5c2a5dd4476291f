"""Every recorded network output and metric of a reference folder against ours: a table of counts and errors.

    python scripts/check_golden.py FOLDER

The test suite carries what fits into its 8 MB: 20 of the 88 EDM networks, twins for 9 of the 24 others.
FOLDER holds all of it or a part (nets_song, nets_dhariwal, e2e_tiny_nets, nets_ddim, nets_guided,
nets_score_sde, metrics_fid, metrics_is_kid_prc; each .npz with its .json, which says how its networks are
read). Exit code 1 if anything misses its bound.

Two kinds of output are compared with the recorded noise label in place of ours, and counted apart:
- Fourier features of VP levels. Labels reach 999 and their features turn them into angles of 1e5, where
  the last bit of a float32 label is 1e-2 of a turn. No published network combines the two.
- iDDPM levels between two of its table, of which the released code takes the farther (by rounded squares
  of distances): tests/denoisers/test_edm_networks.py has the one that occurs.
"""

import argparse
import ast
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tqdm import tqdm

from seedsbench import metrics
from seedsbench.denoisers.checkpoints.edm.denoiser import denoiser_of
from seedsbench.denoisers.checkpoints.formats import load_any
from seedsbench.report.table import markdown_table
from tests.support import families  # pyright: ignore[reportMissingImports]
from tests.support.golden import Golden  # pyright: ignore[reportMissingImports]
from tests.support.parity import (  # pyright: ignore[reportMissingImports]
    Augmented,
    fid_gaussians,
    kernel_of,
    relative_error,
    sampled,
)

NETWORKS = ("nets_song", "nets_dhariwal")
FAMILIES = ("ddim", "guided", "score_sde")
FILES = (*NETWORKS, "e2e_tiny_nets", *(f"nets_{family}" for family in FAMILIES))
FILES += ("metrics_fid", "metrics_is_kid_prc")
LEVELS = (("VPPrecond", "Fourier features of VP levels"), ("iDDPMPrecond", "iDDPM level tied in float32"))


@dataclass(frozen=True)
class Compared:
    """One comparison: the row it counts in, its case, relative error and the bound it must keep."""

    row: str
    case: str
    error: float
    bound: float


# --- EDM's networks -------------------------------------------------------------------------------


def record_of(data: Any, case: str) -> Any:
    """A recorded network as its file would give it; all preconditioners share the weights kept with VP."""
    state = {}
    for source in (f"{case.split('/')[0]}/VPPrecond", case):
        for name in data.names[source]:
            if name.startswith("state/"):
                state[name.removeprefix("state/")] = data.tensor(source, name)
    settings = data.cases[case]
    return SimpleNamespace(
        class_name=settings["precond"], init_args=(), init_kwargs=settings["init_kwargs"], state_dict=state
    )


def edm_outputs(data: Any, case: str) -> Iterator[tuple[str, Any, Any, Any, Any, Any]]:
    """Name, image, level, recorded label, class labels and augmentation of each recorded D."""
    x, sigma, c_noise = (data.tensor(case, name) for name in ("x", "sigma", "c_noise"))
    labels, augment = (
        data.tensor(case, name) if data.has(case, name) else None
        for name in ("class_labels", "augment_labels")
    )
    for i in range(len(x)):
        yield f"D/{i}", x[i], sigma[i], c_noise[i], labels, augment
    yield "D_scalar_sigma/0", x[1], sigma[1, 0], c_noise[1, 0], labels, augment
    if data.has(case, "D_nolabels"):
        yield "D_nolabels/0", x[0], sigma[0], c_noise[0], None, augment
    if data.has(case, "D_noaug"):
        yield "D_noaug/0", x[0], sigma[0], c_noise[0], labels, None


def edm_network(file: str, data: Any, case: str) -> Iterator[Compared]:
    """All outputs of one network, whole images and state in float32, as recorded."""
    denoiser, settings = denoiser_of(record_of(data, case)), data.cases[case]
    ends = (settings["sigma_min"], settings["sigma_max"])
    yield Compared(
        f"{file}: range of levels", case, float(ends != (denoiser.sigma_min, denoiser.sigma_max)), 0
    )
    network = denoiser.network
    for name, x, sigma, c_noise, labels, augment in edm_outputs(data, case):
        kind, index = name.split("/")
        wanted, row, errors = data.tensor(case, kind)[int(index)], f"{file}: {kind}", []
        for label in (None, c_noise):
            denoiser.network = Augmented(network, augment, label)
            errors.append(relative_error(denoiser(x, sigma, labels), wanted))
        denoiser.network = network
        known = dict(LEVELS).get(settings["precond"])
        if errors[0] < 1e-5 or known is None or not excused(known, network, denoiser, sigma, c_noise):
            yield Compared(row, case, errors[0], 1e-5)
        else:
            yield Compared(f"{row}, label as recorded ({known})", case, errors[1], 1e-5)


def excused(known: str, network: Any, denoiser: Any, sigma: Any, c_noise: Any) -> bool:
    """Whether an output is one of the known exceptions: see above."""
    ours = denoiser.preconditioner.c_noise(sigma)
    if known.startswith("Fourier"):
        return getattr(network, "map_noise", None) is not None and bool(((ours - c_noise).abs() < 1e-2).all())
    return int((ours != c_noise).sum()) == 1 and bool(((ours - c_noise).abs() <= 1).all())


def edm_samples(folder: Path) -> Iterator[Compared]:
    """Whole sampling runs of recorded networks."""
    runs, networks = stored("e2e_tiny_nets", folder), {name: stored(name, folder) for name in NETWORKS}
    for case, settings in runs.cases.items() if runs else ():
        file, network = settings["weights"].split(".npz : ")
        if (
            networks[file] is None
            or not {network, f"{network.split('/')[0]}/VPPrecond"} <= networks[file].cases.keys()
        ):
            continue
        labels, noise = (
            runs.tensor(case, name) if runs.has(case, name) else None for name in ("class_labels", "noise")
        )
        denoiser = denoiser_of(record_of(networks[file], network))
        x = sampled(settings, denoiser, runs.tensor(case, "latents"), labels, noise)
        error = relative_error(x, runs.tensor(case, "x_final").double())
        yield Compared("e2e_tiny_nets: samples", case, error, 1e-3)


# --- other people's checkpoints ---------------------------------------------------------------------


def source_of(settings: dict[str, Any], case: str) -> tuple[str, list[str]]:
    """The case whose weights a case has, and the keys it leaves out."""
    found = re.match(r"weights of case (\w+)(?: without (\[.*\]))?", settings["state"])
    return (case, []) if found is None else (found[1], ast.literal_eval(found[2] or "[]"))


def saved_of(family: str, data: Any, case: str) -> Any:
    """What the authors' training would have saved for a recorded case, but for the optimizer."""
    source, without = source_of(data.cases[case], case)
    parts: dict[str, dict[str, Any]] = {"state": {}, "ema": {}}
    for name in data.names[source]:
        part, _, key = name.partition("/")
        if key and part in parts and key not in without:
            parts[part][key] = data.tensor(source, name).float()
    state, averages = parts["state"], parts["ema"]
    if family == "guided" or (family == "ddim" and not averages):
        return state
    if family == "ddim":
        return [state, {"state": {}}, 3, 1234, averages]
    saved: dict[str, Any] = {"optimizer": {}, "model": state, "step": 1234}
    if averages:
        shadow = [averages[key] for key in sorted(averages)]
        saved["ema"] = {"decay": 0.999, "num_updates": 1234, "shadow_params": shadow}
    else:
        saved["model"] = {f"module.{key}": value for key, value in state.items()}
    return saved


def ddim_hints(data: Any, case: str) -> dict[str, Any]:
    config = data.cases[case]["config"]
    betas = {name: config["diffusion"][name] for name in ("beta_schedule", "beta_start", "beta_end")}
    return {
        "img_resolution": config["image_size"],
        "timesteps": config["diffusion"]["num_diffusion_timesteps"],
        **betas,
    }


def guided_hints(data: Any, case: str) -> dict[str, Any]:
    """improved-diffusion says no size, and knows no new order, heads by channels or resampling blocks."""
    model, diffusion = data.cases[case]["model_kwargs"], data.cases[case]["diffusion_kwargs"]
    size = model.get("image_size", data.array(case, "x").shape[-1])
    return {
        "image_size": size,
        "use_new_attention_order": model.get("use_new_attention_order", False),
        "noise_schedule": diffusion["noise_schedule"],
        "diffusion_steps": diffusion["steps"],
        "rescale_timesteps": diffusion["rescale_timesteps"],
        "learn_sigma": diffusion["learn_sigma"],
        "num_heads": model["num_heads"],
        "num_head_channels": model.get("num_head_channels", -1),
        "num_heads_upsample": model["num_heads_upsample"],
        "num_channels": model["model_channels"],
        "num_res_blocks": model["num_res_blocks"],
        "channel_mult": model["channel_mult"],
        "attention_resolutions": [size // factor for factor in model["attention_resolutions"]],
        "class_cond": model["num_classes"] is not None,
        "use_scale_shift_norm": model["use_scale_shift_norm"],
        "resblock_updown": model.get("resblock_updown", False),
    }


def score_sde_hints(data: Any, case: str) -> dict[str, Any]:
    config = data.cases[case]["config"]
    model = config["model"]
    named = {name: config[name] for name in ("image_size", "sde", "continuous", "centered")}
    options = ("name", "scale_by_sigma", "beta_min", "beta_max", "num_scales", "fir", "skip_rescale")
    named |= {name: model[name] for name in options if name in model}
    averaged = any(name.startswith("ema/") for name in data.names[case])
    return named | {"weights": "ema" if averaged else "raw"}


HINTS = {"ddim": ddim_hints, "guided": guided_hints, "score_sde": score_sde_hints}


def family_case(family: str, data: Any, case: str, path: Path) -> Iterator[Compared]:
    """The outputs of one checkpoint, read from a file; also its raw weights and sub-VP, where recorded."""
    torch.save(saved_of(family, data, case), path)
    hints = HINTS[family](data, case)
    variants: list[tuple[str, dict[str, Any]]] = [("D", {})]
    if data.has(case, "D_raw_weights"):
        variants.append(("D_raw_weights", {"weights": "raw"}))
    if data.has(case, "subvp_D"):
        variants.append(("subvp_D", {"sde": "subvpsde"}))
    for name, changes in variants:
        denoiser = load_any(path, {"format": family, **hints, **changes})
        for n, wanted in enumerate(data.tensor(case, name)):
            labels = None
            if data.has(case, "y"):
                classes = data.tensor(case, "y")[n]
                labels = torch.nn.functional.one_hot(classes, denoiser.label_dim).double()
            found = denoiser(data.tensor(case, "x")[n].double(), data.tensor(case, "sigma")[n], labels)
            error = families.distance(found[None], wanted[None])
            yield Compared(f"nets_{family}: {name}", case, error, 1e-5)


# --- metrics ----------------------------------------------------------------------------------------


def off(found: float, wanted: Any, small: float = 1e-6) -> float:
    """Relative error of a number; of one below `small`, a difference of near equals, error over that."""
    return abs(found - float(wanted)) / max(abs(float(wanted)), small)


def frechet(folder: Path) -> Iterator[Compared]:
    data = stored("metrics_fid", folder)
    for case in data.cases if data else ():
        value = metrics.frechet_distance(*fid_gaussians(data, case))
        worst = max(off(value, data.array(case, name), 1e-3) for name in ("fid_sym", "fid_eig", "fid_sqrtm"))
        yield Compared("metrics_fid: Frechet distance", case, worst, 1e-6)


def other_metrics(folder: Path) -> Iterator[Compared]:
    data = stored("metrics_is_kid_prc", folder)
    for case, settings in data.cases.items() if data else ():
        if "logits" in settings:
            logits = data.tensor(*settings["logits"].split("/"))
            if settings["shuffle"]:
                logits = logits[np.random.RandomState(settings["rng_seed"]).permutation(len(logits))]
            found = metrics.inception_score(logits, splits=settings["splits"])
            row = "metrics_is_kid_prc: inception score"
        elif "kid_subsets" in settings:
            x, y = (data.tensor(settings["features"], side) for side in "xy")
            chosen = data.array(case, "idx_x"), data.array(case, "idx_y")
            found = metrics.kernel_distance(x, y, indices=chosen, kernel=kernel_of(settings))
            row = "metrics_is_kid_prc: kernel distance"
        elif "prc_neighborhood" in settings:
            x, y = (data.tensor(*settings[side].split("/")) for side in ("generated", "real"))
            scores = metrics.precision_recall(y, x, k=settings["prc_neighborhood"])
            worst = max(off(value, data.array(case, f"prdc_{name}")) for name, value in scores.items())
            yield Compared("metrics_is_kid_prc: precision, recall ...", case, worst, 1e-6)
            continue
        else:
            continue
        worst = max(
            off(value, data.array(case, name)) for name, value in zip(("mean", "std"), found, strict=True)
        )
        yield Compared(row, case, worst, 1e-6)


# --- the table --------------------------------------------------------------------------------------


def compared(folder: Path) -> Iterator[Compared]:
    """All that a folder holds, but for cases that need another which it does not hold."""
    for file in NETWORKS:
        data = stored(file, folder)
        for case in data.cases if data else ():
            if f"{case.split('/')[0]}/VPPrecond" in data.cases:
                yield from edm_network(file, data, case)
    yield from edm_samples(folder)
    with tempfile.TemporaryDirectory() as scratch:
        for family in FAMILIES:
            data = stored(f"nets_{family}", folder)
            for case in data.cases if data else ():
                if source_of(data.cases[case], case)[0] in data.cases:
                    yield from family_case(family, data, case, Path(scratch) / "file")
    yield from frechet(folder)
    yield from other_metrics(folder)


def stored(name: str, folder: Path) -> Any:
    """The arrays and settings of that name in a folder; None if it lacks either file."""
    there = all((folder / f"{name}.{suffix}").is_file() for suffix in ("npz", "json"))
    return Golden(name, folder) if there else None


def table(results: list[Compared]) -> str:
    """Markdown: a line for each kind of output."""
    lines = []
    for row in dict.fromkeys(one.row for one in results):
        of_row = [one for one in results if one.row == row]
        worst = max(of_row, key=lambda one: one.error)
        missed = sum(not one.error <= one.bound for one in of_row)
        cases = len({one.case for one in of_row})
        counts = [str(cases), str(len(of_row)), f"{worst.error:.1e}", f"{worst.bound:g}", str(missed)]
        lines.append([row, *counts, worst.case])
    head = ["what", "cases", "outputs", "largest error", "bound", "missed", "where the largest is"]
    return "\n".join(markdown_table(head, lines))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the reference folder: .npz files with their .json")
    folder = parser.parse_args().folder
    missing = [name for name in FILES if stored(name, folder) is None]
    if len(missing) == len(FILES):
        said = f"{folder} has no {', '.join(missing)} (.npz and .json): give a reference folder"
        print(said, file=sys.stderr)
        raise SystemExit(2)
    if missing:
        print(f"not in {folder} and not compared: {', '.join(missing)}\n")
    torch.set_num_threads(1)
    results = list(tqdm(compared(folder), unit="output", disable=None))
    missed = [one for one in results if not one.error <= one.bound]
    print(table(results))
    for one in missed:
        print(f"missed: {one.row}, {one.case}: {one.error:.2e} > {one.bound:g}")
    print(f"\n{len(results)} outputs compared, {len(missed)} missed")
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
