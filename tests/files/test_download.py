"""Downloads against a server on localhost that misbehaves in every way a test can think of. No network."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from seedsbench.cli import fetch as fetch_main
from seedsbench.files.download import (
    FetchError,
    RemoteFile,
    cached_path,
    fetch,
    forget_failures,
    record_path,
)
from tests.support.machine import environment

BODY = bytes(range(256)) * 400
PAGE = b"\n<!DOCTYPE html><html>Please confirm</html>"
SHA = hashlib.sha256(BODY).hexdigest()
QUICK = {"attempts": 2, "timeout": 0.3}


@dataclass(frozen=True)
class Answer:
    """What the server sends; it says `length`, and waits so many seconds. once: later, all is well."""

    body: bytes = BODY
    status: int = 200
    length: int = len(BODY)
    before: float = 0
    after: float = 0
    once: bool = False


ANSWERS = {
    "ok": Answer(),
    "truncated": Answer(BODY[:1000]),
    "truncated_once": Answer(BODY[:1000], once=True),
    "corrupted": Answer(BODY[:-1] + b"?"),
    "slow": Answer(before=1.0),
    "stalls": Answer(BODY[:1000], after=1.0),
    "missing": Answer(b"no", 404, 2),
    "error": Answer(b"oops", 500, 4),
    "error_once": Answer(b"oops", 500, 4, once=True),
    "page": Answer(PAGE, length=len(PAGE)),
    "empty": Answer(b"", length=0),
    "drips": Answer(BODY[:50_000], after=5, once=True),  # slow enough to be killed half-way
    "leisurely": Answer(before=0.7),  # long enough for a second process to ask meanwhile
}


class Handler(BaseHTTPRequestHandler):
    """GET /<one of ANSWERS>/<name>. Counts requests by path."""

    def __init__(self, counts, *args):
        self.counts = counts
        super().__init__(*args)

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.counts[self.path] = self.counts.get(self.path, 0) + 1
        answer = ANSWERS[self.path.split("/")[1]]
        answer = Answer() if answer.once and self.counts[self.path] > 1 else answer
        time.sleep(answer.before)
        self.send_response(answer.status)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()
        time.sleep(answer.after)


@pytest.fixture(scope="module")
def site():
    counts = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, counts))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.counts = counts
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDSBENCH_CACHE", str(tmp_path / "cache"))
    forget_failures()
    return tmp_path / "cache"


@pytest.fixture
def remote(site, request):
    """remote("ok") is a file served that way, under a name no other test uses."""

    def make(behaviour, **entry):
        name = f"{request.node.name.split('[')[0]}-{behaviour}.pkl"
        return RemoteFile(f"{site.url}/{behaviour}/{name}", name, **entry)

    return make


def leftovers(cache):
    return sorted(p.name for p in cache.iterdir() if not p.name.endswith(".lock")) if cache.is_dir() else []


def refusal(file, **options):
    """The error, which must be one line that names the address and where to put the file."""
    with pytest.raises(FetchError) as caught:
        fetch(file, **QUICK, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert file.source in said
    assert str(cached_path(file)) in said
    return said


def test_a_file_comes_once_and_stays(remote, site):
    file = remote("ok", sha256=SHA)
    assert fetch(file) == fetch(file) == fetch(file, offline=True)
    assert cached_path(file).read_bytes() == BODY
    assert site.counts[f"/ok/{file.name}"] == 1
    cached_path(file).write_bytes(b"rot")
    assert f"expected {SHA}" in refusal(file)


def test_an_unknown_sha256_is_recorded_at_first_use_and_enforced_after(remote, cache):
    file = remote("ok")
    assert fetch(file).sha256 == SHA
    record = json.loads(record_path(cached_path(file)).read_text())
    assert (record["sha256"], record["url"]) == (SHA, file.url)
    cached_path(file).write_bytes(BODY + b"!")
    assert "has changed since its first use" in refusal(file)
    assert cached_path(file).read_bytes() == BODY + b"!"  # it may be somebody's: never overwritten
    record_path(cached_path(file)).unlink()
    assert fetch(file, offline=True).sha256 != SHA
    record_path(cached_path(file)).write_text("{")
    with pytest.raises(FetchError, match="delete it to record the sha256 anew"):
        fetch(file)
    cached_path(file).unlink()
    record_path(cached_path(file)).write_text(json.dumps({"sha256": "0" * 64}))
    assert "has changed since its first use" in refusal(file), "deleted, it must come back the same"
    record_path(cached_path(file)).write_text(json.dumps({"sha256": SHA}))
    assert fetch(file).sha256 == SHA


def test_a_file_with_a_place_of_its_own_goes_there(remote, cache, tmp_path):
    file = remote("ok", folder=tmp_path / "hub" / "checkpoints")
    assert str(tmp_path / "hub") in refusal(file, offline=True)
    assert fetch(file).path == tmp_path / "hub" / "checkpoints" / file.name
    assert leftovers(cache) == []
    assert leftovers(tmp_path / "hub" / "checkpoints") == [file.name, f"{file.name}.json"]


@pytest.mark.parametrize(
    ("behaviour", "expected", "attempts"),
    [
        ("truncated", "the connection broke before the whole file had come", 2),
        pytest.param("corrupted", f"expected {SHA}", 2, marks=pytest.mark.slow),
        pytest.param("slow", "the server sent nothing for 0.3 s", 2, marks=pytest.mark.slow),
        ("stalls", "the server sent nothing for 0.3 s", 2),
        ("error", "the server answered 500", 2),
        pytest.param("empty", "an empty file", 2, marks=pytest.mark.slow),
        ("missing", "the server answered 404", 1),
        ("page", "a web page in its place", 1),
        ("error_once", None, 2),
        pytest.param("truncated_once", None, 2, marks=pytest.mark.slow),
    ],
)
def test_a_fault_is_tried_again_and_one_that_stays_leaves_nothing_and_says_why(
    remote, site, cache, behaviour, expected, attempts
):
    file = remote(behaviour, sha256=SHA)
    if expected is None:
        assert fetch(file, **QUICK).sha256 == SHA
    else:
        assert expected in refusal(file)
    assert leftovers(cache) == ([] if expected else [file.name])
    assert site.counts[f"/{behaviour}/{file.name}"] == attempts


FETCH = """
import sys
from seedsbench.files.download import RemoteFile, fetch
print(fetch(RemoteFile(sys.argv[1], "shared.pkl"), timeout=20).sha256)
"""


def process(url):
    command, clean = (
        [sys.executable, "-c", FETCH, url],
        environment(SEEDSBENCH_CACHE=os.environ["SEEDSBENCH_CACHE"]),
    )
    return subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, text=True)


def test_a_killed_download_leaves_a_partial_file_that_the_next_run_replaces(site, cache):
    url = f"{site.url}/drips/shared.pkl"
    child = process(url)

    def part():
        return sum(path.stat().st_size for path in cache.glob(".*.tmp/*"))

    deadline = time.monotonic() + 15
    while not part() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert 0 < part() < len(BODY)
    assert not (cache / "shared.pkl").exists()
    assert fetch(RemoteFile(url, "shared.pkl", sha256=SHA), **QUICK).sha256 == SHA
    assert leftovers(cache) == ["shared.pkl"]


def test_others_may_read_what_was_downloaded(remote):
    assert fetch(remote("ok")).path.stat().st_mode & 0o777 == 0o644


def test_two_processes_download_once(site):
    url = f"{site.url}/leisurely/shared.pkl"
    children = [process(url), process(url)]
    assert [child.communicate(timeout=30)[0].strip() for child in children] == [SHA, SHA]
    assert site.counts["/leisurely/shared.pkl"] == 1


def test_offline_never_touches_the_network(remote, site):
    file = remote("ok")
    assert f"offline=true and {file.name} is not in the cache" in refusal(file, offline=True)
    cached_path(file).parent.mkdir()
    cached_path(file).write_bytes(BODY)  # put there by hand
    assert fetch(file, offline=True).sha256 == SHA
    assert f"/ok/{file.name}" not in site.counts


HTTPS, NAME, DIGITS = "use an https:// address", "no name for a file in the cache", "64 lower-case hex digits"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        *(
            ({"url": url}, HTTPS)
            for url in ("file:///etc/a", "ftp://b.org/a", "a", "https:///a", "http://b.org/a")
        ),
        *(({"name": name}, NAME) for name in ("", "../a", "a/b", ".hidden", "..")),
        *(({"sha256": sha256}, DIGITS) for sha256 in ("", "abc", "G" * 64, "A" * 64)),
        ({"url": None}, "neither url nor page"),
    ],
)
def test_a_file_that_cannot_be_safely_had_is_refused(entry, said):
    whole = {"url": "https://example.org/a", "name": "a.pkl"}
    RemoteFile(**whole)
    RemoteFile("http://example.org/a", "a.pkl", sha256=SHA)
    with pytest.raises(ValueError, match=said):
        RemoteFile(**(whole | entry))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (RemoteFile("http://127.0.0.1:9/x.pkl", "x.pkl"), "no connection ("),
        (RemoteFile(None, "a.npz", page="https://example.org/folder"), "cannot be downloaded by a program"),
    ],
)
def test_without_a_server_it_says_why_and_where_to_get_it(file, said):
    assert said in refusal(file)


def test_a_cache_that_cannot_be_written(remote, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEEDSBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FetchError, match="set SEEDSBENCH_CACHE"):
        fetch(remote("ok"), **QUICK)


def command(*arguments):
    """Exit code of seedsbench-fetch."""
    return fetch_main.main(list(arguments))


def test_the_command_fetches_each_file_once(site, capsys, cache):
    urls = [f"model.files.{regime}.url={site.url}/ok/w.pkl" for regime in ("vp", "ve", "edm")]
    given = ["-m", "model=cifar10_cond", "regime=vp,edm", f"model.reference.url={site.url}/ok/r.npz", *urls]
    assert command(*given) == 0
    assert leftovers(cache) == ["r.npz", "r.npz.json", "w.pkl", "w.pkl.json"]
    assert site.counts["/ok/w.pkl"] == 1
    assert SHA in capsys.readouterr().out


def test_the_command_offline_names_every_missing_file_and_what_is_wrong_in_one_line(capsys):
    assert command("model=cifar10_cond", "regime=vp", "offline=true") == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(line.startswith("seedsbench-fetch: offline=true and ") for line in said)
    assert command("model=imagenet64", "regime=vp") == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "no weights for regime=vp: use regime=edm" in said
