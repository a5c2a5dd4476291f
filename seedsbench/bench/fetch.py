"""Downloads into one cache, each file verified by its sha256; nothing here knows what a file holds.

The cache is the folder SEEDSBENCH_CACHE, else the platform's own (pooch.os_cache). A file appears in it
whole or not at all: it is downloaded beside its place under a lock, checked, and renamed. Its sha256 is
pinned where it is known; where it is not, the first use writes it to `<file>.json` and every later use
must find the same. Imports no torch, so that it is quick on login nodes.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

CACHE_VARIABLE = "SEEDSBENCH_CACHE"
WORTH_ANOTHER_TRY = (408, 429, 500, 502, 503, 504)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


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
        safe = parts.scheme == "https" or self.sha256 is not None or parts.hostname in LOOPBACK
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


@dataclass(frozen=True)
class Patience:
    """How long to try: attempts, seconds without a byte before one is given up, seconds between two
    (doubled each time)."""

    attempts: int = 4
    timeout: float = 30.0
    pause: float = 1.0


def cache_dir() -> Path:
    """The folder downloads go to; it need not exist yet."""
    import pooch

    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("seedsbench")).expanduser().absolute()


def cached_path(file: RemoteFile) -> Path:
    """Where in the cache (or its own folder) a file is, or would be."""
    return (file.folder or cache_dir()) / file.name


def sha256_of(path: Path) -> str:
    """64 hex digits of a file's bytes; FetchError if it cannot be read."""
    import pooch

    try:
        return pooch.file_hash(str(path), alg="sha256")
    except OSError as error:
        raise FetchError(f"cannot read {path} ({error.strerror}): make it readable") from error


def fetch(file: RemoteFile, *, offline: bool = False, patience: Patience | None = None) -> Fetched:
    """The file, from the cache or, unless offline, downloaded into it.

    Processes may ask for the same file at once: one downloads, the others wait for it. A killed
    download leaves a partial file that the next one overwrites. Raises FetchError.
    """
    path = cached_path(file)
    if path.is_file():
        return _verified(file, path)
    if offline:
        raise FetchError(f"offline=true and {file.name} is not in the cache: {by_hand(file)}")
    if file.url is None:
        raise FetchError(f"{file.name} cannot be downloaded by a program: {by_hand(file)}")
    with _lock(path):
        if not path.is_file():  # else another process brought it while this one waited
            _download(file, file.url, path, patience or Patience())
    return _verified(file, path)


def by_hand(file: RemoteFile) -> str:
    """What a person does to get the file: from where, and where to put it."""
    elsewhere = "" if file.folder else f" (another folder: set {CACHE_VARIABLE})"
    return f"download {file.source} and put it at {cached_path(file)}{elsewhere}"


def record_path(path: Path) -> Path:
    """The JSON beside a cached file: its sha256 at first use, and where it came from."""
    return path.with_name(f"{path.name}.json")


def _verified(file: RemoteFile, path: Path) -> Fetched:
    found = sha256_of(path)
    record = record_path(path)
    if file.sha256 is not None:
        if found != file.sha256:
            raise FetchError(
                f"{path} is damaged or another file: sha256 {found}, expected {file.sha256}; "
                f"delete it to download {file.source} again"
            )
    elif not record.is_file():
        _record(file, path, found)
    elif found != (expected := _recorded(record)):
        raise FetchError(
            f"{path} has changed since its first use: sha256 {found}, then {expected}; delete it to download "
            f"{file.source} again, or delete {record.name} beside it to accept it as it is"
        )
    return Fetched(path, found)


def _record(file: RemoteFile, path: Path, found: str) -> None:
    from seedsbench.bench.store import write_atomic

    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entry = {"sha256": found, "url": file.url or file.page, "bytes": path.stat().st_size, "first_use": now}
    try:
        write_atomic(record_path(path), json.dumps(entry, indent=1).encode() + b"\n")
    except OSError as error:
        # A shared, read-only cache is legitimate: the row names the weights' hash in any case.
        log.warning("cannot write %s (%s): the sha256 is not pinned", record_path(path), error.strerror)
        return
    log.info("%s: sha256 %s, recorded and enforced from now on", path.name, found)


def _recorded(record: Path) -> str:
    try:
        digits = json.loads(record.read_text())["sha256"]
        if isinstance(digits, str):
            return digits
        reason = "its sha256 is no text"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise FetchError(f"{record} cannot be read ({reason}): delete it to record the sha256 anew")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that downloads %s", path.name)
            lock.acquire()
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable(path: Path, error: OSError) -> FetchError:
    return FetchError(
        f"cannot write to {path.parent} ({error.strerror or error}): make room there or set {CACHE_VARIABLE}"
    )


def _download(file: RemoteFile, url: str, path: Path, patience: Patience) -> None:
    """Download to a partial file, check, rename. Nothing is left behind but by a kill."""
    partial = path.with_name(f".{path.name}.partial")
    log.info("downloading %s to %s", url, path)
    reason, tried, final = "", 0, False
    try:
        while tried < patience.attempts and not final:
            if tried:
                log.warning("%s: %s; trying again", file.name, reason)
                time.sleep(patience.pause * 2 ** (tried - 1))
            reason, final = _attempt(file, url, partial, patience.timeout)
            tried += 1
            if not reason:
                os.replace(partial, path)
                return
        raise FetchError(
            f"cannot fetch {file.name} from {url}: {reason} (attempts: {tried}); "
            f"try again later, or {by_hand(file)}"
        )
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _attempt(file: RemoteFile, url: str, partial: Path, timeout: float) -> tuple[str, bool]:
    """One download: ("", True) if it went well, else (what was wrong, whether trying again is no use)."""
    import requests

    try:
        _get(file.name, url, partial, timeout)
    except requests.HTTPError as error:
        response = error.response
        assert response is not None, "raise_for_status gives it"
        final = response.status_code not in WORTH_ANOTHER_TRY
        return f"the server answered {response.status_code} {response.reason}", final
    except requests.exceptions.ChunkedEncodingError:
        return "the connection broke before the whole file had come", False
    except (requests.Timeout, requests.ConnectionError) as error:
        if "timed out" in str(error):
            return f"the server sent nothing for {timeout:g} s", False
        return f"no connection ({_innermost(error)})", False
    except requests.RequestException as error:
        return " ".join(str(error).split())[:160], True
    with partial.open("rb") as stream:
        start = stream.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "the server sent a web page in its place", True
    if not start:
        return "the server sent an empty file", False
    found = sha256_of(partial)
    if file.sha256 is not None and found != file.sha256:
        return f"what came has sha256 {found}, expected {file.sha256}", False
    return "", True


def _get(name: str, url: str, partial: Path, timeout: float) -> None:
    import pooch
    from tqdm import tqdm

    # total: pooch sets the right one, but asks for the bar's truth value, which a bar without one has not.
    with tqdm(total=1, desc=name, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        headers = {"Accept-Encoding": "identity"}  # so that bytes on the wire are the file's own
        downloader: Any = pooch.HTTPDownloader  # its annotations allow no bar of one's own, its manual does
        downloader(progressbar=bar, timeout=timeout, headers=headers)(url, str(partial), None)


def _innermost(error: BaseException) -> str:
    """The cause that says something: of nested connection errors the deepest."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            return " ".join(str(error).split("object at")[-1].split(": ", 1)[-1].split())[:120]
        error = inner
