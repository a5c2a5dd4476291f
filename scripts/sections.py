"""The sections of results/benchmarks.md, one a benchmark."""

from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "results" / "benchmarks.md"


def publish(section: str, *, write: bool) -> None:
    """Print a section, which begins with its `## heading`; with write put it where the one before was."""
    section = section.strip("\n") + "\n"
    print(section)
    if write:
        heading = section.partition("\n")[0]
        text = FILE.read_text() if FILE.is_file() else "# Benchmarks\n"
        before, _, rest = text.partition(heading + "\n")
        _, mark, after = rest.partition("\n## ")
        FILE.write_text(before.rstrip("\n") + "\n\n" + section + (mark and "\n## " + after))
