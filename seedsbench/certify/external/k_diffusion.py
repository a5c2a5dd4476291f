"""k-diffusion's samplers (the package `k-diffusion`), through `functions.py`.

Left out are `sample_dpm_fast` and `sample_dpm_adaptive`, which choose their own noise levels.
"""

from typing import Any

import torch

from seedsbench.certify.external.claim import Claim, Library, Probe, option_text
from seedsbench.certify.external.functions import FunctionSolver

_LU, _KARRAS, _KATHERINE = "Lu et al. 2022b", "Karras et al. 2022", "its name"
_HALF = (
    "`phi_3 * d2`, where d2 is a divided difference, half of the second derivative: its weight is 2 phi_3 "
    "(Hochbruck and Ostermann 2010), and half of the curvature is lost"
)
_APART = (
    "with `noise_sampler=default_noise_sampler(x)` the noises of node and end are independent, and "
    "have to be of one path; its own default, a Brownian tree, has order 2"
)


def claims() -> list[Claim]:
    """Every sampler that takes noise levels; needs the package."""
    import k_diffusion.sampling as theirs  # pyright: ignore[reportMissingImports]

    def claim(
        name: str,
        source: str,
        drift: int | None,
        weak: int | None = None,
        options: dict[str, Any] | None = None,
        exact: int = 0,
        cause: str = "",
        **how: Any,
    ) -> Claim:
        solver = FunctionSolver(getattr(theirs, f"sample_{name}"), options or {}, **how)
        note = " independent noises" if solver.independent else ""
        return Claim(
            f"sample_{name}{option_text(options or {})}{note}", solver, source, drift, weak, exact, cause
        )

    two: Any = {"evaluations_a_step": 2}
    noisy: Any = {"draws": True}
    memory: Any = {"remembers": True}
    ode: Any = {"options": {"eta": 0.0}, **noisy}
    heun: Any = {"options": {"solver_type": "heun"}, **noisy, **memory}
    return [
        claim("euler", _KARRAS, 1),
        claim("heun", _KARRAS, 2, **two),
        claim("dpm_2", "Lu et al. 2022a", 2, **two),
        claim("lms", _KATHERINE, 4, **memory),
        claim("euler_ancestral", "Song et al. 2021", None, 1, **noisy),
        claim("dpm_2_ancestral", _KATHERINE, None, 2, **two, **noisy),
        claim("dpm_2_ancestral", _KATHERINE, 2, **two, **ode),
        claim("dpmpp_2s_ancestral", _LU, None, 2, **two, **noisy),
        claim("dpmpp_2s_ancestral", _LU, 2, **two, **ode),
        claim("dpmpp_sde", _LU, None, 2, **two, **noisy),
        claim("dpmpp_sde", _LU, 2, **two, **ode),
        claim("dpmpp_sde", _LU, None, 2, cause=_APART, independent=True, **two, **noisy),
        claim("dpmpp_2m", _LU, 2, **memory),
        claim("dpmpp_2m_sde", _LU, 2, 2, **memory, **noisy),
        claim("dpmpp_2m_sde", _LU, 2, 2, exact=2, **heun),
        claim("dpmpp_3m_sde", _KATHERINE, 3, 2, exact=3, cause=_HALF, **memory, **noisy),
    ]


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
LIBRARY = Library(
    name="k-diffusion",
    module="k_diffusion",
    install='pip install "seedsbench[k-diffusion]"',
    rounding=1e-9,
    claims=claims,
    probes=[Probe("k-diffusion: one level", _ONE_LEVEL, ("sampler", "sample"), one_level)],
)
