"""Networks of one's own from Python: the type they are called in, `denoiser`, `check_denoiser`."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import seedsbench
from seedsbench import registry
from seedsbench.bench.problems.build import model_of
from seedsbench.denoisers.base import Denoiser
from seedsbench.denoisers.embedded import load_glyphs
from seedsbench.diffusion.process import expand
from seedsbench.diffusion.schedule import VP, Discrete
from tests.support.cells import compose
from tests.support.measure import mixture

SHAPE = {"shape": (2, 1, 1)}
START = seedsbench.noise.latents(torch.arange(5), (2, 1, 1), seed=0)
TABLE = Discrete()
ALPHAS = 1 / (1 + (2 * TABLE.log_sigmas).exp())
KINDS = ("epsilon", "v", "v_prediction", "sample", "score", "flow")


class Trained(nn.Module):
    """The exact network for the mixture: prediction, at scaled states, told t. It notes what it was told."""

    def __init__(self, prediction, schedule=TABLE, dtype=torch.float32, time_scale=1.0):
        super().__init__()
        self.prediction, self.schedule, self.time_scale, self.told = prediction, schedule, time_scale, []
        self.weight = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x_t, t, *classes):
        self.told.append((x_t.dtype, t, *classes))
        assert x_t.dtype == self.weight.dtype
        assert t.shape == (len(x_t),)
        sigma = expand(self.schedule.sigma(t.double() / self.time_scale), x_t)
        scale = self.schedule.scale_at(sigma)
        x = x_t.double() / scale
        image = mixture()(x, sigma.flatten())
        noise = (x - image) / sigma
        outputs = {"epsilon": noise, "v": scale * (noise - sigma * image), "sample": image}
        outputs["flow"] = noise - image
        outputs["score"] = (scale * image - x_t) / (scale * sigma) ** 2
        return self.weight * outputs[self.prediction.removesuffix("_prediction")].to(x_t.dtype)


# --- any D, in its own type ------------------------------------------------------------------------


class Module(nn.Module):
    """A module as D, its weight a parameter or a buffer. It notes the types it was called in."""

    def __init__(self, dtype=torch.float32, *, buffer=False):
        super().__init__()
        weight = torch.tensor(0.25, dtype=dtype)
        self.weight = nn.Buffer(weight) if buffer else nn.Parameter(weight)
        self.register_buffer("steps", torch.tensor(3))
        self.seen = set()

    def forward(self, x, sigma, labels=None):
        self.seen.add((x.dtype, sigma.dtype, None if labels is None else labels.dtype))
        return x * self.weight / (self.weight + expand(sigma, x) ** 2)


@pytest.mark.parametrize("buffer", [False, True])
@pytest.mark.parametrize("state", [torch.float32, torch.float64])
@pytest.mark.parametrize("own", [torch.float32, torch.float64, torch.bfloat16])
def test_a_module_is_called_in_its_own_type_and_the_state_keeps_its(own, state, buffer):
    net = Module(own, buffer=buffer)
    for denoiser in (net, net.forward):
        run = {"solver": "rk45", "nfe": 14, "dtype": state, "labels": torch.ones(5, 3)}
        result = seedsbench.sample(denoiser, START, **run)
        assert result.x.dtype == state
    assert net.seen == {(own, own, own)}
    exact = seedsbench.sample(Module(torch.float64), START, solver="rk45", nfe=14).x
    close = 0.1 if own == torch.bfloat16 else 1e-4
    assert torch.allclose(result.x.double(), exact, rtol=close, atol=close)


@pytest.mark.parametrize("state", [torch.float32, torch.float64])
def test_a_function_is_called_in_the_type_of_the_state_and_ours_with_sigma_in_float64(state):
    seen = []

    def denoiser(x, sigma, labels=None):
        seen.append((x.dtype, sigma.dtype))
        return x / (1 + sigma**2).to(x.dtype)

    class Ours(Denoiser):  # which converts inside
        image_shape, sigma_min, sigma_max = (2, 1, 1), 0.002, 80.0

        def __call__(self, x, sigma, labels=None):
            return denoiser(x, sigma)

    for called, sigma in ((denoiser, state), (Ours(), torch.float64)):
        seedsbench.sample(called, START, solver="heun", steps=2, dtype=state)
        assert set(seen) == {(state, sigma)}
        seen.clear()


def test_a_network_on_another_device_is_said():
    said = r"^the network is on meta, x on cpu: move one to the other's device$"
    with pytest.raises(ValueError, match=said):
        seedsbench.sample(Module().to("meta"), START, solver="heun", steps=2)


def test_what_a_denoiser_says_of_itself_is_used():
    net = Module()
    net.sigma_min, net.sigma_max, net.evaluations = 0.1, 20.0, 2
    net.round_sigma = lambda sigma: (8 * sigma).ceil() / 8
    result = seedsbench.sample(net, START, solver="euler", steps=3)
    assert (float(result.sigmas[0]), float(result.sigmas[-1])) == (20.0, 0.125)
    assert torch.equal(result.sigmas, (8 * result.sigmas).ceil() / 8)
    assert result.nfe.tolist() == [8] * 5


# --- seedsbench.denoiser ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_any_prediction_is_the_denoiser_it_was_trained_to_be(kind, dtype):
    net = Trained(kind, dtype=dtype)
    denoiser = seedsbench.denoiser(net, kind, alphas_cumprod=ALPHAS, **SHAPE)
    assert (denoiser.image_shape, denoiser.label_dim) == ((2, 1, 1), 0)
    ends = TABLE.log_sigmas[[0, -1]].exp().tolist()
    assert [denoiser.sigma_min, denoiser.sigma_max] == pytest.approx(ends, rel=1e-10)
    levels = TABLE.sigma(torch.tensor([990.0, 700.0, 400.0, 100.0, 3.0], dtype=torch.float64))
    sigmas = denoiser.round_sigma(levels)
    torch.testing.assert_close(sigmas, levels, rtol=1e-10, atol=0)
    run = {"solver": "heun", "sigmas": sigmas}
    got, expected = (seedsbench.sample(d, START, **run).x for d in (denoiser, mixture()))
    assert torch.allclose(got, expected, atol=1e-8 if dtype == torch.float64 else 2e-3)
    assert {int(t[0]) for _, t in net.told} == {990, 700, 400, 100, 3}
    assert all(t.dtype == torch.int64 for _, t in net.told)
    assert seedsbench.check_denoiser(denoiser) == []


def test_fractional_times_are_told_between_entries_and_no_level_is_rounded():
    net = Trained("epsilon")
    denoiser = seedsbench.denoiser(net, "epsilon", alphas_cumprod=ALPHAS, **SHAPE, fractional=True)
    sigma = TABLE.sigma(torch.tensor(500.25, dtype=torch.float64))
    assert denoiser.round_sigma(sigma) == sigma
    x = START + 1
    assert torch.allclose(denoiser(x, sigma), mixture()(x, sigma), atol=1e-4)
    t = net.told[-1][1]
    assert t.dtype == torch.float32
    assert torch.allclose(t, torch.full((5,), 500.25))


@pytest.mark.parametrize("scale", [1.0, 999.0])
@pytest.mark.parametrize(
    ("schedule", "kinds"),
    [
        ("vp", KINDS),
        ("subvp", ("epsilon", "sample", "score")),
        ("linear", ("epsilon", "score")),
        ("flow", ("epsilon", "sample", "flow")),
    ],
)
def test_continuous_schedules_tell_their_time_and_scale_as_they_do(schedule, kinds, scale):
    chosen = registry.build(registry.configured("schedule", schedule))
    for kind in kinds:
        net = Trained(kind, chosen, torch.float64, scale)
        denoiser = seedsbench.denoiser(net, kind, schedule=schedule, shape=(2, 1, 1), time_scale=scale)
        for sigma in (torch.tensor(1.3).double(), torch.linspace(0.1, 20, 5, dtype=torch.float64)):
            torch.testing.assert_close(denoiser(START, sigma), mixture()(START, sigma), rtol=1e-8, atol=1e-9)
            assert denoiser.round_sigma(sigma) is sigma
        assert float(net.told[-1][1][0]) == pytest.approx(scale * float(chosen.sigma_inv(sigma)[0]))
    if schedule == "vp":
        ends = VP().sigma(torch.tensor([1e-3, 1.0], dtype=torch.float64)).tolist()
        assert [denoiser.sigma_min, denoiser.sigma_max] == pytest.approx(ends)


def test_classes_reach_the_network_as_numbers():
    net = Trained("epsilon")
    options = {"alphas_cumprod": ALPHAS, "labels": 3, **SHAPE}
    denoiser = seedsbench.denoiser(net, "epsilon", **options)
    labels = torch.eye(3)[[2, 0, 1, 1, 2]]
    denoiser(START, torch.tensor(1.0, dtype=torch.float64), labels)
    assert net.told[-1][2].tolist() == [2, 0, 1, 1, 2]
    assert net.told[-1][2].dtype == torch.int64
    with pytest.raises(ValueError, match=r"3 classes and no unconditional mode: use labels=balanced"):
        denoiser(START, torch.tensor(1.0, dtype=torch.float64))
    labels[1] = 0
    free = seedsbench.denoiser(net, "epsilon", **options, null_class=3)
    free(START, torch.tensor(1.0, dtype=torch.float64), labels)
    assert net.told[-1][2].tolist() == [2, 3, 1, 1, 2]
    free(START, torch.tensor(1.0, dtype=torch.float64))
    assert net.told[-1][2].tolist() == [3] * 5


def test_a_learnt_variance_is_cut_and_an_object_with_sample_is_read():
    net, sigma = Trained("epsilon"), torch.tensor(1.0, dtype=torch.float64)
    options = {"alphas_cumprod": ALPHAS, **SHAPE}
    plain = seedsbench.denoiser(net, "epsilon", **options)(START, sigma)

    def wide(x_t, t):
        return torch.cat([net(x_t.float(), t), x_t.float()], 1)

    for other in (wide, lambda x_t, t: SimpleNamespace(sample=net(x_t.float(), t))):
        found = seedsbench.denoiser(other, "epsilon", **options)(START, sigma)
        assert torch.allclose(found, plain, atol=1e-6)
    said = r"^the network returned [^\n]*, expected (\(5, 2, 1, 1\)|a float)"
    for wrong in (lambda x, t: x[:, :1], lambda x, t: None, lambda x, t: x.long()):
        with pytest.raises(ValueError, match=said):
            seedsbench.denoiser(wrong, "epsilon", **options)(START, sigma)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of alphas_cumprod and schedule"),
        ({"alphas_cumprod": ALPHAS, "schedule": "vp"}, "give exactly one of alphas_cumprod and schedule"),
        ({"schedule": "vpp"}, "Did you mean 'vp'"),
        ({"alphas_cumprod": 0.5}, r"shape \(\): expected \(T,\)"),
        ({"alphas_cumprod": ALPHAS.flip(0)}, "expected the cumulative product of 1 - beta, decreasing"),
        ({"alphas_cumprod": [0.9, 0.5, 0.0]}, "ends at 0 .*'rescale_betas_zero_snr': True"),
        ({"schedule": "vp", "prediction": "eps"}, "'eps' must be one of epsilon, v, v_prediction,"),
        ({"schedule": "linear", "prediction": "v"}, "unit-variance states: use a schedule of scaling vp"),
        ({"schedule": "vp", "shape": (16, 16)}, r"shape=\(16, 16\) must be that of one image, \(C, H, W\)"),
        ({"schedule": "vp", "labels": 10}, r"net must be callable as net\(x_t, t, classes\)"),
        ({"schedule": "vp", "labels": -1}, "labels=-1 must be the number of classes"),
        ({"schedule": "vp", "net": None}, r"net is no function net\(x_t, t\) but NoneType"),
    ],
)
def test_choices_that_make_no_sense(options, message):
    given = {"net": lambda x_t, t: x_t, "prediction": "epsilon", "shape": (2, 1, 1), **options}
    with pytest.raises(ValueError, match=message) as caught:
        seedsbench.denoiser(given.pop("net"), given.pop("prediction"), **given)
    assert "\n" not in str(caught.value)


def test_the_advice_for_a_table_that_ends_at_0_works():
    betas = [0.1, 0.2, 0.3, 0.4]
    schedule = {"name": "discrete", "trained_betas": betas, "num_train_timesteps": 4}
    schedule["rescale_betas_zero_snr"] = True
    denoiser = seedsbench.denoiser(lambda x_t, t: x_t, "v", schedule=schedule, shape=(2, 1, 1))
    assert denoiser.schedule.rescale_betas_zero_snr


# --- check_denoiser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def glyphs():
    return load_glyphs("edm").denoiser


@pytest.mark.parametrize(
    "regime", ["vp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("edm", "ve", "iddpm"))]
)
def test_nothing_is_found_in_our_own_models(regime):
    for denoiser in (load_glyphs(regime), load_glyphs(regime).denoiser):
        assert seedsbench.check_denoiser(denoiser) == []
        assert seedsbench.check_denoiser(denoiser, labels=0) == []
    for name in ("gaussian", "gaussian_mixture", *(["glyphs_finite"] if regime == "edm" else [])):
        denoiser = model_of(compose(f"model={name}", f"regime={regime}"), "cpu").denoiser
        assert seedsbench.check_denoiser(denoiser) == []


def found(denoiser, labels=10):
    return {f.what: f for f in seedsbench.check_denoiser(denoiser, shape=(3, 16, 16), labels=labels)}


def test_a_noise_prediction_or_score_passed_as_denoiser_is_found_and_fatal(glyphs):
    vp = load_glyphs("vp").denoiser

    def noise(x, sigma, labels):
        return (x - glyphs(x, sigma, labels)) / expand(sigma, x)

    def velocity(x, sigma, labels):
        scale = (1 + expand(sigma, x) ** 2).sqrt()
        return (x / scale - glyphs(x, sigma, labels)) * scale / expand(sigma, x)

    def of_an_index(x_t, t, labels):  # a network of scaled states, called as if it were D
        sigma = TABLE.sigma(t.double())
        x = x_t * (1 + expand(sigma, x_t) ** 2).sqrt()
        return (x - vp(x, sigma, labels)) / expand(sigma, x)

    for denoiser in (noise, velocity, of_an_index, vp.network):
        finding = found(denoiser)["prediction"]
        assert finding.fatal
        assert "looks like a noise prediction: use seedsbench.denoiser(net, 'epsilon', ...)" in str(finding)
    score = found(lambda x, sigma, labels: (glyphs(x, sigma, labels) - x) / expand(sigma, x) ** 2)
    assert score["low noise"].fatal


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.long(), "returned int64"),
        (lambda d: d + 0j, "returned complex128"),
        (lambda d: d.flatten(1), "returned (4, 768)"),
        (lambda d: torch.cat([d, d], 1), "returned (4, 6, 16, 16)"),
        (lambda d: d.to("meta"), "on meta"),
        (lambda d: d / 0, "NaN or infinite at sigma=80"),
        (lambda d: d + "x", "TypeError"),
    ],
)
def test_unusable_answers_are_fatal(glyphs, change, said):
    (finding,) = found(lambda x, sigma, labels: change(glyphs(x, sigma, labels))).values()
    assert finding.fatal
    assert said in finding.detail
    assert "\n" not in str(finding)


def test_milder_mistakes_are_found_and_not_fatal(glyphs):
    unit = found(lambda x, s, labels: 0.5 + 0.5 * glyphs(2 * (x - 0.5), 2 * s, labels))
    assert set(unit) == {"size"}
    assert "[0, 1]" in unit["size"].detail
    assert set(found(lambda x, s, labels: glyphs(x, s))) == {"labels"}
    assert set(found(lambda x, s, labels: x / (1 + s**2), labels=0)) == {"sigma"}
    assert set(found(lambda x, s, labels: 0 * x, labels=0)) == {"variety"}
    everything = found(lambda x, s, labels: x, labels=0)
    assert set(everything) == {"high noise", "size"}
    assert not any(finding.fatal for finding in everything.values())


@pytest.mark.parametrize(("layer", "what"), [(nn.Dropout(0.5), "determinism"), (nn.BatchNorm2d(3), "batch")])
def test_training_mode_is_found(glyphs, layer, what):
    def denoiser(x, sigma, labels):
        return glyphs(x, sigma, labels) + 0.05 * layer(1 + x / (1 + expand(sigma, x)))

    layer.double().train()
    assert "is it in training mode? call .eval()" in found(denoiser)[what].detail
    layer.eval()
    assert what not in found(denoiser)


def test_a_range_that_is_none_is_fatal_and_a_shape_must_be_known(glyphs):
    net = nn.Identity()
    net.sigma_min, net.sigma_max = 5.0, 1.0
    (finding,) = seedsbench.check_denoiser(net, shape=(1, 4, 4))
    assert finding.fatal
    assert "sigma_min=5, sigma_max=1" in str(finding)
    with pytest.raises(ValueError, match="Identity does not say of which shape its images are"):
        seedsbench.check_denoiser(net)
