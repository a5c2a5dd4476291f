"""Who a problem is, from files and options alone, before any network is loaded.

The builders in `bench.problems` take their identities from here.
"""

from dataclasses import dataclass, replace
from typing import Any

from seedsbench.data.glyphs import ASSETS
from seedsbench.denoisers import embedded
from seedsbench.denoisers.analytic import check_mixture
from seedsbench.files.digests import digest


@dataclass(frozen=True)
class Identity:
    """Of the network, the features, what samples are compared with, and the real images, if there are any."""

    model_id: str
    features_id: str
    reference_id: str
    real_id: str | None = None


def glyphs_identity(regime: str) -> Identity:
    """Of the embedded model: its files' contents. ValueError for a regime it does not have."""
    features, reference = (
        digest((ASSETS / name).read_bytes()) for name in ("features.safetensors", "glyphs_reference.npz")
    )
    return Identity(embedded.model_id(regime), features, reference)


def mixture_identity(
    regime: str, name: str, means: list[list[float]], weights: list[float], std: float
) -> Identity:
    """Of a Gaussian mixture: its parameters, and that samples' classes follow weights that differ.

    ValueError for parameters that do not agree.
    """
    lengths = {len(mean) for mean in means}
    if len(lengths) != 1:
        raise ValueError(f"means={means} must be one or more lists of as many numbers each")
    check_mixture((len(means), *lengths), weights, std)
    parameters = {"means": means, "weights": weights, "std": std}
    who = _analytic(regime, parameters)
    if len(set(weights)) == 1:
        return who
    return replace(who, model_id=digest({**parameters, "classes": "by weight"}, regime))


def finite_glyphs_identity(regime: str, name: str, n_images: int) -> Identity:
    """Of the exact denoiser of the first n_images glyphs."""
    return _analytic(regime, {"finite_glyphs": n_images})


def _analytic(regime: str, parameters: dict[str, Any]) -> Identity:
    return Identity(digest(parameters, regime), digest(parameters), digest(parameters))
