"""Downloads into one cache, each file verified by its sha256; nothing here knows what a file holds.

The cache is the folder SEEDSBENCH_CACHE, else the platform's own (pooch.os_cache). A file appears in it
whole or not at all: it is downloaded beside its place under a lock, checked, and renamed. Its sha256 is
pinned where it is known; where it is not, the first use writes it to `<file>.json` and every later use
must find the same. Imports no torch, so that it is quick on login nodes.
"""

import json
import logging
import os
import shutil
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from seedsbench.files.atomic import write_atomic
from seedsbench.files.digests import file_sha256, folder_sha256

log = logging.getLogger(__name__)

CACHE_VARIABLE = "SEEDSBENCH_CACHE"
PASSING_FAULTS = (408, 429, 500, 502, 503, 504)
"""What a server may answer and a moment later not."""


class FetchError(ValueError):
    """A file could not be had; one line that says which, from where, why, and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file that a cell needs and where it is published.

    url: of the file itself, or None where it cannot be fetched by a program. name: in the cache. sha256:
    64 hex digits, or None where nobody has published them. page: where a person finds it, if not at url.
    about_mb: size to expect in units of 10^6 bytes, if known. licence: what its authors allow.
    folder: where it belongs, if not in the cache (other programs look for it there).
    """

    url: str | None
    name: str
    sha256: str | None = None
    page: str | None = None
    about_mb: float | None = None
    licence: str | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise ValueError(f"{self.name!r} is no name for a file in the cache: give one without '/'")
        digits = self.sha256
        if digits is not None and (len(digits) != 64 or set(digits) - set("0123456789abcdef")):
            raise ValueError(f"sha256 {digits!r} of {self.name} must be 64 lower-case hex digits, or null")
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


@dataclass(frozen=True)
class Fetched:
    """A file that is there and is what it should be. sha256: of its bytes, 64 hex digits."""

    path: Path
    sha256: str


class _NotWorthRepeating(Exception):
    """What is wrong would be wrong the next time too."""


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
    """64 hex digits of a file or folder; FetchError if it cannot be read."""
    try:
        return folder_sha256(path) if path.is_dir() else file_sha256(path)
    except OSError as error:
        raise FetchError(
            f"cannot read {error.filename or path} ({error.strerror}): make it readable"
        ) from error


def fetch(file: RemoteFile, *, offline: bool = False, attempts: int = 4, timeout: float = 30.0) -> Fetched:
    """The file, from the cache or, unless offline, downloaded into it.

    timeout: seconds without a byte after which an attempt is given up. Processes may ask for the same file
    at once: one downloads, the others wait for it. Raises FetchError.
    """
    from filelock import FileLock

    path = cached_path(file)
    if path.is_file():
        return _verified(file, path)
    if offline:
        raise FetchError(f"offline=true and {file.name} is not in the cache: {_by_hand(file)}")
    if file.url is None:
        raise FetchError(f"{file.name} cannot be downloaded by a program: {_by_hand(file)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.is_file():  # else another process brought it while this one waited
                _download(file, file.url, path, attempts, timeout)
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
    if file.sha256 is None and not record.is_file():
        _write_record(file, path, found)
        return Fetched(path, found)
    fault, accept, expected = "is damaged or another file", "", file.sha256
    if expected is None:
        fault = "has changed since its first use"
        accept = f", or delete {record.name} beside it to accept it as it is"
        try:
            expected = json.loads(record.read_text())["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FetchError(
                f"{record} cannot be read ({error}): delete it to record the sha256 anew"
            ) from error
    if found != expected:
        raise FetchError(
            f"{path} {fault}: sha256 {found}, expected {expected}; "
            f"delete it to download {file.source} again{accept}"
        )
    return Fetched(path, found)


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
    """Download beside its place, check, rename. Nothing is left behind but by a kill."""
    import pooch
    import requests

    beside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
    beside.mkdir()
    registry, urls = {file.name: file.sha256}, {file.name: url}
    source = pooch.create(beside, "", registry=registry, urls=urls, retry_if_failed=attempts - 1)
    try:
        come = source.fetch(file.name, downloader=cast(Any, partial(_get, timeout)))
        os.chmod(come, 0o644)  # pooch makes files that only their owner can read
        os.replace(come, path)
    except (_NotWorthRepeating, ValueError, requests.RequestException) as error:
        raise FetchError(
            f"cannot fetch {file.name} from {url}: {_reason(error, timeout)}; try again later, "
            f"or {_by_hand(file)}"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _get(timeout: float, url: str, to: str, _pooch: Any) -> None:
    """pooch's download, which raises _NotWorthRepeating where another attempt is none."""
    import pooch
    import requests

    # So that bytes on the wire are the file's own.
    options: dict[str, Any] = {"timeout": timeout, "headers": {"Accept-Encoding": "identity"}}
    try:
        pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), **options)(url, to, None)
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
