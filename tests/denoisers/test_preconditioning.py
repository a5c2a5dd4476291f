import pytest
import torch
from torch import nn

from scripts.training.losses import loss_weight, training_sigma
from seedsbench.denoisers.preconditioning.discrete import DiscreteNoisePrediction
from seedsbench.denoisers.preconditioning.karras import (
    PRECONDITIONERS,
    EDMPreconditioner,
    FlowPreconditioner,
    IDDPMPreconditioner,
    Preconditioned,
    VEPreconditioner,
    VPPreconditioner,
)
from seedsbench.denoisers.preconditioning.score_sde import ScoreVE, SubVPPreconditioner
from seedsbench.diffusion.schedule import Discrete
from tests.support.golden import golden

TABLES = golden("nv_precond_tables")
LEVELS = torch.tensor([0.025, 0.3, 1.0, 7.0, 90.0], dtype=torch.float64)


def range_of(preconditioner):
    return preconditioner.sigma_min, preconditioner.sigma_max


# The recursion of iDDPM's table starts from float32 sines, whose last bit differs among processors.
OF_SINE = 2e-6


@pytest.mark.parametrize("case", ["iddpm_default", "iddpm_other"])
def test_iddpm_levels_and_rounding_equal_the_reference(case):
    settings, sigma = TABLES.cases[case], TABLES.tensor(case, "sigma_in")
    preconditioner = IDDPMPreconditioner(settings["C_1"], settings["C_2"], settings["M"])
    expected = (settings["sigma_min"], settings["sigma_max"])
    assert range_of(preconditioner) == pytest.approx(expected, rel=OF_SINE)
    table = preconditioner.table("cpu")
    torch.testing.assert_close(table, TABLES.tensor(case, "u"), rtol=OF_SINE, atol=0)
    assert torch.equal(preconditioner.index(sigma), TABLES.tensor(case, "index"))
    rounded = preconditioner.round_sigma(sigma)
    torch.testing.assert_close(rounded, TABLES.tensor(case, "sigma_rounded"), rtol=OF_SINE, atol=0)
    assert torch.equal(rounded, table[TABLES.tensor(case, "index")].to(rounded.dtype))
    assert torch.equal(preconditioner.c_noise(sigma), preconditioner.M - 1.0 - TABLES.tensor(case, "index"))


@pytest.mark.parametrize("case", ["vp_default", "vp_other"])
def test_vp_times_and_levels_equal_the_reference(case):
    settings, sigma = TABLES.cases[case], TABLES.tensor(case, "sigma_in")
    preconditioner = VPPreconditioner(
        settings["beta_d"], settings["beta_min"], epsilon_t=settings["epsilon_t"]
    )
    assert range_of(preconditioner) == (settings["sigma_min"], settings["sigma_max"])
    levels, times = preconditioner.sigma(TABLES.tensor(case, "t")), preconditioner.sigma_inv(sigma)
    torch.testing.assert_close(levels, TABLES.tensor(case, "sigma_of_t"), rtol=1e-10, atol=0)
    torch.testing.assert_close(times, TABLES.tensor(case, "t_of_sigma"), rtol=1e-10, atol=1e-12)
    assert torch.equal(preconditioner.round_sigma(sigma), TABLES.tensor(case, "sigma_rounded"))


@pytest.mark.parametrize(
    "preconditioner",
    [
        *PRECONDITIONERS.values(),
        DiscreteNoisePrediction(Discrete(), fractional=True),
        DiscreteNoisePrediction(Discrete(num_train_timesteps=50), label_scale=20.0),
        ScoreVE(),
        ScoreVE(levels=100, fractional=True),
        ScoreVE(levels=100),
        SubVPPreconditioner(),
        FlowPreconditioner(data_first=True, time_scale=1.0),
    ],
)
def test_the_noise_level_can_be_recovered_from_c_noise(preconditioner):
    u, low = torch.linspace(0.01, 0.99, 20, dtype=torch.float64), max(preconditioner.sigma_min, 1e-3)
    sigma = preconditioner.round_sigma(low * (min(preconditioner.sigma_max, 1e3) / low) ** u)
    assert bool(((sigma >= preconditioner.sigma_min) & (sigma <= preconditioner.sigma_max)).all())
    recovered = preconditioner.sigma_of_noise(preconditioner.c_noise(sigma))
    torch.testing.assert_close(recovered, sigma, rtol=1e-12, atol=0)
    torch.testing.assert_close(preconditioner.round_sigma(sigma), sigma)


@pytest.mark.parametrize("outer", [*PRECONDITIONERS.values(), EDMPreconditioner(sigma_data=0.7)])
def test_the_effective_loss_weight_is_one(outer):
    torch.testing.assert_close(loss_weight(outer, LEVELS) * outer.c_out(LEVELS) ** 2, torch.ones_like(LEVELS))


def test_edms_target_has_unit_variance():
    edm = EDMPreconditioner(sigma_data=0.7)
    variance = (edm.c_skip(LEVELS) - 1) ** 2 * 0.7**2 + (edm.c_skip(LEVELS) * LEVELS) ** 2
    torch.testing.assert_close(variance, edm.c_out(LEVELS) ** 2)


@pytest.mark.parametrize("name", list(PRECONDITIONERS))
def test_training_levels_stay_in_range_and_grow_with_u(name):
    u = torch.linspace(1e-6, 1 - 1e-6, 1001, dtype=torch.float64)
    sigma = training_sigma(PRECONDITIONERS[name], u)
    steps = sigma.diff() if name != "iddpm" else -sigma.diff()
    assert (steps >= 0).all()
    if name != "edm":
        assert sigma.min() >= PRECONDITIONERS[name].sigma_min
        assert sigma.max() <= PRECONDITIONERS[name].sigma_max * (1 + 1e-6)
    else:
        torch.testing.assert_close(sigma[500].log(), torch.tensor(-1.2, dtype=torch.float64))


class Recorder(nn.Module):
    """A network that answers with its input, twice over in the channels, and remembers its arguments."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, x, c_noise, labels):
        self.seen = [x, c_noise, labels]
        return torch.cat([x, torch.zeros_like(x)], dim=1) * self.weight


@pytest.mark.parametrize("name", list(PRECONDITIONERS))
@pytest.mark.parametrize("shape", [(), (2,)])
def test_the_denoiser_combines_input_and_network_as_in_table_1(name, shape):
    preconditioner, network = PRECONDITIONERS[name], Recorder()
    denoiser = Preconditioned(network, preconditioner, img_channels=3, img_resolution=8, label_dim=4)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    sigma = torch.full(shape, 0.8, dtype=torch.float64)
    c = {key: getattr(preconditioner, key)(torch.tensor(0.8).double()) for key in ("c_skip", "c_out", "c_in")}
    expected = (c["c_skip"] + c["c_out"] * c["c_in"]) * x
    result = denoiser(x, sigma, torch.eye(4)[:2])
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    assert result.dtype == torch.float64
    assert result.requires_grad, "gradients are the caller's affair"
    assert network.seen[0].dtype == torch.float32
    assert network.seen[1].shape == shape
    with pytest.raises(ValueError, match=r"expected one-hot rows of shape \(2, 4\)"):
        denoiser(x, sigma, torch.eye(5)[:2])


def test_score_preconditioners_agree_with_table_1_where_it_applies():
    sigma = torch.tensor([0.03, 1.0, 80.0], dtype=torch.float64)
    ours, table = ScoreVE(), VEPreconditioner()
    for name in ("c_in", "c_out", "c_skip", "c_noise"):
        torch.testing.assert_close(getattr(ours, name)(sigma), getattr(table, name)(sigma))
    # sub-VP has VP's mean and its variance squared
    vp, sub_vp, t = VPPreconditioner(), SubVPPreconditioner(), torch.tensor([0.01, 0.5, 1.0]).double()
    mean, sigma = vp.c_in(vp.sigma(t)), sub_vp.sigma(t)
    torch.testing.assert_close(sigma, (1 - mean**2) / mean)
    torch.testing.assert_close(sub_vp.c_in(sigma), mean)
    torch.testing.assert_close(sub_vp.sigma_inv(sigma), t)
