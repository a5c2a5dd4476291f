"""Files of torchcfm, SiT and DiT: parity with plain implementations, published names, refusals."""

import argparse
import time

import pytest
import torch

import seedsbench
from seedsbench.denoisers.checkpoints.dit import HEADS, dit_config
from seedsbench.denoisers.checkpoints.guided import guided_config
from seedsbench.denoisers.checkpoints.reading import CheckpointError
from seedsbench.denoisers.networks.dit import DiT, DiTConfig
from seedsbench.denoisers.networks.guided_unet import GuidedUNet
from seedsbench.denoisers.prediction import Guided
from seedsbench.diffusion.schedule import Discrete
from tests.support.edm_files import Runs
from tests.support.plain_networks import (
    dit_output,
    dit_shapes,
    grid_of_sinusoids,
    random_state,
    unet_output,
    unet_shapes,
)

CFM = {"width": 32, "mults": (1, 2, 2, 2), "blocks": 2, "attended": (1,)}
HEAD = 16
CFM_HINTS = {"image_size": 8, "num_head_channels": HEAD}
SMALL = {"mults": (1, 1), "blocks": 1}
TINY = {"width": 24, "depth": 2, "patch": 2, "size": 8, "classes": 5}
SIT_HINTS = {"prediction": "velocity", "num_heads": 3}
DIT_HINTS = {"prediction": "epsilon", "num_heads": 3}


def dit_state(**changes):
    sizes = {**TINY, **changes}
    state = random_state(dit_shapes(**sizes))
    return state | {"pos_embed": grid_of_sinusoids(sizes["width"], sizes["size"] // sizes["patch"])}


def training_of(state):
    """What torchcfm's training saves: the raw network, its averages and the optimiser's moments."""
    raw = {key: 0.5 * value for key, value in state.items()}
    moments = {
        "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}},
        "param_groups": [{"lr": 2e-4}],
    }
    schedule = {"base_lrs": [2e-4], "last_epoch": 3, "lr_lambdas": [None], "_last_lr": [2e-4]}
    return {"net_model": raw, "ema_model": state, "sched": schedule, "optim": moments, "step": 400000}


def cfm_state(**changes):
    return random_state(unet_shapes(**{**CFM, **changes}))


def loaded(path, content, **hints):
    torch.save(content, path)
    return seedsbench.load_denoiser(path, **hints)


def noisy(shape, sigmas, seed=1):
    """States and noise levels of a batch, float64."""
    sigma = torch.tensor(sigmas, dtype=torch.float64)
    z = torch.randn(len(sigmas), *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z * (0.25 + sigma**2).sqrt()[:, None, None, None], sigma


def one_hot(labels, classes):
    return torch.stack(
        [torch.zeros(classes) if k is None else torch.eye(classes)[k] for k in labels]
    ).double()


def error(found, wanted):
    """Largest, relative to the largest pixel of each image."""
    worst = (found - wanted).abs().flatten(1).amax(1) / wanted.abs().flatten(1).amax(1)
    return float(worst.max())


SIGMAS = [0.002, 0.3, 1.0, 12.0]
LABELS = [0, 4, None, 2]


# --- parity -----------------------------------------------------------------------------------------


def flow_denoised(velocity, x, sigma):
    """Of x_t = t data + (1 - t) noise and v = data - noise, t = 1 / (1 + sigma): data = x_t + (1 - t) v."""
    t = (1 / (1 + sigma))[:, None, None, None]
    return t * x + (1 - t) * velocity(t * x, t.flatten())


@pytest.mark.parametrize("classes", [0, 4])
def test_torchcfm_denoises_as_the_plain_network(tmp_path, classes):
    state = cfm_state(classes=classes)
    denoiser = loaded(tmp_path / "a.pt", training_of(state), **CFM_HINTS)
    assert (denoiser.image_shape, denoiser.label_dim) == ((3, 8, 8), classes)
    x, sigma = noisy((3, 8, 8), [0.01, 20.0])
    labels = [3, 0] if classes else [None, None]

    def velocity(x_t, t):
        return unet_output(state, x_t, t, labels, head_channels=HEAD, **CFM)

    found = denoiser(x, sigma, one_hot(labels, classes) if classes else None)
    worst = error(found, flow_denoised(velocity, x, sigma))
    print(f"torchcfm, {classes} classes: worst error {worst:.1e}")
    assert worst < 5e-6


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patch": 4, "depth": 1},
        {"patch": 8, "size": 16, "depth": 1},
        {"outputs": 4},
        {"inputs": 3, "outputs": 6},
    ],
)
@pytest.mark.parametrize("prediction", ["velocity", "epsilon"])
def test_transformers_denoise_as_the_plain_network(tmp_path, prediction, changes):
    state = dit_state(**changes)
    denoiser = loaded(tmp_path / "a.pt", state, prediction=prediction, num_heads=3)
    channels, size = changes.get("inputs", 4), changes.get("size", 8)
    assert (denoiser.image_shape, denoiser.label_dim) == ((channels, size, size), 5)

    def output(x_t, t):
        return dit_output(state, x_t, t, LABELS, heads=3)[:, :channels]

    if prediction == "velocity":
        x, sigma = noisy((channels, size, size), SIGMAS)
        wanted = flow_denoised(output, x, sigma)
    else:
        steps = torch.tensor([0, 250, 600, 999])
        kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[steps]
        x, sigma = noisy((channels, size, size), ((1 - kept) / kept).sqrt().tolist())
        noise = output(x * kept.sqrt()[:, None, None, None], steps.double())
        wanted = x - sigma[:, None, None, None] * noise
    worst = error(denoiser(x, sigma, one_hot(LABELS, 5)), wanted)
    print(f"{prediction} {changes}: worst error {worst:.1e}")
    assert worst < 5e-6


def test_no_labels_and_a_zero_row_are_the_null_class_which_guidance_guides_from(tmp_path):
    denoiser = loaded(tmp_path / "a.pt", dit_state(), **SIT_HINTS)
    x, (sigma, _) = noisy((4, 8, 8), [1.0, 1.0])
    none, zeros = denoiser(x, sigma), denoiser(x, sigma, torch.zeros(2, 5))
    assert torch.equal(none, zeros)
    labels = torch.eye(5)[:2]
    conditional = denoiser(x, sigma, labels)
    assert (conditional - none).abs().max() > 1e-3
    guided = Guided(denoiser, 1.5)
    assert guided.evaluations == 2
    torch.testing.assert_close(guided(x, sigma, labels), none + 1.5 * (conditional - none))


def test_raw_weights_and_those_of_several_gpus(tmp_path):
    state = cfm_state(**SMALL)
    saved = training_of(state)
    wrapped = {**saved, "ema_model": {f"module.{key}": value for key, value in state.items()}}
    for content, hints, factor in ((wrapped, {}, 1.0), (saved, {"weights": "raw"}, 0.5)):
        network = loaded(tmp_path / "a.pt", content, **CFM_HINTS, **hints).network
        assert torch.equal(network.out[2].weight, factor * state["out.2.weight"])


def test_fractional_timesteps_are_the_discrete_networks_alone(tmp_path):
    dit = loaded(tmp_path / "a.pt", dit_state(), **DIT_HINTS, fractional_timesteps=True)
    sigma = torch.tensor(1.2345, dtype=torch.float64)
    assert dit.round_sigma(sigma) == sigma
    assert dit.table == Discrete()
    assert loaded(tmp_path / "a.pt", dit_state(), **DIT_HINTS).round_sigma(sigma) != sigma
    with pytest.raises(ValueError, match="fractional_timesteps is for prediction=epsilon"):
        seedsbench.load_denoiser(tmp_path / "a.pt", **SIT_HINTS, fractional_timesteps=True)


# --- published names --------------------------------------------------------------------------------


def on_meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("width", HEADS)
@pytest.mark.parametrize("patch", [2, 4, 8])
def test_published_transformers_are_read_off_their_names(width, patch):
    depth = {384: 12, 768: 12, 1024: 24, 1152: 28}[width]
    shapes = dit_shapes(width=width, depth=depth, patch=patch, size=32)
    config = dit_config(on_meta(shapes))
    assert config == DiTConfig(width=width, depth=depth, patch=patch, heads=HEADS[width])
    with torch.device("meta"):
        network = DiT(config)
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == shapes
    if (width, patch) == (1152, 2):
        learnt = sum(value.numel() for value in network.parameters())
        assert (learnt, len(shapes)) == (674_834_720, 292)  # and a pos_embed of 256 x 1152


def test_torchcfms_network_is_read_off_its_names():
    shapes = unet_shapes(128, (1, 2, 2, 2), 2, (1,))
    config = guided_config(on_meta(shapes), heads=4, heads_up=4, head_channels=64, new_attention_order=False)
    with torch.device("meta"):
        network = GuidedUNet(config)
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == shapes
    assert (sum(value.numel() for value in network.parameters()), len(shapes)) == (35_746_307, 304)


# --- refusals ---------------------------------------------------------------------------------------


def refused(path, content, match, **hints):
    torch.save(content, path)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=match) as caught:
        seedsbench.load_denoiser(path, **hints)
    said = str(caught.value)
    assert said.isprintable()
    assert path.name in said
    assert time.monotonic() - start < 5


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


BIG = torch.ones(1).expand(10**6, 10**6)
HOSTILE = [
    (lambda s: without(s, "blocks.1.attn.qkv.weight"), "lacks 1 of the weights"),
    (lambda s: without(s, "pos_embed"), "lacks 'pos_embed'"),
    (lambda s: s | {"blocks.999999999.attn.qkv.weight": torch.ones(1)}, "lacks 9 of|has no use|lacks 10 of"),
    (lambda s: s | {"blocks.-1.x": torch.ones(1)}, "of the weights"),
    (lambda s: s | {"other": torch.ones(1)}, "has no use for 1 of the weights, such as other"),
    (lambda s: s | {"pos_embed": torch.zeros(1, 15, 24)}, "15 tokens, which make no square"),
    (lambda s: s | {"pos_embed": torch.zeros(1, 10**12, 0)}, "pos_embed has shape"),
    (lambda s: s | {"pos_embed": torch.tensor(1.0)}, "cannot be read|lacks"),
    (lambda s: s | {"pos_embed": s["pos_embed"] * float("nan")}, r"pos_embed .* must hold finite"),
    (lambda s: s | {"pos_embed": s["pos_embed"].long()}, "must hold finite floating-point numbers"),
    (lambda s: s | {"x_embedder.proj.weight": torch.zeros(24, 4, 0, 0)}, "cannot be read as a checkpoint"),
    (lambda s: s | {"x_embedder.proj.weight": torch.zeros(0, 4, 10**9, 1)}, "cannot be read as a checkpoint"),
    (lambda s: s | {"x_embedder.proj.weight": torch.zeros(24, 4, 2, 3)}, "x_embedder.proj.weight has shape"),
    (lambda s: s | {"x_embedder.proj.weight": torch.zeros(25, 4, 2, 2)}, "heads=3 must divide width=25"),
    (lambda s: s | {"y_embedder.embedding_table.weight": torch.zeros(1, 24)}, "classes=0 must be positive"),
    (lambda s: s | {"final_layer.linear.bias": torch.zeros(12)}, "maps 4 channels to 3"),
    (lambda s: s | {"final_layer.linear.weight": BIG}, "repeats numbers"),
    (lambda s: {"model": s, "ema": s}, "torch.save those of model or ema alone"),
    (lambda s: {"ema": s, "args": argparse.Namespace(lr=1e-4)}, r"torch\.save its state_dict\(\) alone"),
    (lambda s: s | {"code": Runs(exec, "raise SystemExit('the file was run')")}, "It was not run"),
]


@pytest.mark.parametrize(("change", "said"), HOSTILE)
@pytest.mark.parametrize("hints", [SIT_HINTS, DIT_HINTS], ids=["sit", "dit"])
def test_damaged_transformers_are_refused_in_one_line(tmp_path, change, said, hints):
    refused(tmp_path / "a.pt", change(dit_state()), said, **hints)


def test_heads_that_nobody_knows_must_be_told(tmp_path):
    refused(
        tmp_path / "a.pt",
        dit_state(),
        "no published network has width 24: give num_heads",
        prediction="velocity",
    )
    refused(tmp_path / "a.pt", [1], "a DiT checkpoint is one bare state dict", **SIT_HINTS, format="dit")
    with pytest.raises(ValueError, match=r"DiT or SiT \.pt, which does not say prediction"):
        loaded(tmp_path / "a.pt", dit_state())


HOSTILE_CFM = [
    (lambda s: without(s, "middle_block.1.qkv.weight"), "lacks 1 of the weights"),
    (lambda s: without(s, "input_blocks.0.0.weight"), "lacks"),
    (
        lambda s: s | {"input_blocks.999999999.0.weight": torch.ones(1)},
        "input_blocks.999999999 is numbered beyond its 5 blocks",
    ),
    (lambda s: s | {"input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3)}, "maps 4 channels to 3"),
    (lambda s: s | {"time_embed.0.weight": torch.zeros(10**9, 0)}, "of the weights|cannot be read|has shape"),
    (
        lambda s: s | {"out.2.bias": torch.tensor([1.0, float("inf"), 0.0])},
        r"out\.2\.bias .* must hold finite",
    ),
    (
        lambda s: s | {"out.2.weight": torch.zeros(6, 32, 3, 3), "out.2.bias": torch.zeros(6)},
        "a velocity has as many",
    ),
    (lambda s: s | {"out.2.weight": BIG}, "repeats numbers"),
]


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(("change", "said"), HOSTILE_CFM)
def test_damaged_files_of_torchcfm_are_refused_in_one_line(tmp_path, change, said):
    state = cfm_state(**SMALL)
    refused(tmp_path / "a.pt", {**training_of(state), "ema_model": change(state)}, said, **CFM_HINTS)


def test_what_is_around_torchcfms_networks_is_not_run_and_may_be_missing(tmp_path):
    state = cfm_state(**SMALL)
    path, code = tmp_path / "a.pt", Runs(exec, "raise SystemExit('the file was run')")
    refused(path, training_of(state) | {"optim": code}, "It was not run", **CFM_HINTS)
    refused(path, {"net_model": state}, "has no state dict ema_model", **CFM_HINTS, format="torchcfm")
    refused(path, state, "has no state dict ema_model", **CFM_HINTS, format="torchcfm")
    assert loaded(path, {"ema_model": state}, **CFM_HINTS).img_resolution == 8
    with pytest.raises(ValueError, match=r"torchcfm \.pt, which does not say image_size"):
        seedsbench.load_denoiser(path)
    with pytest.raises(ValueError, match="give one of them"):
        seedsbench.load_denoiser(path, image_size=8)
