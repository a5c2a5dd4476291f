"""Small YAML files that anyone may have written: options of a choice, read without running code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from seedsbench.files.regular import read_ordinary

LARGEST = 2**18


def read_settings(path: str | Path) -> dict[str, Any]:
    """The mapping in an ordinary file of at most 256 KiB of YAML, by the safe loader, without aliases.

    Raises FileNotFoundError where there is none, and ValueError, in one line that names it, for another file.
    """
    try:
        text = read_ordinary(Path(path), max_bytes=LARGEST)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it has aliases (*name): write the values out")
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{path} holds {type(found).__name__}: expected options, each `name: value`")
    return dict(found)
