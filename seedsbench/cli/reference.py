"""`seedsbench-reference images/ out.npz`: statistics of a set of images, made once and used by every run.

seedsbench-reference cifar10-train.zip cifar10.npz --weights weights-inception-2015-12-05-6726825d.pth
seedsbench model=... metrics=inception metrics.reference=cifar10.npz
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from seedsbench.data.pictures import image_names, other_kinds
from seedsbench.files.console import exit_code
from seedsbench.metrics.dinov2 import dinov2_extractor
from seedsbench.metrics.extraction import Extractor
from seedsbench.metrics.inception import inception_extractor
from seedsbench.metrics.reference import doubts, of_images, write_statistics
from seedsbench.metrics.resize import RESIZES

EXTRACTORS = {"inception": inception_extractor, "dinov2": dinov2_extractor}


def main(argv: list[str] | None = None) -> int:
    """Console entry: 0 when the file was written; 2, and one line, for what cannot be done."""
    return exit_code("seedsbench-reference", partial(_main, argv))


def _main(argv: list[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        if not arguments.images.exists():  # before the extractor's file is looked for
            raise FileNotFoundError(f"{arguments.images} is not there: give a folder, .zip or .npz of images")
        make(arguments.images, arguments.output, _extractor(arguments), features=arguments.features)
    except (ValueError, OSError) as error:
        print(f"seedsbench-reference: {error}", file=sys.stderr)
        return 2
    return 0


def make(images: Path, output: Path, extractor: Extractor, *, features: bool = False) -> None:
    """Extract, with a progress bar, and write `output` (.npz)."""
    if output.suffix != ".npz":
        raise ValueError(f"{output} must end in .npz")
    if not output.absolute().parent.is_dir():
        raise ValueError(f"{output.absolute().parent} is no folder: make it first")
    if output.exists() and output.samefile(images):
        raise ValueError(f"{output} holds the images themselves: give another name to write to")
    with tqdm(total=len(image_names(images)), unit="image", desc=extractor.name, disable=None) as bar:
        reference = of_images(images, extractor, features=features, progress=bar.update)
    write_statistics(output, reference, extractor)
    stored = f"{reference.facts}, {reference.bits} bits a channel"
    print(f"{output}: {reference.moments.n} images, {stored}, {extractor.name} {extractor.id}")
    notes = list(doubts(reference, extractor.dim))
    if others := other_kinds(images):
        kinds = " ".join(sorted(set(others))).strip()
        passed = f"{images.name} has {len(others)} files"
        notes.append(f"{passed} that are no images of a kind read here ({kinds})")
    for note in notes:
        print(f"note: {note}")


def _extractor(arguments: argparse.Namespace) -> Extractor:
    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    options = {"block": arguments.block, "resize": arguments.resize}
    if arguments.resize is not None and arguments.metrics != "dinov2":
        said = f"--resize {arguments.resize} is for --metrics dinov2"
        raise ValueError(f"{said}: leave it out, {arguments.metrics} brings its own")
    given = {name: value for name, value in options.items() if value is not None}
    return EXTRACTORS[arguments.metrics](arguments.weights, device, **given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seedsbench-reference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder (with all below it), .zip, or .npz with arr_0")
    parser.add_argument("output", type=Path, help=".npz to write: mu, sigma, and what they are of")
    parser.add_argument("--metrics", choices=sorted(EXTRACTORS), default="inception", help="the extractor")
    parser.add_argument(
        "--weights", type=Path, help="its weights file (default: where its download would be)"
    )
    parser.add_argument(
        "--features", action="store_true", help="keep each image's, for KID, precision, recall"
    )
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda")
    parser.add_argument("--resize", choices=sorted(RESIZES), help="of dinov2 (default: bicubic)")
    parser.add_argument("--block", type=int, help="images at a time")
    return parser


if __name__ == "__main__":
    sys.exit(main())
