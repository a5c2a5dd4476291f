"""EDM's per-image seeds: the published order of draws, and rows that do not depend on batches."""

import pytest
import torch

from seedsbench import solver
from seedsbench.bench.cell import Cell
from seedsbench.bench.sampling import SamplingPlan, generate
from seedsbench.data.uint8 import to_uint8
from seedsbench.denoisers.base import Denoiser
from seedsbench.diffusion.grid import EDM
from seedsbench.diffusion.noise import edm_start
from seedsbench.diffusion.schedule import Linear
from tests.support.cells import run, same
from tests.support.golden import cases

QUANTISED, *DRAWN = sorted(cases("nv_misc"), key=str)


def test_images_are_quantised_as_published_ones_are():
    assert torch.equal(to_uint8(QUANTISED["x"]), QUANTISED["y"])


@pytest.mark.parametrize("case", DRAWN, ids=str)
def test_draws_come_in_the_published_order_and_have_its_bits(case):
    start = edm_start(torch.tensor(case.settings["seeds"]), tuple(case["latents"].shape[1:]), 10)
    assert start.latents.dtype == torch.float32
    assert torch.equal(start.latents, case["latents"])
    assert start.classes is not None
    assert torch.equal(start.classes, case["labels"])
    assert torch.equal(start.noise.normal(), case["noise64"])


def test_a_seed_is_taken_modulo_two_to_the_32():
    near, far = (edm_start(torch.tensor([s]), (1, 4, 4), 0) for s in (5, 5 + 2**32))
    assert torch.equal(near.latents, far.latents)


def test_an_unconditional_model_draws_no_class():
    """The noise follows the latents at once, as in the generate script."""
    generator = torch.Generator().manual_seed(3)
    torch.randn(1, 4, 4, generator=generator)
    wanted = torch.randn(1, 4, 4, generator=generator, dtype=torch.float64)
    start = edm_start(torch.tensor([3]), (1, 4, 4), 0)
    assert start.classes is None
    assert torch.equal(start.noise.normal()[0], wanted)


def test_increments_are_scaled_normals():
    zero, four = torch.tensor(0.0), torch.tensor(4.0)
    noise, again = (edm_start(torch.tensor([3, 4]), (1, 4, 4), 0).noise for _ in range(2))
    assert torch.equal(noise.increment(zero, four), 2 * again.normal())


class Recording(Denoiser):
    """A denoiser that returns zeros and keeps what it was asked for."""

    img_channels, img_resolution, label_dim = 1, 4, 3

    def __init__(self):
        self.asked = []

    def __call__(self, x, sigma, labels=None):
        self.asked.append((x.clone(), labels))
        return torch.zeros_like(x)


@pytest.mark.parametrize("labels", ["random", "balanced"])
def test_seeds_of_repeated_cells_follow_each_other(labels):
    """Seed 2 of 5 samples has EDM's seeds 10 to 14; a fixed class is drawn and not used, as by --class."""
    sigmas = EDM().levels(4, 0.002, 80.0, Linear())
    network = Recording()
    cell = Cell(final="stop", seed=2, labels=labels, seeding="edm", samples=5)
    plan = SamplingPlan(solver("euler"), Linear(), sigmas, cell)
    for _ in generate(network, plan, torch.arange(5), batch_size=2):
        pass
    wanted = edm_start(torch.arange(10, 15), (1, 4, 4), 3)
    firsts = network.asked[:: len(network.asked) // 3]  # of each of three batches
    x = torch.cat([x for x, _ in firsts])
    torch.testing.assert_close(x / 80.0, wanted.latents.double(), rtol=1e-12, atol=0)
    classes = torch.cat([rows for _, rows in firsts]).argmax(1)
    expected = wanted.classes if labels == "random" else torch.arange(5) % 3
    assert torch.equal(classes, expected)


def test_rows_say_how_they_were_seeded_and_do_not_depend_on_the_batch_size(tmp_path):
    overrides = ["solver=karras_sde", "labels=random", "seeding=edm"]
    rows = [run(tmp_path / str(size), *overrides, f"batch_size={size}") for size in (3, 20)]
    assert same(rows[0]) == same(rows[1])
    assert rows[0]["seeding"] == "edm"
    plain = run(tmp_path, *overrides[:2])
    assert plain["fid"] != rows[0]["fid"]
    assert plain["seeding"] == "philox"
