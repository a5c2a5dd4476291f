"""scripts/check_golden.py, on what of the reference folder is kept here. The whole is for who has it."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import families
from tests.support.golden import GOLDEN, golden

PATH = Path(__file__).parents[2] / "scripts" / "check_golden.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_golden", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_golden"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_recorded_metrics_are_met_and_a_wrong_one_would_be_missed(script, monkeypatch):
    results = list(script.other_metrics(GOLDEN))
    assert len(results) == 4 + 6 + 9
    assert all(one.error <= one.bound for one in results)
    monkeypatch.setattr(script.metrics, "inception_score", lambda *_, **__: (1.0, 0.0))
    results = list(script.other_metrics(GOLDEN))
    assert sum(one.error > one.bound for one in results) == 4
    scores = next(line for line in script.table(results).splitlines() if "inception score" in line)
    assert [cell.strip() for cell in scores.split("|")[2:4]] == ["4", "4"]
    assert scores.split("|")[6].strip() == "4"


def test_a_nan_is_a_miss(script):
    one = script.Compared("row", "case", float("nan"), 1e-5)
    assert script.table([one]).splitlines()[-1].split("|")[6].strip() == "1"


def test_another_folder_is_refused(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_golden.py", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        script.main()
    assert caught.value.code == 2
    assert "has no nets_song, nets_dhariwal" in capsys.readouterr().err


MODEL = {"num_scales": 1000, "beta_min": 0.1, "beta_max": 20.0, "name": "ncsnpp", "scale_by_sigma": False}
MODEL |= {"fir": False, "skip_rescale": True}
ADM = {"image_size": 8, "in_channels": 3, "model_channels": 32, "out_channels": 6, "num_res_blocks": 1}
ADM |= {"attention_resolutions": [2], "channel_mult": [1, 1], "num_classes": 10, "num_heads": 1}
ADM |= {"num_head_channels": 16, "num_heads_upsample": -1, "use_scale_shift_norm": True}
ADM |= {"resblock_updown": True, "use_new_attention_order": True}
# What a reference folder says of the cases whose weights are kept here.
SETTINGS = {
    "ddim_bayesian_1level_1channel_quad": {
        "config": {
            "image_size": 8,
            "diffusion": {
                "beta_schedule": "quad",
                "beta_start": 0.0001,
                "beta_end": 0.04,
                "num_diffusion_timesteps": 200,
            },
        }
    },
    "guided_adm64style_new_order": {
        "model_kwargs": ADM,
        "diffusion_kwargs": {
            "steps": 1000,
            "noise_schedule": "cosine",
            "learn_sigma": True,
            "rescale_timesteps": False,
        },
    },
    "score_sde_vp_ddpmpp_discrete": {
        "config": {
            "image_size": 8,
            "sde": "vpsde",
            "continuous": False,
            "centered": True,
            "model": MODEL,
        }
    },
}


def write_folder(folder):
    """A part of a reference folder, elsewhere and with names of its own."""
    for name, settings in SETTINGS.items():
        family = golden(families.NAME).cases[name]["family"]
        arrays = {f"state/{key}": value.numpy() for key, value in families.weights(name).items()}
        for key in ("x", "sigma", "y", "D"):
            if golden(families.NAME).has(name, key):
                arrays[key] = golden(families.NAME).array(name, key)
        outputs = {key: value for key, value in arrays.items() if not key.startswith("state/")}
        cases = {"theirs": (settings | {"state": "bare"}, arrays)}
        cases["same"] = settings | {"state": "weights of case theirs without []"}, outputs
        cases["lost"] = settings | {"state": "weights of case gone"}, outputs
        described = {
            case: {"settings": told, "arrays": dict.fromkeys(held)} for case, (told, held) in cases.items()
        }
        (folder / f"nets_{family}.json").write_text(json.dumps({"cases": described}))
        flat = {f"{case}/{key}": value for case, (_, held) in cases.items() for key, value in held.items()}
        np.savez(folder / f"nets_{family}.npz", **flat)


def test_a_part_of_a_folder_elsewhere_says_itself_how_it_is_read(script, tmp_path, monkeypatch, capsys):
    write_folder(tmp_path)
    monkeypatch.setattr(sys, "argv", ["check_golden.py", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        script.main()
    said = capsys.readouterr().out
    assert caught.value.code == 0, said
    assert (
        "and not compared: nets_song, nets_dhariwal, e2e_tiny_nets, metrics_fid, metrics_is_kid_prc" in said
    )
    assert "18 outputs compared, 0 missed" in said
