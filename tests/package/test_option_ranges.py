"""Every option of every YAML, given what means nothing and the edges of its range: refused by name, or right.

What an option may be is declared beside its type (`seedsbench.checks.Range`); the walks below read it there.
"""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

import seedsbench
from seedsbench import registry
from seedsbench.analytic import GaussianMixture
from seedsbench.bench.cell import CELL_OPTIONS
from seedsbench.bench.problems.build import FACTS, check_function, check_problem
from seedsbench.checks import Range, check_options
from seedsbench.metrics import frechet_distance
from seedsbench.noise import Philox, latents
from tests.support.cells import compose, run

BAD = (math.nan, math.inf, -math.inf, True, -1, 0, 1e20, 10**400, [0.5], "nonsense", None)
BUILT = ("solver", "schedule", "grid", "guidance", "tracker")
SLOW = ("glyphs_finite", "adaptive_sde", "dpm_adaptive", "pc_subvp", "pc_ve", "pc_vp")
SLOW += ("seeds3", "seeds3_asreleased", "karras_sde", "karras_ve", "dpmpp_sde")
CHOICES = [
    pytest.param(group, name, marks=pytest.mark.slow if name in SLOW else ())
    for group in (*BUILT, "model", "metrics")
    for name in registry.names(group)
]
LEVELS = (80.0, 20.0, 5.0, 1.0, 0.3, 0.1)

GAUSSIAN = GaussianMixture([[0.3, -0.2]], [1.0], 0.5, sigma_min=0.002, sigma_max=80.0)
INDICES, SHAPE = torch.arange(128), (2, 1, 1)
LATENTS = latents(INDICES, SHAPE, seed=0)
NEAR = 0.1
"""A Frechet distance that counts as right: of exact samples it is 0.01, of noise at sigma 80 it is 13,000."""
BOUND = 60.0
"""No sample is larger, whatever an option may do to its law: the state starts three times as large."""
ANOTHER_LAW = ("s_noise", "S_noise", "beta_end")  # of the noise added, of a table that ends at sigma 0.2
AS_COARSE_AS_ASKED_FOR = ("shift", "rtol", "atol", "safety", "exponent", "accept_safety", "rho", "power", "M")
SLOW_TO_CONVERGE = ("c2", "c3", "r")  # near the start of a step: see the slow test


def options_of(group, name):
    """Option -> annotation, of the class or builder that the YAML names."""
    config = OmegaConf.load(registry.conf_dir() / group / f"{name}.yaml")
    hints = dict({"metrics": CELL_OPTIONS, "model": FACTS}.get(group, {}))
    if "_target_" in config:
        hints |= get_type_hints(get_object(config["_target_"]), include_extras=True)
    return {option: hints[option] for option in config if not option.startswith("_")}


def edges_of(hint):
    """The ends of a number's range that belong to it."""
    for option in (hint, *get_args(hint)):  # X | None has its range inside
        if get_origin(option) is Annotated and get_args(option)[0] in (int, float):
            kind, limits = get_args(option)
            return [kind(end) for end in (limits.low, limits.high) if abs(end) < math.inf and end in limits]
    return []


def refusal(group, name, option, value, cell):
    """Why a choice with this value is refused before anything runs; None if it is not."""
    try:
        if group in BUILT:
            registry.build(registry.configured(group, whole(name, option, value)))
        else:
            cell = dataclasses.replace(cell, **{group: getattr(cell, group) | {option: value}})
            cell.check()
            check_problem(cell)
            if option == "path":
                check_function(cell)
    except ValueError as error:
        return str(error)
    return None


def whole(name, option, value):
    """The choice with this value, and with what the choice or the option needs to have any effect."""
    alone = {"explicit": {"sigmas": LEVELS}, "searched": {"grids": [LEVELS]}, "auto": {"training": 1}}
    needed = alone.get(name, {})
    if option in ("beta_d", "beta_min", "sigma_0", "sigma_1"):
        needed["fit_range"] = False
    return {"name": name, **needed, option: value}


def sampled(group, name, option, value, steps):
    """(Frechet distance, largest |x|) of samples of a Gaussian."""
    of_a_table = name == "discrete" or option in ("set_alpha_to_one", "previous_timestep")
    schedule = "discrete" if of_a_table else {"pc_vp": "vp", "pc_subvp": "subvp"}.get(name, "linear")
    settings = {"solver": "euler", "schedule": schedule, "grid": "discrete" if of_a_table else "edm"}
    settings[group] = whole(name, option, value)
    steps = len(LEVELS) - 1 if name in ("explicit", "searched") else steps
    noise = Philox(INDICES, SHAPE, seed=0)
    x = seedsbench.sample(GAUSSIAN, LATENTS, steps=steps, noise=noise, **settings).x.flatten(1).numpy()
    return frechet_distance(x.mean(0), np.cov(x.T), *GAUSSIAN.moments()), float(np.abs(x).max())


SOME = Annotated[float, Range(0, 1, open_low=True)]


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (SOME, (1, 0.5), {0: "x=0 must lie in (0, 1]", True: "x=True must be a number"}),
        (SOME | None, (None, 1), {2.0: "x=2.0 must lie in (0, 1] or null"}),
        (SOME | None, (), {"a": "x='a' must be a number or null"}),
        (Annotated[float | None, Range(0, 1)], (None, 0), {-1: "x=-1 must lie in [0, 1] or null"}),
        (Annotated[float, Range(0, infinite=True)], (math.inf,), {-math.inf: "x=-inf must lie in [0, inf]"}),
        (float, (-3, 1e300), {math.inf: "x=inf must lie in (-inf, inf)", math.nan: "x=nan must be a number"}),
        (Literal[1, 2], (1, 2), {True: "x=True must be one of 1, 2", 2.0: "x=2.0 must be one of 1, 2"}),
        (int, (3,), {3.0: "x=3.0 must be an integer", False: "x=False must be an integer"}),
        (list[SOME], ([], [1]), {(1, 0): "x[1]=0 must lie in (0, 1]", 1: "x=1 must be a list"}),
        (tuple[SOME, int], ((1, 5), [1, 5]), {(1,): "x=(1,) must be a list of 2"}),
        (dict[str, float], ({},), {1: "x=1 must be a mapping"}),
        (torch.Tensor, (None, 1), {}),
    ],
)
def test_what_an_annotation_says_of_a_value(hint, good, bad):
    for value in good:
        check_options("Owner", {"x": hint}, {"x": value})
    for value, said in bad.items():
        with pytest.raises(ValueError, match=f"^{re.escape(f'Owner: {said}')}$"):
            check_options("Owner", {"x": hint}, {"x": value})


@dataclass
class Outside:
    """A class that checks nothing itself."""

    share: SOME = 0.5


def test_classes_from_outside_are_checked_too():
    target = {"_target_": f"{__name__}.Outside"}
    assert registry.build({**target, "share": 1}).share == 1
    with pytest.raises(ValueError, match=r"^Outside: share=2 must lie in \(0, 1\]$"):
        registry.build({**target, "share": 2})
    with pytest.raises(ValueError, match=r"^Outside: unknown option 'shar'. Did you mean 'share'\?$"):
        registry.build({**target, "shar": 1})


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_number_declares_its_range_and_every_option_is_refused_by_name_or_right(group, name):
    for option, hint in options_of(group, name).items():
        assert hint not in (int, float), f"{option}: write Annotated[{hint.__name__}, Range(...)]"
        cell = None if group in BUILT else compose("model=gaussian", f"{group}={name}")
        for value in (*BAD, *edges_of(hint)):
            why = refusal(group, name, option, value, cell)
            if why is not None:
                assert option in why, (value, why)
                assert "\n" not in why
            elif group in ("solver", "schedule", "grid"):
                assert_right(group, name, option, value)
            else:  # what the class or the builder takes; of models and metrics see below
                assert value in (None, True, "nonsense", *edges_of(hint)), (option, value)


def assert_right(group, name, option, value):
    """Near the law within a hundred steps, or refused by name where its levels are made."""
    for steps in (12, 100):
        try:
            distance, largest = sampled(group, name, option, value, steps)
        except ValueError as error:
            assert f"{option}={value}" in str(error)  # noqa: PT017
            return
        if distance < NEAR:
            return
    assert option in ANOTHER_LAW + AS_COARSE_AS_ASKED_FOR + SLOW_TO_CONVERGE, (option, value, distance)
    assert largest < BOUND, (option, value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seeds2", "seeds3", "seeds3_asreleased", "dpmpp_sde"])
def test_nodes_at_their_edges_converge(name):
    for option in SLOW_TO_CONVERGE:
        for value in edges_of(options_of("solver", name).get(option)):
            assert sampled("solver", name, option, value, 1000)[0] < NEAR, (option, value)


EDGES = ("model.std=1e-6", "model.std=10", "model.means=[[10,-10]]", "model=glyphs_finite model.n_images=1")


@pytest.mark.parametrize(
    "options", [*EDGES, "model=gaussian_mixture metrics.splits=1000 metrics.floor_sets=1"]
)
def test_models_and_metrics_at_their_edges_make_right_rows(tmp_path, options):
    row = run(tmp_path, "model=gaussian", "solver=heun", "nfe=40", "samples=256", *options.split())
    assert row["status"] == "done"
    assert row["fid"] < 0.1 + 3 * row["fid_floor"]
