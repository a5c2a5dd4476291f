"""Every option of every YAML, given what means nothing: refused in one line that names it, or a right result.

What is accepted is run on one Gaussian, whose exact answer is known: it must not end far from that.
"""

import itertools
import math

import pytest
import torch
from cells import compose
from omegaconf import OmegaConf

import seedsbench
from seedsbench import registry
from seedsbench.bench.own_files import entries_for
from seedsbench.bench.sanity import WARNED_BEYOND
from seedsbench.checks import check_options
from seedsbench.config import OF_CELLS
from seedsbench.diffusion.integrate import NonFiniteError

NAN, INF = math.nan, math.inf
VALUES = [NAN, INF, -INF, True, -1, 0, 1e20, 1e400, 5, [0.5], "text"]
MEAN, STD = torch.tensor([0.3, -0.2]), 0.5
BUILT = ("solver", "schedule", "grid", "tracker")
BOUND = WARNED_BEYOND * (0.3 + 6 * STD)
HINTS = ("files", "hints", "options")  # of one's own files: the business of what reads them
NEEDS = {"explicit": {"sigmas": [80.0, 10.0, 1.0, 0.1, 0.02]}}
CHOICES = [(group, name) for group in (*BUILT, "model", "metrics") for name in registry.names(group)]


def configured(group, name):
    """The entries of a choice, as a command composes them."""
    chosen = compose(f"{group}={name}", *(["model=gaussian"] if group == "metrics" else []))
    return {**OmegaConf.to_container(chosen[group], resolve=True), **NEEDS.get(name, {})}


def build(group, name, config):
    """What the command checks of a choice before anything runs; an object for BUILT."""
    if group in BUILT:
        return registry.build(config)
    if group == "model":
        entries, given, _ = entries_for(config, "edm", "cpu")
        registry.check(entries, given=given)
        return registry.build(entries, given=given) if name.startswith("gaussian") else None
    check_options("metrics", OF_CELLS, config)
    if "_target_" in config:
        rest = {key: value for key, value in config.items() if key not in OF_CELLS}
        registry.check(rest, None, given={"device": "cpu"})
    return None


def sampled(group, made, name):
    """Samples of the Gaussian under a choice; None if it is refused, or ends in an error, after all."""
    gaussian = seedsbench.analytic.GaussianMixture([MEAN.tolist()], [1.0], STD)
    latents = seedsbench.noise.latents(torch.arange(64), (2, 1, 1), seed=0)
    chosen = {"solver": "heun", "schedule": "linear", "grid": "edm", group: made}
    if name == "discrete":
        chosen |= {"schedule": "discrete"} if group == "grid" else {"grid": "discrete"}
    steps = {"steps": 4} if name == "explicit" else {"nfe": 60}
    try:
        return seedsbench.sample(gaussian, latents, **chosen, **steps).x
    except (ValueError, NonFiniteError):
        return None


def refusal(group, name, config):
    """Why a choice is refused, and what it makes if it is not."""
    try:
        return None, build(group, name, config)
    except ValueError as error:
        return str(error), None


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=lambda value: value)
def test_a_value_without_a_meaning_is_refused_or_right(group, name):
    default = configured(group, name)
    for option, value in itertools.product(default, VALUES):
        if option.startswith("_") or option in HINTS:
            continue
        said = f"{group}={name} {option}={value!r}"
        refused, made = refusal(group, name, {**default, option: value})
        if refused is not None:
            assert "\n" not in refused, said
            assert option in refused, f"{said}: {refused}"
            continue
        assert value == value, f"{said} is accepted"
        x = sampled(group, made, name) if group in ("solver", "schedule", "grid") else None
        assert x is None or x.abs().max() < BOUND, f"{said}: {x.abs().max():.3g}"
