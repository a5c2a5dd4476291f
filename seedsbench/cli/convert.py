"""`seedsbench-convert in.pkl out.safetensors`: an EDM pickle as our own file of weights."""

import argparse
import sys
from functools import partial
from pathlib import Path

from seedsbench.files.console import exit_code

_HELP = """\
Read an EDM .pkl without running it and write its network as .safetensors: weights and configuration, no code.
The file loads faster, needs no unpickler and gives the same numbers.
"""


def main(argv: list[str] | None = None) -> int:
    """Console entry: 0 when the file was written, 2 when it could not be."""
    return exit_code("seedsbench-convert", partial(_main, argv))


def _main(argv: list[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="seedsbench-convert", description=_HELP)
    parser.add_argument("source", type=Path, help="an EDM .pkl")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    parser.add_argument("--key", default="ema", help="which network of the pickle (default: ema)")
    arguments = parser.parse_args(argv)
    from seedsbench.denoisers.checkpoints.weights import convert_edm

    try:
        convert_edm(arguments.source, arguments.target, key=arguments.key)
    except (ValueError, OSError) as error:
        print(f"seedsbench-convert: {error}", file=sys.stderr)
        return 2
    print(arguments.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
