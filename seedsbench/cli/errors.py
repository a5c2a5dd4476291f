"""What Hydra says in many lines, in one that says what would work."""

import re

from hydra.errors import ConfigCompositionException

_PLUGINS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "joblib"}
_PLACES = ("full_key:", "object_type=", "reference_type=")


def hydra_error_line(error: BaseException) -> str:
    """The first lines of an error that say something; for a value of the wrong type, why it is wrong."""
    if "hydra/sweeper/optuna" in str(error):
        return "hydra/sweeper=optuna is not installed: pip install 'seedsbench[optuna]'"
    if isinstance(error, ConfigCompositionException) and "merging override" in str(error) and error.__cause__:
        return f"{str(error).split('override ')[-1].strip()}: {hydra_error_line(error.__cause__)}"
    if found := re.search(r"Could not (?:find|load) 'hydra/launcher/(\w+)'", str(error)):
        name = found.group(1)
        if name in _PLUGINS:
            return f'hydra/launcher={name} is not installed: pip install "seedsbench[{_PLUGINS[name]}]"'
        return f"unknown hydra/launcher {name!r}: one of slurm_1gpu, slurm_8gpu, {', '.join(_PLUGINS)}, basic"
    lines = filter(None, map(str.strip, str(error).splitlines()))
    said = [line for line in lines if not line.startswith(_PLACES)]
    return ": ".join(said[:2]) if said else type(error).__name__
