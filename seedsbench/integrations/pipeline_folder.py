"""A folder of a diffusers pipeline, judged before any library sees it, and its parts loaded one by one.

Nothing in the folder chooses what is run: its pipeline is one of a list, and each part has one of the classes
that such a pipeline's part may have. Nothing is fetched; code beside the weights is never looked at.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedsbench.checks import nearest
from seedsbench.denoisers.checkpoints.diffusers_folder import check_held, check_keys, read_object
from seedsbench.denoisers.checkpoints.reading import CheckpointError, checked_file, checked_safetensors
from seedsbench.files.archives import one_line, shown
from seedsbench.files.torch_files import check_torch_file
from seedsbench.integrations.pipeline_kinds import PIPELINES, UNUSED, PipelineKind

PART_FILE = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(\w+))??(?:-\d+-of-\d+)?\.(safetensors|bin)"
)
"""File names of weights: the variant in them, and their format."""
MOST_NUMBER = 2**24
MOST_LAYERS = 512
MOST_ENTRIES = 64
"""Of lists in a configuration. All are far above any in use: building an absurd network ends at once."""
_PICKLE = (
    "a .bin file is a pickle, which can run code of whoever wrote it: if you trust them, "
    "model.allow_pickle=true reads it; better take the pipeline's .safetensors"
)


@dataclass(frozen=True)
class Folder:
    """name: the pipeline's class. classes: of the parts to load. config: entries that are no parts."""

    path: Path
    name: str
    kind: PipelineKind
    classes: Mapping[str, str]
    config: Mapping[str, Any]


def is_plain(path: Path) -> bool:
    """Whether a folder has no part beside a unet and a scheduler, and its network's output is no score."""
    if not (path / "model_index.json").is_file():
        return True
    index = read_object(path / "model_index.json")
    if index.get("_class_name") == "ScoreSdeVePipeline":
        return False
    parts = {name for name, value in index.items() if isinstance(value, list)}
    return parts <= {"unet", "scheduler"}


def checked_folder(path: Path) -> Folder:
    """What model_index.json says; CheckpointError for a pipeline, or a part, that is not known here."""
    index = read_object(path / "model_index.json")
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in PIPELINES:
        said = nearest(name, PIPELINES, what="pipeline") if isinstance(name, str) else "a class of its own"
        known = ", ".join(PIPELINES)
        what = f"{path} is a {shown(name, 60)}: {one_line(said, 120)}"
        raise CheckpointError(f"{what}; can be sampled: {known}")
    kind, classes = PIPELINES[name], {}
    for part, value in index.items():
        if part.startswith("_") or part in UNUSED or not isinstance(value, list) or value == [None, None]:
            continue
        if part == "scheduler":  # its configuration is read, the class is not needed
            continue
        if part not in kind.parts:
            known = ", ".join([*kind.parts, "scheduler"])
            raise CheckpointError(f"{path} has a part {shown(part, 60)}: a {name} here has {known}")
        library, known = kind.parts[part]
        if len(value) != 2 or value[0] != library or value[1] not in known:
            raise CheckpointError(
                f"{path} has {part}={shown(value, 100)}: expected {library}'s {' or '.join(known)}, "
                "and no code of the folder's own"
            )
        classes[part] = value[1]
    for part in kind.parts:
        if part not in classes and part not in kind.optional:
            raise CheckpointError(f"{path} has no {part} in model_index.json, which a {name} needs")
    config = {part: value for part, value in index.items() if not isinstance(value, list)}
    return Folder(path, name, kind, classes, config)


def network_config(folder: Folder, part: str) -> dict[str, Any]:
    """The configuration of a part. Raises as `checked_config`, and CheckpointError for another network."""
    place = folder.path / part
    config = checked_config(place)
    if part == folder.kind.network:
        for key, wanted in folder.kind.wanted.items():
            if (value := config.get(key, wanted)) != wanted:
                said = f"only {wanted!r} can be sampled"
                raise CheckpointError(f"{place / 'config.json'} has {key}={one_line(value)}: {said}")
    return config


def checked_config(folder: Path) -> dict[str, Any]:
    """The config.json of a network. Raises CheckpointError for absurd numbers, and for quantised weights."""
    place = folder / "config.json"
    config = read_object(place)
    for key, value in config.items():
        most = MOST_LAYERS if "layers" in key else MOST_NUMBER
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > MOST_ENTRIES or any(isinstance(n, int | float) and abs(n) > most for n in numbers):
            raise CheckpointError(f"{place} has {shown(key, 40)}={one_line(value, 60)}: at most {most}")
    if "quantization_config" in config:
        raise CheckpointError(f"{place} is of quantised weights: give the folder with plain ones")
    return config


@dataclass(frozen=True)
class PartWeights:
    """Which files of a part are read: their variant (None: plain) and whether they are .safetensors."""

    variant: str | None
    safe: bool


def weights_of(place: Path, variant: str | None, *, allow_pickle: bool) -> PartWeights:
    """The weights in a part's folder: .safetensors first, of the variant asked for where it is there.

    Raises CheckpointError where there are none, for .bin alone without leave, for several variants without
    a plain one, and for files that are no such files.
    """
    found = [(match, path) for path in sorted(_listed(place)) if (match := PART_FILE.fullmatch(path.name))]
    formats = {match[2] for match, _ in found}
    if not found:
        raise CheckpointError(
            f"{place} holds no weights: copy diffusion_pytorch_model.safetensors or the like"
        )
    safe = "safetensors" in formats
    if not safe and not allow_pickle:
        raise CheckpointError(f"{place} holds {found[0][1].name} and no .safetensors: {_PICKLE}")
    chosen = [(match[1], path) for match, path in found if (match[2] == "safetensors") == safe]
    variants = {one for one, _ in chosen}
    taken = variant if variant in variants else None
    if taken is None and None not in variants:
        if len(variants) > 1 or variant is not None:
            names = ", ".join(f"model.variant={one}" for one in sorted(filter(None, variants)))
            raise CheckpointError(f"{place} holds only variants of its weights: give {names}")
        (taken,) = variants
    for one, path in chosen:
        if one == taken:
            checked_safetensors(path) if safe else check_torch_file(checked_file(path))
    for listing in place.glob("*.index.json"):
        names = read_object(listing).get("weight_map")
        if not isinstance(names, dict) or any(not PART_FILE.fullmatch(str(name)) for name in names.values()):
            raise CheckpointError(f"{listing} names files that are no weights: copy the folder again")
    return PartWeights(taken, safe)


def check_variant(folder: Folder, variant: str | None) -> None:
    """Raise CheckpointError for a variant that no part has."""
    if variant is None:
        return
    held: set[str] = set()
    for part in folder.classes:
        matches = (PART_FILE.fullmatch(path.name) for path in _listed(folder.path / part))
        held |= {match[1] for match in matches if match and match[1]}
    if variant not in held:
        there = f"it has {', '.join(sorted(held))}" if held else "leave it out"
        raise CheckpointError(f"model.variant={variant}: {folder.path} has no such weights: {there}")


def _listed(place: Path) -> list[Path]:
    try:
        return list(place.iterdir())
    except OSError as error:
        raise CheckpointError(f"{place} cannot be read ({error.strerror}): copy the folder again") from error


def load_parts(folder: Folder, variant: str | None, *, allow_pickle: bool) -> dict[str, Any]:
    """Every part by name, on the CPU in float32, in evaluation mode; optional ones that are missing are None.

    Raises CheckpointError in one line, also where a library is not installed.
    """
    check_variant(folder, variant)
    parts: dict[str, Any] = dict.fromkeys(folder.kind.parts)
    for part, name in folder.classes.items():
        place, library = folder.path / part, folder.kind.parts[part][0]
        if "tokenizer" in part:
            with _loading(place):
                parts[part] = _class(library, name).from_pretrained(str(place), local_files_only=True)
            continue
        config = network_config(folder, part)
        parts[part] = load_module(library, name, place, config, variant, allow_pickle=allow_pickle)
    return parts


def load_module(
    library: str,
    name: str,
    place: Path,
    config: Mapping[str, Any],
    variant: str | None,
    *,
    allow_pickle: bool,
) -> Any:
    """A network of one of the libraries from its folder, on the CPU in float32, in evaluation mode.

    name: of its class. config: as `checked_config` gives it. Raises as `load_parts`.
    """
    source = _class(library, name)
    with _loading(place):
        found = weights_of(place, variant, allow_pickle=allow_pickle)
        if library == "diffusers":
            files = (path for path in _listed(place) if PART_FILE.fullmatch(path.name))
            check_held(source, config, sum(path.stat().st_size for path in files), place)
        module, info = source.from_pretrained(
            str(place),
            local_files_only=True,
            output_loading_info=True,
            variant=found.variant,
            use_safetensors=found.safe,
        )
    check_keys(info, ("missing_keys", "mismatched_keys"), place)
    return module.float().eval().requires_grad_(False)


@contextmanager
def _loading(place: Path) -> Iterator[None]:
    """Turn the libraries' errors, which are of many types, into one CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{place} cannot be loaded: {one_line(error)}") from error


def _class(library: str, name: str) -> Any:
    """A class of diffusers or transformers."""
    try:
        import diffusers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CheckpointError(
            f"pipelines need the diffusers library ({error}): pip install 'seedsbench[diffusers]'"
        ) from error
    if library == "diffusers":
        return _of(diffusers, name)
    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CheckpointError(
            f"text encoders need the transformers library ({error}): pip install transformers"
        ) from error
    if library == "transformers":
        return _of(transformers, name)
    from diffusers.pipelines import latent_diffusion  # pyright: ignore[reportMissingImports]

    return _of(latent_diffusion, name)


def diffusers_class(name: str) -> Any:
    """A class of diffusers, of a name that is known here."""
    return _class("diffusers", name)


def _of(library: Any, name: str) -> Any:
    try:
        return getattr(library, name)
    except (AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{library.__name__} as installed has no {name} ({one_line(error, 100)}): install another version"
        ) from error
