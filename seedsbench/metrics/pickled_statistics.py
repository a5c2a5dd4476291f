"""Statistics as EDM2 publishes them: a pickle of a dict with `mu` and `sigma` for each of its extractors.

It is read as networks are, by `files.pickles`: nothing in it runs.
"""

from pathlib import Path
from typing import Any

from seedsbench.files.archives import one_line, shown
from seedsbench.files.numpy_pickles import NUMBERS, ArrayRecord
from seedsbench.files.pickles import Refused, described, unpickled
from seedsbench.files.regular import check_regular
from seedsbench.metrics.extraction import Extractor

_MOST_BYTES = 2**28
"""Those of Inception and DINOv2 together are 42 MB."""
SUFFIX = ".pkl"


def pickled_statistics(path: Path, extractor: Extractor) -> tuple[dict[str, ArrayRecord], int]:
    """The arrays mu and sigma that such a file has for an extractor, and the number of images or 0.

    Raises ValueError, in one line, for any other file, and where it has none for this extractor.
    """
    check_regular(path, max_bytes=_MOST_BYTES)
    if extractor.entry is None:
        raise ValueError(
            f"{path} is of features other than {extractor.name}'s: such files are of metrics=inception, "
            "and of metrics=dinov2 with metrics.resize=bicubic"
        )
    try:
        content = unpickled(path.read_bytes(), NUMBERS)
        return _entry(content, extractor.entry), _number(content)
    except Refused as error:
        raise ValueError(f"{path} is not read: {error}") from error
    except (MemoryError, OSError) as error:
        raise ValueError(f"{path} cannot be read into memory: {one_line(error)}") from error


def _entry(content: Any, entry: str) -> dict[str, ArrayRecord]:
    if type(content) is not dict or entry not in content:
        there = ", ".join(map(described, content)) if type(content) is dict else described(content)
        raise Refused(f"it has no statistics {entry!r}: it holds {shown(there, 200) or 'nothing'}")
    match content[entry]:
        case {"mu": ArrayRecord() as mu, "sigma": ArrayRecord() as sigma}:
            return {"mu": mu, "sigma": sigma}
    raise Refused(f"its {entry!r} is {described(content[entry])}: expected a dict with arrays mu and sigma")


def _number(content: dict[str, Any]) -> int:
    number = content.get("num_images", 0)
    if type(number) is not int or not 0 <= number < 2**53:
        raise Refused(f"its num_images is {described(number)}: a number of images is expected")
    return number
