"""What the benchmarks share: options, the command they print, their sections of results/benchmarks.md."""

import argparse
import math
import platform
import shlex
import sys
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "results" / "benchmarks.md"


def options(script: str, told: str | None, *, quick: str | None = None) -> argparse.ArgumentParser:
    """A parser with --write and, where `quick` says what it changes, --quick.

    script: the script's __file__; told: its docstring.
    """
    parser = argparse.ArgumentParser(
        prog=Path(script).name, description=told, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if quick:
        parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--write", action="store_true", help="put the section into results/benchmarks.md")
    return parser


def command(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """The command that gives these arguments again: all of them that are not their defaults."""
    positional, named = [], []
    for action in parser._actions:
        value = getattr(arguments, action.dest, action.default)
        if value == action.default:
            continue
        values = value if isinstance(value, list) else [] if action.nargs == 0 else [value]
        # Positional ones come first: after an option of many values they would be taken for its own.
        words = named if action.option_strings else positional
        words += [*action.option_strings[-1:], *map(str, values)]
    return shlex.join(["python", f"scripts/benchmarks/{parser.prog}", *positional, *named])


def machine(device: str = "cpu") -> str:
    """What it ran on: the card's name or the kind of processor."""
    if device == "cpu":
        return platform.machine()
    import torch

    return torch.cuda.get_device_name(device)


def foretell(what: str, seconds: float) -> None:
    """Say how long something will take."""
    print(f"{what}: about {math.ceil(seconds / 60)} minute(s)", file=sys.stderr, flush=True)


def publish(section: str, *, write: bool, device: str = "cpu", file: Path = FILE) -> None:
    """Print a section, which begins with its `## heading`; with write put it where the one before was.

    device: one elsewhere than on the CPU names it in its heading and comes beside the one of the CPU.
    """
    heading, _, body = section.strip("\n").partition("\n")
    kind = device.partition(":")[0]
    section = "\n".join([heading if kind == "cpu" else f"{heading} ({kind})", body]) + "\n"
    print(section)
    if write:
        text = file.read_text() if file.is_file() else "# Benchmarks\n"
        file.write_text(placed(text, section, beside=heading))


def placed(text: str, section: str, *, beside: str) -> str:
    """The text with the section in place of that of its heading, or after that of `beside`, or at the end."""
    first, *others = text.split("\n## ")
    parts = [first, *(f"## {part}" for part in others)]
    headings = [part.partition("\n")[0] for part in parts]
    new = section.partition("\n")[0]
    if new in headings:
        parts[headings.index(new)] = section
    else:
        parts.insert(headings.index(beside) + 1 if beside in headings else len(parts), section)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"
