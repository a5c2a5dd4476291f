"""What Hydra says in many lines, in one that says what would work."""

import re

from hydra.errors import ConfigCompositionException

_PLUGINS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "joblib"}


def one_line(error: BaseException) -> str:
    """The first lines of an error that say something; for a value of the wrong type, why it is wrong."""
    if "hydra/sweeper/optuna" in str(error):
        return "hydra/sweeper=optuna is not installed: pip install 'seedsbench[optuna]'"
    if isinstance(error, ConfigCompositionException) and "merging override" in str(error) and error.__cause__:
        return f"{str(error).split('override ')[-1].strip()}: {one_line(error.__cause__)}"
    if (line := _missing_plugin(str(error))) is not None:
        return line
    lines = [line.strip() for line in str(error).splitlines()]
    said = [
        line
        for line in lines
        if line and not line.startswith(("full_key:", "object_type=", "reference_type="))
    ]
    return ": ".join(said[:2]) if said else type(error).__name__


def _missing_plugin(error: str) -> str | None:
    """The line for a configuration that Hydra cannot find because its launcher is not installed."""
    found = re.search(r"Could not (?:find|load) 'hydra/launcher/(\w+)'", error)
    if found is None:
        return None
    name = found.group(1)
    if name in _PLUGINS:
        return f'hydra/launcher={name} is not installed: pip install "seedsbench[{_PLUGINS[name]}]"'
    return f"unknown hydra/launcher {name!r}: one of slurm_1gpu, slurm_8gpu, {', '.join(_PLUGINS)}, basic"
