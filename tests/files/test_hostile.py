"""What others planted in the cache, and servers that mean harm: nothing is followed, nothing waits."""

import hashlib
import json
import os
import re
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedsbench.files import download
from seedsbench.files.atomic import temporary_prefix
from seedsbench.files.download import (
    FetchError,
    RemoteFile,
    cached_path,
    fetch,
    forget_failures,
    record_path,
    sha256_of,
)
from seedsbench.files.extractor_files import extractor_weights
from seedsbench.files.model_files import Wanted, resolve
from seedsbench.files.regular import check_regular

BODY = b"the weights" * 100
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(scope="module")
def site():
    """GET /ok sends BODY, /no 404, /endless zeros without an end; counts requests."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            server.count += 1
            self.send_response(404 if self.path.startswith("/no") else 200)
            self.end_headers()
            if self.path.startswith("/ok"):
                self.wfile.write(BODY)
            while self.path.startswith("/endless"):
                with suppress(OSError):
                    self.wfile.write(bytes(2**16))
                    continue
                return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.url, server.count = f"http://127.0.0.1:{server.server_port}", 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDSBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    forget_failures()
    (tmp_path / "cache").mkdir()
    yield tmp_path / "cache"
    forget_failures()


def refused(call, *arguments, match):
    with pytest.raises(ValueError, match=match) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)


def test_links_planted_in_the_cache_are_not_written_through(site, cache, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    file = RemoteFile(f"{site.url}/ok", "w.pkl")
    (cache / ".w.pkl.partial").symlink_to(tmp_path)  # the name that older versions used
    (cache / "w.pkl").symlink_to(tmp_path / "nothing")
    (cache / ".w.pkl.lock").symlink_to(victim)
    refused(fetch, file, match="w.pkl.lock is no ordinary file.*delete it")
    (cache / ".w.pkl.lock").unlink()
    forget_failures()
    record_path(cached_path(file)).symlink_to(victim)
    refused(fetch, file, match="it is a link.: delete it to record the sha256 anew")
    record_path(cached_path(file)).unlink()
    assert fetch(file).sha256 == SHA
    assert not (cache / "w.pkl").is_symlink()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "3", "null", "[" * 100_000, '{"sha256": ' + "1" * 5000 + "}", '{"sha256": "%s"}' % ("A" * 64)]
    + [json.dumps({"sha256": value}) for value in (None, 1, [], "abc", SHA + "0")]
    + ['{"sha256": "' + SHA + '", "a": "' + "x" * 2**21 + '"}', b"\xff\xfe"],
    ids=range(14),
)
def test_a_record_that_is_none_is_one_line(site, content):
    file = RemoteFile(f"{site.url}/ok", "w.pkl")
    cached_path(file).write_bytes(BODY)
    record_path(cached_path(file)).write_bytes(content.encode() if isinstance(content, str) else content)
    refused(fetch, file, match="w.pkl.json cannot be read .*: delete it to record the sha256 anew")


def test_pipes_and_folders_where_a_record_or_a_lock_should_be(site, cache):
    file = RemoteFile(f"{site.url}/ok", "w.pkl")
    os.mkfifo(cache / ".w.pkl.lock")
    refused(fetch, file, match="no ordinary file")
    (cache / ".w.pkl.lock").unlink()
    forget_failures()
    for make in (os.mkfifo, os.mkdir):
        make(record_path(cached_path(file)))
        refused(fetch, file, match="not an ordinary file.: delete it")
        (os.rmdir if make is os.mkdir else os.unlink)(record_path(cached_path(file)))


def test_a_prefix_of_the_sha256_is_checked_at_download_and_at_use(site, cache):
    right, wrong = (RemoteFile(f"{site.url}/ok", "w.pth", sha256_starts=s) for s in (SHA[:8], "0" * 8))
    refused(fetch, wrong, match=f"sha256 {SHA}, expected 00000000...; try again later")
    assert [path.name for path in cache.iterdir()] in ([], [".w.pth.lock"])
    assert fetch(right).sha256 == SHA
    refused(
        fetch, wrong, match=f"w.pth is damaged or another file: sha256 {SHA}, expected 00000000...; delete"
    )
    for text in ("G", "A", "0" * 65):
        refused(
            RemoteFile, "https://e.org/a", "a", None, None, None, None, None, text, match="lower-case hex"
        )


def test_published_names_with_a_prefix_have_it_checked():
    for extractor in ("inception", "dinov2"):
        file = extractor_weights(extractor)
        named = re.search(r"-([0-9a-f]{8})\.pth$", file.name)
        assert file.sha256_starts == (named[1] if named else ""), extractor


def test_a_failed_download_is_not_tried_again_for_a_while(site, monkeypatch):
    file, before = RemoteFile(f"{site.url}/no", "w.pkl"), site.count
    with pytest.raises(FetchError) as first:
        fetch(file)
    with pytest.raises(FetchError, match=re.escape(str(first.value))):
        fetch(file)
    assert site.count == before + 1
    now = time.monotonic()
    monkeypatch.setattr(download.time, "monotonic", lambda: now + download.RETRY_AFTER + 1)
    with pytest.raises(FetchError):
        fetch(file)
    assert site.count == before + 2
    cached_path(file).write_bytes(BODY)  # put there by hand
    assert fetch(file).sha256 == SHA


def test_a_server_without_an_end_fills_no_disk(site, cache):
    file = RemoteFile(f"{site.url}/endless", "w.pkl", about_mb=1)
    refused(fetch, file, match="sends more than 3000000 bytes")
    assert [path.name for path in cache.iterdir()] in ([], [".w.pkl.lock"])


def test_what_a_killed_download_left_is_cleared_by_the_next(site, cache):
    dead = 2**22 + 1  # above the largest process number
    left = cache / (re.sub(r"\.\d+\.$", f".{dead}.", temporary_prefix()) + "abc.tmp")
    deep = cache / "others" / left.name
    for folder in (left, deep):
        folder.mkdir(parents=True)
        (folder / "w.pkl").write_bytes(b"half")
    fetch(RemoteFile(f"{site.url}/ok", "w.pkl"))
    assert not left.exists()
    assert deep.exists(), "folders of others are not searched"


def strange(folder):
    """Paths that are no ordinary file, by what they are."""
    os.mkfifo(folder / "pipe")
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # its name may not be longer than 107 bytes
    server.bind("socket")
    os.chdir(here)
    server.close()
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "zero").symlink_to("/dev/zero")
    with (folder / "holes").open("wb") as file:
        file.write(b"\x80\x04")
        file.truncate(100 * 2**30)
    return ["pipe", "socket", "circle", "dangling", "zero", "holes"]


def test_strange_paths_are_said_at_once(tmp_path):
    start = time.monotonic()
    for name in strange(tmp_path):
        wanted = Wanted("weights", path=tmp_path / name, key="model.path")
        refused(lambda wanted=wanted: resolve(wanted, offline=True), match=name)
        refused(sha256_of, tmp_path / name, match=name)
        with pytest.raises((ValueError, FileNotFoundError), match=name):
            check_regular(tmp_path / name)
    assert time.monotonic() - start < 5
    (tmp_path / "a").write_bytes(bytes(100))
    assert check_regular(tmp_path / "a", max_bytes=100) == 100
    refused(lambda: check_regular(tmp_path / "a", max_bytes=99), match="100 bytes, over the limit of 99")
    refused(check_regular, tmp_path / "a\0b", match="null")


RECORD = json.dumps({"sha256": SHA, "url": "https://e.org/a", "first_use": "2026"}).encode()
EDITS = st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)


@settings(max_examples=300)
@given(EDITS)
def test_fuzz_records_are_read_or_refused_in_one_line(tmp_path_factory, edits):
    folder = tmp_path_factory.getbasetemp()
    file = RemoteFile("https://e.org/a", "fuzzed", folder=folder)
    data = bytearray(RECORD)
    for at, new in edits:
        at %= len(data)
        data[at : at + len(new)] = new
    cached_path(file).write_bytes(BODY)
    record_path(cached_path(file)).write_bytes(data)
    try:
        assert fetch(file, offline=True).sha256 == SHA
    except FetchError as error:
        assert str(error).isprintable()  # noqa: PT017
