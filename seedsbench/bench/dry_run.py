"""What the cells of a command need from outside: the text of dry_run=true. Fetches nothing."""

from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from seedsbench.bench.model_files import Wanted, listing, wanted_files


def files_of(configurations: Iterable[DictConfig]) -> dict[str, list[Wanted]]:
    """The files of each model and regime among composed configurations, by "model=... regime=...".

    Raises ValueError for a regime a model has no weights for, and for a missing model.path.
    """
    found = {}
    for cfg in configurations:
        model = OmegaConf.to_container(cfg.model, resolve=True)
        assert isinstance(model, dict)
        title = f"model={cfg.hydra.runtime.choices.model} regime={cfg.regime.name}"
        found[title] = wanted_files({str(key): value for key, value in model.items()}, cfg.regime.name)
    return found


def dry_run_text(configurations: Iterable[DictConfig]) -> str:
    """For each model and regime: each file, from where, to where, its size and its licence."""
    return "\n".join(
        line for title, files in files_of(configurations).items() for line in listing(title, files)
    )
