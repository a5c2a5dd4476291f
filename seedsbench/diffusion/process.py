"""The denoiser seen through a schedule: the only thing a solver may evaluate, and it counts."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from seedsbench.diffusion.schedule import Schedule

LANES = 16  # a multiple of every vector length of current processors, in float64


def expand(value: Tensor, like: Tensor) -> Tensor:
    """A () or (B,) tensor shaped to broadcast over (B, C, H, W)."""
    return value if value.ndim == 0 else value.reshape(-1, *([1] * (like.ndim - 1)))


def check_like(found: Any, x: Tensor, who: str, *, dtype: torch.dtype | None = None) -> Tensor:
    """found, if it is a real floating-point tensor of x's shape and device, and of dtype where one is given.

    Anything else might broadcast or be rounded unseen: ValueError says what `who` returned, what is expected.
    """
    wanted = f"expected {tuple(x.shape)}"
    if not isinstance(found, Tensor):
        raise ValueError(f"{who} returned {type(found).__name__}, {wanted}: a tensor of the shape of x")
    if found.shape != x.shape:
        raise ValueError(f"{who} returned {tuple(found.shape)}, {wanted}: a tensor of the shape of x")
    if not found.is_floating_point() or (dtype is not None and found.dtype != dtype):
        kind = "a floating-point type" if dtype is None else _plain(dtype)
        raise ValueError(
            f"{who} returned {_plain(found.dtype)}, expected {kind}: {_plain(x.dtype)} is that of x"
        )
    if found.device != x.device:
        raise ValueError(f"{who} returned a tensor on {found.device}, expected {x.device}, where x is")
    return found


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def each(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """function(value) elementwise, () or (B,): the same bits for a sample whatever its place in the batch.

    torch computes the odd end of a tensor by other code than its body, and powers and hyperbolic
    functions then differ in the last digit; here every sample fills lanes of its own.
    """
    if value.ndim == 0:
        return function(value)
    return function(value.unsqueeze(1).expand(-1, LANES).contiguous())[:, 0]


def add_weighted(
    x: Tensor, weights: Iterable[Tensor], tensors: Sequence[Tensor], *, owned: bool = False
) -> Tensor:
    """x + sum_j w_j v_j, summed in that order; each w_j () or (B,). x is overwritten only if owned.

    Terms are made in one buffer and added in place: at the size of a batch of images a sum written out
    spends its time in the allocator. (With gradients every term keeps its own.)
    """
    reuse = not any(value.requires_grad for value in (x, *tensors))
    total, term = x, None
    for weight, value in zip(weights, tensors, strict=True):
        term = torch.mul(value, expand(weight, value), out=term if reuse else None)
        total = total.add_(term) if owned else total + term
        owned = True
    return total


def analytic(x: Tensor, sigma: Tensor) -> Tensor:
    """D(x, sigma) for unit-variance data about 0, the limit at high noise (Dockhorn et al. 2022, app. B).

    The noise estimate is then x / sqrt(1 + sigma^2): it costs no network.
    """
    return x * expand(1 - sigma / (1 + sigma**2).sqrt(), x)


def evaluations_at(denoiser: Any, sigma: Tensor) -> int | Tensor:
    """`Denoiser.evaluations_at`, of any denoiser: one that does not say costs one evaluation a call."""
    asked = getattr(denoiser, "evaluations_at", None)
    return getattr(denoiser, "evaluations", 1) if asked is None else asked(sigma)


class Process:
    """One batch's view of a denoiser: scaled coordinates, and network evaluations counted per sample.

    Attributes:
        schedule: sigma(t) and s(t) of the coordinates solvers step in.
        nfe: (B,) int64, network evaluations so far (guidance counts each of its evaluations).
        denoiser: D(x, sigma, labels).
        cost: the most network evaluations one call of the denoiser costs.
        allowed: the evaluations a sample may cost; one more is refused. Any number until `allow` is called.
        afs: analytic first step: the first evaluation of each sample is replaced by `analytic` and is free.
        place: where in its run it is, as errors say it ("step 3 of 8"); kept by the loop.

    progress: called before each evaluation with their number over the batch; what it raises ends the run.
    """

    def __init__(
        self,
        denoiser: Any,
        schedule: Schedule,
        batch: int,
        labels: Tensor | None = None,
        *,
        afs: bool = False,
        progress: Callable[[int], object] = lambda evaluations: None,
    ) -> None:
        self.schedule, self.afs, self.place = schedule, afs, ""
        self.nfe = torch.zeros(batch, dtype=torch.int64)
        self.allowed, self._who = sys.maxsize, ""
        self.denoiser, self._labels, self._begun, self._progress = denoiser, labels, False, progress
        self.cost = getattr(denoiser, "evaluations", 1)

    def allow(self, evaluations: int, who: str) -> None:
        """From now on refuse more than so many evaluations a sample, in an error that names `who`."""
        self.allowed, self._who = evaluations, who

    def predict(self, x: Tensor, sigma: Tensor, rows: Tensor | None = None) -> Tensor:
        """D(x, sigma) for *unscaled* x = data + sigma noise, of the type of x; costs one evaluation, or what
        `Denoiser.evaluations_at` says.

        rows: (n,) the places in the batch of x (n, C, H, W) and sigma (n,), where these are some samples
        only: then only these are counted. Adaptive solvers finish their samples at different times.
        Raises ValueError unless the network's answer is an image for each (`check_like`), and RuntimeError
        for an evaluation more than `allowed`.
        """
        first, self._begun = not self._begun, True
        if first and self.afs:
            return analytic(x, sigma)
        labels = self._labels
        counted = slice(None) if rows is None else rows.cpu()
        cost = self.cost if self.cost == 1 else evaluations_at(self.denoiser, sigma)
        self.nfe[counted] += cost.cpu() if isinstance(cost, Tensor) else cost
        if (most := int(self.nfe.max())) > self.allowed:
            raise RuntimeError(
                f"in {self.place or 'its init'}, {self._who} asks for evaluation {most} of a sample, and "
                f"promises {self.allowed}: correct its step or its nfe()"
            )
        self._progress(int(cost.expand(len(x)).sum()) if isinstance(cost, Tensor) else cost * len(x))
        if rows is not None and labels is not None:
            labels = labels[rows]
        who = f"in {self.place}, denoiser" if self.place else "denoiser"
        return check_like(self.denoiser(x, sigma, labels), x, who).to(x.dtype)

    def denoise(self, x: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
        """D for the scaled state x at time t; costs one evaluation. rows: as in `predict`, t then (n,)."""
        sigma = each(self.schedule.sigma, t)
        return self.predict(x / expand(each(self.schedule.scale_at, sigma), x), sigma, rows)

    def drift(self, x: Tensor, t: Tensor, rows: Tensor | None = None, *, reverse_sde: bool = False) -> Tensor:
        """dx/dt of the probability-flow ODE, s'/s x + sigma'/sigma (x - s D) (Karras et al. 2022, eq. 81).

        Costs one evaluation. rows: as in `predict`, t then (n,). reverse_sde: the drift of the reverse SDE
        instead, which has twice the second term.
        """
        schedule = self.schedule
        sigma, scale = each(schedule.sigma, t), each(schedule.scale, t)
        rate = (2 if reverse_sde else 1) * each(schedule.dsigma, t) / sigma
        growth = expand(rate + each(schedule.dscale, t) / scale, x)
        return growth * x - expand(rate * scale, x) * self.denoise(x, t, rows)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest level the denoiser was trained on, float64."""
        rounding = getattr(self.denoiser, "round_sigma", None)
        return sigma if rounding is None else torch.as_tensor(rounding(sigma)).to(sigma)
