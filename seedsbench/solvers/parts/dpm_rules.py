"""Single-step rules of DPM-Solver and DPM-Solver++ as plain functions on unscaled x.

With eps = (x - D)/sigma and lambda = -log sigma the probability-flow ODE is dx = eps dsigma, so a constant
eps is integrated exactly. A node r of a step lies at sigma (sigma_next/sigma)^r, a share r of the way in
lambda. Each rule returns x and the estimates it took: from these an adaptive solver has the rule of one order
less (`end1`, `end2`), and the first estimate of its next trial. sigma may be a 0-dim or a (B,) tensor.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from seedsbench.diffusion.process import each, expand
from seedsbench.solvers.parts.tableau import phi

Predict = Callable[[Tensor, Tensor], Tensor]  # process.predict: D of unscaled x at sigma
Taken = tuple[Tensor, tuple[Tensor, ...]]  # x at sigma_next, and the estimates at the start and the nodes
Rule = Callable[[Predict, Tensor, Tensor, Tensor], Taken]


def node(sigma: Tensor, sigma_next: Tensor, r: float) -> Tensor:
    """The level a share r of the step on, in lambda."""
    return sigma * each(lambda ratio: ratio**r, sigma_next / sigma)


def noise_estimate(predict: Predict, x: Tensor, sigma: Tensor) -> Tensor:
    """eps = (x - D)/sigma; one evaluation."""
    return (x - predict(x, sigma)) / _like(sigma, x)


def end1(x: Tensor, sigma: Tensor, sigma_next: Tensor, eps: Tensor) -> Tensor:
    """The step of order 1 from its estimate."""
    return x + _like(sigma_next - sigma, x) * eps


def end2(x: Tensor, sigma: Tensor, sigma_next: Tensor, eps: Tensor, inner: Tensor, r1: float) -> Tensor:
    """The step of order 2 from its estimates at the start and at the node r1."""
    slope = _like((sigma_next - sigma) / (2 * r1), x) * (inner - eps)
    return end1(x, sigma, sigma_next, eps) + slope


def dpm1(predict: Predict, x: Tensor, sigma: Tensor, sigma_next: Tensor, eps: Tensor | None = None) -> Taken:
    """DPM-Solver-1 (Lu et al. 2022a, eq. 3.7), which is DDIM; one evaluation, none if eps is given."""
    eps = noise_estimate(predict, x, sigma) if eps is None else eps
    return end1(x, sigma, sigma_next, eps), (eps,)


def dpm2(
    predict: Predict, x: Tensor, sigma: Tensor, sigma_next: Tensor, r1: float = 0.5, eps: Tensor | None = None
) -> Taken:
    """DPM-Solver-2 (2022a, Algorithm 4, any r1); two evaluations, one if eps is given."""
    middle = node(sigma, sigma_next, r1)
    u, (eps,) = dpm1(predict, x, sigma, middle, eps)
    inner = noise_estimate(predict, u, middle)
    return end2(x, sigma, sigma_next, eps, inner, r1), (eps, inner)


def dpm3(
    predict: Predict,
    x: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    r1: float = 1 / 3,
    r2: float = 2 / 3,
    eps: Tensor | None = None,
) -> Taken:
    """DPM-Solver-3 (2022a, Algorithm 5); three evaluations, two if eps is given. Order 3 for r2 = 2/3."""
    first, second = node(sigma, sigma_next, r1), node(sigma, sigma_next, r2)
    h = (sigma / sigma_next).log()
    u, (eps,) = dpm1(predict, x, sigma, first, eps)
    inner = noise_estimate(predict, u, first)
    bend = _bend(second, r2 * h) * (r2 / r1)
    u = end1(x, sigma, second, eps) + _like(bend, x) * (inner - eps)
    outer = noise_estimate(predict, u, second)
    x = end1(x, sigma, sigma_next, eps) + _like(_bend(sigma_next, h) / r2, x) * (outer - eps)
    return x, (eps, inner, outer)


RULES: dict[int, Rule] = {1: dpm1, 2: dpm2, 3: dpm3}  # by order, which is the number of evaluations


def dpmpp2(predict: Predict, x: Tensor, sigma: Tensor, sigma_next: Tensor, r1: float = 0.5) -> Taken:
    """DPM-Solver++(2S) (2022b, Algorithm 1), D in place of eps: returns images. Two evaluations."""
    denoised = predict(x, sigma)
    middle = node(sigma, sigma_next, r1)
    inner = predict(decay(x, sigma, middle, denoised), middle)
    mean = denoised + (inner - denoised) / (2 * r1)
    return decay(x, sigma, sigma_next, mean), (denoised, inner)


def decay(x: Tensor, sigma: Tensor, sigma_next: Tensor, denoised: Tensor) -> Tensor:
    """The way to sigma_next of x whose denoised image stays as it is: (t/s) x + (1 - t/s) D."""
    return _like(sigma_next / sigma, x) * x - _like(torch.expm1((sigma_next / sigma).log()), x) * denoised


def _bend(sigma: Tensor, z: Tensor) -> Tensor:
    """-sigma ((exp(z) - 1)/z - 1): weight of an estimate that grows in proportion over a step z to sigma."""
    return -sigma * z * phi(2, z)


def _like(value: Tensor, x: Tensor) -> Tensor:
    """A coefficient of x's shape and dtype: a (B,) one is float64 and would promote a float32 state."""
    return expand(value, x).to(x.dtype)
