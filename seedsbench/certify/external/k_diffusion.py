"""k-diffusion's samplers (the package `k-diffusion`), through `functions.py`.

Left out are `sample_dpm_fast` and `sample_dpm_adaptive`, which choose their own noise levels.
"""

from dataclasses import replace
from typing import Any

import torch

from seedsbench.certify.external.functions import FunctionSolver
from seedsbench.certify.external.published import Library, Probe, Published, option_text

_LU, _KARRAS, _KATHERINE = "Lu et al. 2022b", "Karras et al. 2022", "its name"
_HALF = (
    "`phi_3 * d2`, where d2 is a divided difference, half of the second derivative: its weight is 2 phi_3 "
    "(Hochbruck and Ostermann 2010), and half of the curvature is lost"
)
_APART = (
    "with `noise_sampler=default_noise_sampler(x)` the noises of node and end are independent, and "
    "have to be of one path; its own default, a Brownian tree, has order 2"
)


def _claims() -> list[Published]:
    """Every sampler that takes noise levels; needs the package."""
    import k_diffusion.sampling as theirs  # pyright: ignore[reportMissingImports]

    def one(name: str, *, eta: float | None = None, calls: int = 1) -> FunctionSolver:
        options = {} if eta is None else {"eta": eta}
        return FunctionSolver(getattr(theirs, f"sample_{name}"), options, calls, draws=eta is not None)

    def many(name: str, options: dict[str, Any], *, draws: bool = False) -> FunctionSolver:
        return FunctionSolver(getattr(theirs, f"sample_{name}"), options, remembers=True, draws=draws)

    two_stage = ("dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde")
    sde, ode = ({name: one(name, eta=eta, calls=2) for name in two_stage} for eta in (1.0, 0.0))
    apart = replace(sde["dpmpp_sde"], independent=True)
    heun = many("dpmpp_2m_sde", {"solver_type": "heun"}, draws=True)
    return [
        _claim(one("euler"), _KARRAS, 1),
        _claim(one("heun", calls=2), _KARRAS, 2),
        _claim(one("dpm_2", calls=2), "Lu et al. 2022a", 2),
        _claim(many("lms", {}), _KATHERINE, 4),
        _claim(one("euler_ancestral", eta=1.0), "Song et al. 2021", None, 1),
        *(_claim(sde[name], _LU, None, 2) for name in two_stage),
        *(_claim(ode[name], _LU, 2) for name in two_stage),
        _claim(apart, _LU, None, 2, cause=_APART),
        _claim(many("dpmpp_2m", {}), _LU, 2),
        _claim(many("dpmpp_2m_sde", {}, draws=True), _LU, 2, 2),
        _claim(heun, _LU, 2, 2, exact=2),
        _claim(many("dpmpp_3m_sde", {}, draws=True), _KATHERINE, 3, 2, exact=3, cause=_HALF),
    ]


def _claim(
    solver: FunctionSolver,
    source: str,
    drift: int | None,
    weak: int | None = None,
    *,
    exact: int = 0,
    cause: str = "",
) -> Published:
    note = " independent noises" if solver.independent else ""
    title = f"{solver.function.__name__}{option_text(solver.options)}{note}"
    return Published(title, solver, source, drift, weak, exact, cause)


def one_level() -> list[list[str]]:
    """What each multistep sampler gives for the levels [10, 0]."""
    import k_diffusion.sampling as theirs  # pyright: ignore[reportMissingImports]

    names = ("sample_dpmpp_2m", "sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde")
    return [[name, _sample(getattr(theirs, name))] for name in names]


def _sample(sampler: Any) -> str:
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    try:
        return f"{float(sampler(lambda x, sigma: x / 2, x, torch.tensor([10.0, 0.0]), disable=True)):g}"
    except UnboundLocalError as error:
        return f"UnboundLocalError: {error}"


_ONE_LEVEL = """\
A run of one level and zero, D(x) = x / 2 at x = 1: the sample is D, 0.5. The two SDE samplers keep the step's
length `h`, which they have not computed when the first step goes to zero."""
K_DIFFUSION = Library(
    name="k-diffusion",
    module="k_diffusion",
    install='pip install "seedsbench[k-diffusion]"',
    rounding=1e-9,
    claims=_claims,
    probes=[Probe("k-diffusion: one level", _ONE_LEVEL, ("sampler", "sample"), one_level)],
)
