"""Checkpoint files of other people's formats, for tests: recorded ones and twins of recorded ones.

Golden cases hold the weights, inputs and results of tiny networks of the authors' code. A twin has the
keys and shapes of such a network, but weights from a counter, which take no space in the repository;
its results are those of this package, on the day when it agreed with the authors' code on the real
weights to `agreed` (relative). Twins hold what was reached there; golden cases show it anew.
"""

import functools
import json
import lzma
import math

import numpy as np
import torch

import seedsbench
from seedsbench.exact.philox import philox_normal
from tests.support.golden import golden

NAME = "checkpoint_families"


def cases(*, twins):
    return [name for name, case in golden(NAME).cases.items() if ("agreed" in case) == twins]


@functools.cache
def weights(name):
    """State dict of a case, float32, without `module.`; not to be changed."""
    case = golden(NAME).cases[name]
    if "weights_of" in case:
        without = case.get("without", [])
        return {k: v for k, v in weights(case["weights_of"]).items() if k not in without}
    header, codes = _unpacked(golden(NAME).array(name, "weights"))
    if "agreed" in case:
        return {key: _counted(key, shape, draw) for draw, (key, shape, _) in enumerate(header)}
    state, start = {}, 0
    for key, shape, denominator in header:
        numbers = codes[start : start + math.prod(shape)]
        state[key] = torch.tensor(numbers / denominator, dtype=torch.float32).reshape(shape)
        start += math.prod(shape)
    return state


def _unpacked(blob):
    """Names, shapes and denominators; and the numerators, of which 0, 1, 2, 3, ... mean 0, -1, 1, -2, ..."""
    raw = lzma.decompress(blob.tobytes())
    length = int.from_bytes(raw[:4], "little")
    low, high = np.frombuffer(raw[4 + length :], np.uint8).astype(np.int64).reshape(2, -1)
    codes = low + 256 * high
    return json.loads(raw[4 : 4 + length]), np.where(codes % 2, -(codes + 1) // 2, codes // 2)


def _counted(key, shape, draw):
    """Weights of a size that keeps activations near one: norms about 1, the rest 1 / sqrt(inputs)."""
    z = philox_normal(torch.arange(1), math.prod(shape), seed=7, stream=0, draw=draw).reshape(shape).float()
    if len(shape) == 1:
        norm = key.endswith("weight")
        return 1 + 0.1 * z if norm else 0.1 * z
    inputs = shape[0] if key.endswith(".W") else math.prod(shape[1:])
    return z / math.sqrt(inputs)


def content(name):
    """What the authors' training would have saved, but for the optimizer."""
    case, state = golden(NAME).cases[name], weights(name)
    averaged = case.get("averages", False)
    raw = {f"module.{k}": 0.5 * v if averaged else v for k, v in state.items()}
    if case["family"] == "guided":
        return state
    if case["family"] == "ddim":
        return [raw, {"state": {}}, 3, 1234, state] if averaged else state
    high, low, n = case["sigmas"]
    sigmas = torch.tensor(np.exp(np.linspace(math.log(high), math.log(low), n)))
    saved = {"optimizer": {}, "model": {"module.sigmas": sigmas, **raw}, "step": 1234}
    if averaged:
        frequencies = "module.all_modules.0.W"  # not trained, so it is in the model alone
        if frequencies in raw:
            saved["model"][frequencies] = state["all_modules.0.W"]
        shadow = [v for k, v in state.items() if k != "all_modules.0.W"]
        saved["ema"] = {"decay": 0.999, "num_updates": 1234, "shadow_params": shadow}
    return saved


def load(name, path, /, saved=None, **changes):
    """The denoiser of a case, by way of a file of what training `saved`."""
    case = golden(NAME).cases[name]
    torch.save(content(name) if saved is None else saved, path)
    hints = dict(case["hints"])
    if case["family"] == "score_sde" and not case.get("averages", False):
        hints["weights"] = "raw"
    return seedsbench.load_denoiser(path, format=case["family"], **(hints | changes))


def images(name):
    """Noisy images of a case (sets, 2, C, H, W) and their noise levels (sets, 2)."""
    data = golden(NAME)
    sigma = data.tensor(name, "sigma")
    if data.has(name, "x"):
        return data.tensor(name, "x"), sigma
    shape = (*sigma.shape, *data.cases[name]["shape"])
    z = philox_normal(torch.arange(1), math.prod(shape), seed=8, stream=0, draw=0).reshape(shape)
    return (0.25 + sigma**2).sqrt()[..., None, None, None] * z, sigma


def denoised(denoiser, name):
    """D of the case's images, of their shape; the state in float64, as solvers have it."""
    data, results = golden(NAME), []
    for n, (x, sigma) in enumerate(zip(*images(name), strict=True)):
        labels = None
        if data.has(name, "y"):
            classes = data.tensor(name, "y")[n]
            labels = torch.nn.functional.one_hot(classes, denoiser.label_dim).double()
        results.append(denoiser(x.double(), sigma, labels))
    return torch.stack(results)


def distance(found, wanted):
    """Largest error relative to the largest pixel, image by image."""
    error = (found.double() - wanted.double()).abs().flatten(2).amax(2)
    return float((error / wanted.double().abs().flatten(2).amax(2)).max())
