"""Variances of the discrete forward process, by the names that diffusers and the DDIM authors give them."""

import math
from typing import Literal

import torch
from torch import Tensor

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "const", "jsd"]


def make_betas(name: BetaSchedule, n: int, beta_start: float, beta_end: float) -> Tensor:
    """(n,) float64 forward-process variances.

    linear; scaled_linear, linear in sqrt(beta); sigmoid, a logistic curve from -6 to 6 between beta_start
    and beta_end; const, beta_end throughout; jsd, 1/n, 1/(n - 1), ... 1, and squaredcos_cap_v2, which
    have neither. The last of jsd leaves no signal.
    """
    if name == "linear":
        return torch.linspace(beta_start, beta_end, n, dtype=torch.float64)
    if name == "scaled_linear":
        return torch.linspace(beta_start**0.5, beta_end**0.5, n, dtype=torch.float64) ** 2
    if name == "sigmoid":
        rise = torch.linspace(-6, 6, n, dtype=torch.float64).sigmoid()
        return beta_start + rise * (beta_end - beta_start)
    if name == "const":
        return torch.full((n,), beta_end, dtype=torch.float64)
    if name == "jsd":
        return 1 / torch.arange(n, 0, -1, dtype=torch.float64)
    edges = torch.arange(n + 1, dtype=torch.float64) / n
    alpha_bar = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
