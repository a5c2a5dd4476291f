"""scripts/check_golden.py, on what of the reference folder is kept here. The whole is for who has it."""

import json
import shutil
import sys

import numpy as np
import pytest

from scripts import check_golden
from tests.support import families
from tests.support.golden import GOLDEN, golden


def missed(results):
    return sum(not one.error <= one.bound for one in results)


def test_recorded_metrics_are_met_and_a_wrong_one_is_missed(tmp_path):
    results = list(check_golden.other_metrics(GOLDEN))
    assert (len(results), missed(results)) == (4 + 6 + 9, 0)
    shutil.copy(GOLDEN / "metrics_is_kid_prc.json", tmp_path)
    arrays = dict(np.load(GOLDEN / "metrics_is_kid_prc.npz"))
    scores = [case for case, s in golden("metrics_is_kid_prc").cases.items() if "logits" in s]
    arrays |= {f"{case}/mean": arrays[f"{case}/mean"] * (1 + 1e-5) for case in scores}
    np.savez(tmp_path / "metrics_is_kid_prc.npz", **arrays)
    results = list(check_golden.other_metrics(tmp_path))
    assert missed(results) == 4
    line = next(line for line in check_golden.table(results).splitlines() if "inception score" in line)
    assert [line.split("|")[i].strip() for i in (2, 3, 6)] == ["4", "4", "4"]


def checked(folder, monkeypatch):
    """The exit code of the script on a folder."""
    monkeypatch.setattr(sys, "argv", ["check_golden.py", str(folder)])
    with pytest.raises(SystemExit) as caught:
        check_golden.main()
    return caught.value.code


def test_a_nan_is_a_miss():
    one = check_golden.Compared("row", "case", float("nan"), 1e-5)
    assert check_golden.table([one]).splitlines()[-1].split("|")[6].strip() == "1"


def test_another_folder_is_refused(tmp_path, monkeypatch, capsys):
    assert checked(tmp_path, monkeypatch) == 2
    assert "has no nets_song, nets_dhariwal" in capsys.readouterr().err


QUAD = {"beta_schedule": "quad", "beta_start": 1e-4, "beta_end": 0.04, "num_diffusion_timesteps": 200}
ADM = {"image_size": 8, "in_channels": 3, "model_channels": 32, "out_channels": 6, "num_res_blocks": 1}
ADM |= {"attention_resolutions": [2], "channel_mult": [1, 1], "num_classes": 10, "num_heads": 1}
ADM |= {"num_head_channels": 16, "num_heads_upsample": -1, "use_scale_shift_norm": True}
ADM |= {"resblock_updown": True, "use_new_attention_order": True}
COSINE = {"steps": 1000, "noise_schedule": "cosine", "learn_sigma": True, "rescale_timesteps": False}
MODEL = {"num_scales": 1000, "beta_min": 0.1, "beta_max": 20.0, "name": "ncsnpp", "scale_by_sigma": False}
MODEL |= {"fir": False, "skip_rescale": True}
VPSDE = {"image_size": 8, "sde": "vpsde", "continuous": False, "centered": True, "model": MODEL}
# What a reference folder says of the cases whose weights are kept here.
SETTINGS = {
    "ddim_bayesian_1level_1channel_quad": {"config": {"image_size": 8, "diffusion": QUAD}},
    "guided_adm64style_new_order": {"model_kwargs": ADM, "diffusion_kwargs": COSINE},
    "score_sde_vp_ddpmpp_discrete": {"config": VPSDE},
}


def write_folder(folder):
    """A part of a reference folder, elsewhere and with names of its own."""
    kept = golden(families.NAME)
    for name, settings in SETTINGS.items():
        outputs = {key: kept.array(name, key) for key in ("x", "sigma", "y", "D") if kept.has(name, key)}
        arrays = outputs | {f"state/{key}": value.numpy() for key, value in families.weights(name).items()}
        cases = {
            "theirs": (settings | {"state": "bare"}, arrays),
            "same": (settings | {"state": "weights of case theirs without []"}, outputs),
            "lost": (settings | {"state": "weights of case gone"}, outputs),
        }
        described = {
            case: {"settings": told, "arrays": dict.fromkeys(held)} for case, (told, held) in cases.items()
        }
        family = folder / f"nets_{kept.cases[name]['family']}"
        family.with_suffix(".json").write_text(json.dumps({"cases": described}))
        flat = {f"{case}/{key}": value for case, (_, held) in cases.items() for key, value in held.items()}
        np.savez(family.with_suffix(".npz"), **flat)


def test_a_part_of_a_folder_elsewhere_says_itself_how_it_is_read(tmp_path, monkeypatch, capsys):
    write_folder(tmp_path)
    code, said = checked(tmp_path, monkeypatch), capsys.readouterr().out
    assert code == 0, said
    absent = "nets_song, nets_dhariwal, e2e_tiny_nets, metrics_fid, metrics_is_kid_prc"
    assert f"and not compared: {absent}" in said
    assert "18 outputs compared, 0 missed" in said
