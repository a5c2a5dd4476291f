"""Zip files and .npz arrays from outside: sizes are judged by their headers, before anything is unpacked."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from seedsbench.files.regular import check_regular

MAX_FREE = 2**28
"""Bytes that a member of a zip file may always unpack to; of a larger one the packed size is looked at."""
MAX_RATIO = 20
"""By which such a member may have shrunk: images and features shrink by less than 3, zeros by 1000."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1  # a flag of a member
_CHUNK = 2**20


class Refused(ValueError):
    """What is wrong with a file, said in full: `reading` adds nothing to it."""


class Header(NamedTuple):
    """What an array of an .npz says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_columns: bool

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def printable(text: object, limit: int = 300) -> str:
    """Text from a file on one line, safe to print, cut to `limit` characters."""
    plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(str(text).split()))
    return plain if len(plain) <= limit else f"{plain[: limit - 3]}..."


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever reading a file raises into a ValueError, in one line that begins with `what`."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:  # zipfile, zlib, numpy and decoders of images raise what they like
        raise ValueError(f"{what}: {printable(error) or type(error).__name__}") from error


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip file, to be closed by the caller. Raises anything for one that is damaged: see `reading`."""
    size = check_regular(path)
    archive = zipfile.ZipFile(path)
    try:
        for info in archive.infolist():
            if archive.getinfo(info.filename) is not info:
                raise ValueError(f"two of its members have the name {info.filename}")
            if info.compress_size > size:
                raise ValueError(f"{info.filename} has {info.compress_size} bytes in a file of {size}")
    except BaseException:
        archive.close()
        raise
    return archive


def open_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A member of a zip file, opened; ValueError if it is locked, or would unpack to much more than it is."""
    info = archive.getinfo(name)
    if info.flag_bits & _ENCRYPTED:
        raise ValueError(f"{name} is encrypted: pack it without a password")
    if info.compress_type not in _METHODS:
        raise ValueError(f"{name} is packed by method {info.compress_type}: only deflate is read")
    if info.file_size > max(MAX_FREE, MAX_RATIO * info.compress_size):
        raise ValueError(f"{name} would unpack from {info.compress_size} to {info.file_size} bytes")
    return archive.open(info)


def array_header(file: IO[bytes], size: int) -> Header:
    """The header of an array of `size` bytes, read off its start; ValueError unless the two agree."""
    if (version := np.lib.format.read_magic(file)) != (1, 0):  # later ones let the header have 4 GB
        raise ValueError(f"its array is of format {version}: write it with numpy.savez")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are pickled: save numbers")
    header = Header(shape, dtype, by_columns)
    if min(shape, default=0) < 0 or header.size != size - file.tell():
        raise ValueError(f"{shape} of {dtype} is not what its {size} bytes hold")
    return header


def npz_header(archive: zipfile.ZipFile, name: str) -> Header:
    """The header of an array of an .npz; KeyError if it is not there, and what reading it raises."""
    with open_member(archive, f"{name}.npy") as file:
        return array_header(file, archive.getinfo(f"{name}.npy").file_size)


def npz_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an .npz whose header was found good."""
    with open_member(archive, f"{name}.npy") as file:
        header = array_header(file, archive.getinfo(f"{name}.npy").file_size)
        data, at = np.empty(header.size, np.uint8), 0  # takes memory as it is written
        while chunk := file.read(min(_CHUNK, len(data) - at)):
            data[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            at += len(chunk)
    if at < len(data):
        raise ValueError(f"{name} ends after {at} of {len(data)} bytes")
    return data.view(header.dtype).reshape(header.shape, order="F" if header.by_columns else "C")
