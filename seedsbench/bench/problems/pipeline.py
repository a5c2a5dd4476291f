"""Pipelines of diffusers as models: `model=diffusers_pipeline model.path=folder`."""

from collections.abc import Mapping
from typing import Annotated, Any

from seedsbench.bench.problems.checkpoint import Checkpoint, checkpoint_problem, placed
from seedsbench.checks import Range
from seedsbench.files.digests import digest
from seedsbench.files.model_files import ModelFiles, absolute, resolve
from seedsbench.integrations.pipeline_folder import is_plain
from seedsbench.integrations.pipelines import load_pipeline
from seedsbench.integrations.prompts import read_prompts


def pipeline_problem(
    regime: str,
    name: str,
    path: str | None = None,
    format: str | None = None,
    hints: Mapping[str, Any] | None = None,
    reference: str | Mapping[str, Any] | None = None,
    prompts: str | None = None,
    size: Annotated[int, Range(1, 10**5)] | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
    distilled_guidance: Annotated[float, Range(0, 1000)] | None = None,
    offline: bool = False,
    device: str = "cpu",
) -> Checkpoint:
    """A pipeline's network, with what makes images of its latents where it makes latents.

    path: its folder. A pipeline of a UNet2DModel and a scheduler is read by `checkpoint_problem`, and so are
    format and hints. The others: see `integrations.pipelines.load_pipeline`; prompts is a file there. Raises
    ValueError, in one line, for what cannot be.
    """
    wanted = ModelFiles(name=name, path=path, format=format, hints=hints, reference=reference)
    place, statistics = wanted.weights(regime).path, wanted.statistics()
    assert place is not None
    options = {"prompts": prompts, "size": size, "variant": variant, "distilled_guidance": distilled_guidance}
    options["allow_pickle"] = allow_pickle or None
    given = {key: value for key, value in options.items() if value is not None}
    if is_plain(place):
        if given:
            raise ValueError(
                f"model.{next(iter(given))} is for pipelines with more parts than {place} has: leave it out"
            )
        return checkpoint_problem(regime, name, offline, None, path, format, hints, reference, device=device)
    texts = None if prompts is None else read_prompts(absolute(prompts))
    found = load_pipeline(
        place,
        texts,
        variant=variant,
        allow_pickle=allow_pickle,
        distilled_guidance=distilled_guidance,
        size=size,
    )
    said = {key: value for key, value in given.items() if key not in ("prompts", "allow_pickle")}
    return Checkpoint(
        name=name,
        denoiser=placed(found.denoiser, device),
        decode=None if found.decoder is None else found.decoder.to(device),
        model_id=digest({"sha256": resolve(wanted.weights(regime), offline=offline).sha256, **said}, texts),
        statistics=(lambda: resolve(statistics, offline=offline).path) if statistics else None,
        warnings=found.notes,
    )
