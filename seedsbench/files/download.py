"""Downloads into one cache, each file verified by its sha256; nothing here knows what a file holds.

The cache is the folder SEEDSBENCH_CACHE, else the platform's own (pooch.os_cache). A file appears in it
whole or not at all: it is downloaded under a lock into a new folder beside its place, whose name nobody can
foresee, checked, and renamed. Its sha256 is pinned where it is known; where it is not, the first use writes
it to `<file>.json` and every later use must find the same. No link is written through. What could not be
downloaded is not tried again for ten minutes in the same process. Imports no torch, so that it is quick on
login nodes.
"""

import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

from seedsbench.files.atomic import sweep, temporary_prefix, write_atomic
from seedsbench.files.digests import file_sha256, folder_sha256
from seedsbench.files.json_files import read_json
from seedsbench.files.regular import MAX_BYTES

log = logging.getLogger(__name__)

CACHE_VARIABLE = "SEEDSBENCH_CACHE"
PASSING_FAULTS = (408, 429, 500, 502, 503, 504)
"""What a server may answer and a moment later not."""
RETRY_AFTER = 600.0
"""Seconds for which a failed download is not tried again."""
_SLOWEST, _PATIENCE = 1000, 60.0  # bytes a second that a server must send on average, after so many seconds
_HEX = "[0-9a-f]"


class FetchError(ValueError):
    """A file could not be had; one line that says which, from where, why, and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file that a cell needs and where it is published.

    url: of the file itself, or None where it cannot be fetched by a program. name: in the cache. sha256:
    64 hex digits, or None where nobody has published them. page: where a person finds it, if not at url.
    about_mb: size to expect in units of 10^6 bytes, if known; twice that is the most that is downloaded.
    licence: what its authors allow. folder: where it belongs, if not in the cache (other programs look for
    it there). sha256_starts: its first hex digits, where no more are published, as in torch's hub's names.
    """

    url: str | None
    name: str
    sha256: str | None = None
    page: str | None = None
    about_mb: float | None = None
    licence: str | None = None
    folder: Path | None = None
    sha256_starts: str = ""

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise ValueError(f"{self.name!r} is no name for a file in the cache: give one without '/'")
        digits = self.sha256
        if digits is not None and not is_sha256(digits):
            raise ValueError(f"sha256 {digits!r} of {self.name} must be 64 lower-case hex digits, or null")
        if not re.fullmatch(f"{_HEX}{{0,64}}", self.sha256_starts):
            raise ValueError(
                f"sha256_starts {self.sha256_starts!r} of {self.name} must be lower-case hex digits"
            )
        if self.url is not None:
            self._check_url(self.url)
        elif self.page is None:
            raise ValueError(f"{self.name} has neither url nor page: say where it comes from")

    def _check_url(self, url: str) -> None:
        parts = urlsplit(url)
        # Anyone on the way can change what plain http carries, and an unknown sha256 would not notice.
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        safe = parts.scheme == "https" or self.sha256 is not None or local
        if parts.scheme not in ("http", "https") or not parts.hostname or not safe:
            raise ValueError(
                f"cannot fetch {self.name} from {url}: use an https:// address (http:// needs a sha256); "
                "a local file is given as a path"
            )

    @property
    def source(self) -> str:
        """Where to find it: the page for people if there is one, else the address of the file."""
        return self.page or self.url or ""

    def fault(self, sha256: str) -> str | None:
        """What is wrong with a file of this sha256, by what is published; None if it may be this one."""
        if self.sha256 not in (None, sha256):
            return f"is damaged or another file: sha256 {sha256}, expected {self.sha256}"
        if not sha256.startswith(self.sha256_starts):
            return f"is damaged or another file: sha256 {sha256}, expected {self.sha256_starts}..."
        return None

    @property
    def max_bytes(self) -> int:
        """The most that a server may send for it."""
        return MAX_BYTES if self.about_mb is None else int(2e6 * self.about_mb + 1e6)


@dataclass(frozen=True)
class Fetched:
    """A file that is there and is what it should be. sha256: of its bytes, 64 hex digits."""

    path: Path
    sha256: str


class _NotWorthRepeating(Exception):
    """What is wrong would be wrong the next time too."""


_failures: dict[tuple[RemoteFile, Path], tuple[float, str]] = {}  # when it failed (monotonic), and why


def forget_failures() -> None:
    """Try again at the next `fetch` what could not be downloaded."""
    _failures.clear()


def is_sha256(text: Any) -> bool:
    """Whether it is 64 lower-case hex digits."""
    return isinstance(text, str) and re.fullmatch(f"{_HEX}{{64}}", text) is not None


def cache_dir() -> Path:
    """The folder downloads go to; it need not exist yet."""
    import pooch

    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("seedsbench")).expanduser().absolute()


def cached_path(file: RemoteFile) -> Path:
    """Where in the cache (or its own folder) a file is, or would be."""
    return (file.folder or cache_dir()) / file.name


def record_path(path: Path) -> Path:
    """The JSON beside a cached file: its sha256 at first use, and where it came from."""
    return path.with_name(f"{path.name}.json")


def sha256_of(path: Path) -> str:
    """64 hex digits of an ordinary file, or of a folder; FetchError if it cannot be read."""
    try:
        if path.is_dir():
            return folder_sha256(path)
        return file_sha256(path)
    except OSError as error:
        raise FetchError(
            f"cannot read {error.filename or path} ({error.strerror or 'it is not there'}): make it readable"
        ) from error
    except ValueError as error:
        raise FetchError(f"{error}: give an ordinary file or a folder") from error


def fetch(file: RemoteFile, *, offline: bool = False, attempts: int = 4, timeout: float = 30.0) -> Fetched:
    """The file, from the cache or, unless offline, downloaded into it.

    timeout: seconds without a byte after which an attempt is given up. Processes may ask for the same file
    at once: one downloads, the others wait for it. A download that failed is not tried again for RETRY_AFTER
    seconds or until `forget_failures`: the same error is raised. Raises FetchError.
    """
    from filelock import FileLock

    path = cached_path(file)
    if path.is_file():
        return _verified(file, path)
    if offline:
        raise FetchError(f"offline=true and {file.name} is not in the cache: {_by_hand(file)}")
    if file.url is None:
        raise FetchError(f"{file.name} cannot be downloaded by a program: {_by_hand(file)}")
    when, said = _failures.get((file, path), (0.0, ""))
    if said and time.monotonic() - when < RETRY_AFTER:
        raise FetchError(said)
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if lock.is_symlink() or (lock.exists() and not lock.is_file()):
            raise FetchError(f"{lock} is no ordinary file, as it must be to lock {path.name}: delete it")
        with FileLock(lock):
            if not path.is_file():  # else another process brought it while this one waited
                sweep(path.parent, below=False)
                _download(file, file.url, path, attempts, timeout)
    except FetchError as error:
        _failures[file, path] = time.monotonic(), str(error)
        raise
    except OSError as error:
        raise FetchError(
            f"cannot write to {path.parent} ({error.strerror or error}): "
            f"make room there or set {CACHE_VARIABLE}"
        ) from error
    return _verified(file, path)


def _by_hand(file: RemoteFile) -> str:
    """What a person does to get the file: from where, and where to put it."""
    elsewhere = "" if file.folder else f" (another folder: set {CACHE_VARIABLE})"
    return f"download {file.source} and put it at {cached_path(file)}{elsewhere}"


def _verified(file: RemoteFile, path: Path) -> Fetched:
    """The file as it is in the cache; FetchError unless it is what is pinned, or what it was at first use."""
    found, record = sha256_of(path), record_path(path)
    again = f"delete it to download {file.source} again"
    if (fault := file.fault(found)) is not None:
        raise FetchError(f"{path} {fault}; {again}")
    if file.sha256 is not None:
        return Fetched(path, found)
    if not os.path.lexists(record):
        _write_record(file, path, found)
        return Fetched(path, found)
    expected = _recorded(record)
    if found != expected:
        raise FetchError(
            f"{path} has changed since its first use: sha256 {found}, expected {expected}; "
            f"{again}, or delete {record.name} beside it to accept it as it is"
        )
    return Fetched(path, found)


def _recorded(record: Path) -> str:
    """The sha256 that was written at first use; FetchError for a record that is none, or a link to one."""
    try:
        if record.is_symlink():
            raise ValueError("it is a link")
        entry = read_json(record)
        if not isinstance(entry, dict) or not is_sha256(entry.get("sha256")):
            raise ValueError("it holds no sha256 of 64 lower-case hex digits")
    except (OSError, ValueError) as error:
        raise FetchError(f"{record} cannot be read ({error}): delete it to record the sha256 anew") from error
    return entry["sha256"]


def _write_record(file: RemoteFile, path: Path, sha256: str) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entry = {"sha256": sha256, "url": file.url or file.page, "first_use": now}
    try:
        write_atomic(record_path(path), json.dumps(entry, indent=1).encode() + b"\n")
        log.info("%s: sha256 %s, recorded and enforced from now on", path.name, sha256)
    except OSError as error:
        # A shared, read-only cache is legitimate: the row names the weights' hash in any case.
        log.warning("cannot write %s (%s): the sha256 is not pinned", record_path(path), error.strerror)


def _download(file: RemoteFile, url: str, path: Path, attempts: int, timeout: float) -> None:
    """Download beside its place, check, rename. What a kill leaves behind, `sweep` clears."""
    import pooch
    import requests

    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=temporary_prefix(), suffix=".tmp"))
    registry, urls = {file.name: file.sha256}, {file.name: url}
    source = pooch.create(beside, "", registry=registry, urls=urls, retry_if_failed=attempts - 1)
    try:
        come = source.fetch(file.name, downloader=cast(Any, partial(_get, timeout, file.max_bytes)))
        if (fault := file.fault(file_sha256(come))) is not None:
            raise _NotWorthRepeating(f"what came {fault}")
        os.chmod(come, 0o644)  # pooch makes files that only their owner can read
        os.replace(come, path)
    except (_NotWorthRepeating, ValueError, requests.RequestException) as error:
        raise FetchError(
            f"cannot fetch {file.name} from {url}: {_reason(error, timeout)}; try again later, "
            f"or {_by_hand(file)}"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


class _Bounded:
    """A file to download into, which refuses more than max_bytes, and what comes slower than _SLOWEST."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self.file, self.max_bytes, self.count, self.start = file, max_bytes, 0, time.monotonic()

    def write(self, data: bytes) -> int:
        """Write, or raise _NotWorthRepeating."""
        self.count += len(data)
        if self.count > self.max_bytes:
            raise _NotWorthRepeating(f"the server sends more than {self.max_bytes} bytes")
        passed = time.monotonic() - self.start
        if passed > _PATIENCE and self.count < _SLOWEST * passed:
            raise _NotWorthRepeating(f"the server sent {self.count} bytes in {passed:.0f} s")
        return self.file.write(data)

    def flush(self) -> None:
        """As pooch asks for after each piece."""
        self.file.flush()


def _get(timeout: float, max_bytes: int, url: str, to: str, _pooch: Any) -> None:
    """pooch's download, which raises _NotWorthRepeating where another attempt is none."""
    import pooch
    import requests

    # So that bytes on the wire are the file's own.
    options: dict[str, Any] = {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}}
    try:
        with open(to, "wb") as stream:
            into = cast(Any, _Bounded(stream, max_bytes))
            pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), **options)(url, into, None)
    except requests.HTTPError as error:
        if error.response is None or error.response.status_code in PASSING_FAULTS:
            raise
        raise _NotWorthRepeating(_reason(error, timeout)) from error
    with open(to, "rb") as stream:
        start = stream.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise _NotWorthRepeating("the server sent a web page in its place")
    if not start:
        raise ValueError("the server sent an empty file")


def _reason(error: Exception, timeout: float) -> str:
    import requests

    said = " ".join(str(error).split())
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke before the whole file had come"
    if "timed out" in said:
        return f"the server sent nothing for {timeout:g} s"
    if isinstance(error, requests.ConnectionError):
        return f"no connection ({said.rpartition(': ')[2]:.120})"
    return said[:400]
