"""Downloads, from a server of our own: resumed, verified, and never a damaged file under the final name."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from data_files import cifar_tar
from typer.testing import CliRunner

from pcsim.cli import app
from pcsim.errors import ConfigurationError, DataError
from pcsim.training.data import load_dataset
from pcsim.training.datasets.fetch import fetch
from pcsim.training.datasets.registry import KNOWN, Source, data_root, known_set

CONTENT = cifar_tar(samples=30)  # a few hundred KB, which is several reads


class Server:
    """Serves one file; how it misbehaves is set by a test.

    Attributes:
        content: what is sent.
        cut: bytes after which the connection is dropped, if any.
        ranges: whether it can go on in the middle.
        length: whether it says how much it sends.
        asked: the Range header of each request.
    """

    def __init__(self) -> None:
        self.content, self.cut, self.ranges, self.length = CONTENT, None, True, True
        self.range_offset = 0
        self.asked: list[str | None] = []
        serving = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                serving.answer(self)

            def log_message(self, *_) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}/cifar-10-python.tar.gz"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        body = self.content[start:]
        request.send_response(206 if asked and self.ranges else 200)
        if asked and self.ranges:
            first, last = start + self.range_offset, len(self.content) - 1
            request.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        if self.length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have seen enough
            request.wfile.write(body if self.cut is None else body[: self.cut])


@pytest.fixture
def server():
    """A server on this machine, ended after the test."""
    one = Server()
    thread = threading.Thread(target=one.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield one
    one.http.shutdown()
    one.http.server_close()
    thread.join(timeout=10)


class Log:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list = []

    def begin(self, label: str, total: int) -> None:
        self.told.append((label, total))

    def reach(self, position: int) -> None:
        self.told.append(position)


def served(server: Server, **changes):
    """CIFAR-10 as this server has it."""
    good = {"address": server.address, "size": len(CONTENT), "md5": hashlib.md5(CONTENT).hexdigest()}
    return dataclasses.replace(KNOWN["cifar-10"], sources=(Source(**{**good, **changes}),))


def refused(action, kind=DataError) -> str:
    """The one line with which an action is refused."""
    with pytest.raises(kind) as caught:
        action()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("length", [True, False])
def test_download_and_use(server, tmp_path, length):
    """What was fetched is found under the same folder and loads; fetching again asks nobody."""
    server.length = length
    log = Log()
    (path,) = fetch(served(server), tmp_path, log)
    assert path == tmp_path / "cifar-10" / "cifar-10-python.tar.gz"
    assert path.read_bytes() == CONTENT
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert log.told[0] == ("cifar-10-python.tar.gz", len(CONTENT))
    assert log.told[-1] == len(CONTENT)
    assert log.told[1:] == sorted(log.told[1:])
    assert len(load_dataset("cifar-10", directory=tmp_path).train_inputs) == 150
    fetch(served(server), tmp_path, log)
    assert len(server.asked) == 1


def test_goes_on_where_it_was_cut(server, tmp_path):
    """170 MB over a bad line: only what is missing is asked for."""
    server.cut = 100_000
    message = refused(lambda: fetch(served(server), tmp_path, Log()))
    assert f"ended after 100000 bytes: expected {len(CONTENT)}; run it again to go on" in message
    partial = tmp_path / "cifar-10" / "cifar-10-python.tar.gz.part"
    assert partial.read_bytes() == CONTENT[:100_000]
    assert not partial.with_suffix("").exists()
    server.cut = None
    log = Log()
    (path,) = fetch(served(server), tmp_path, log)
    assert server.asked == [None, "bytes=100000-"]
    assert log.told[1] == 100_000
    assert path.read_bytes() == CONTENT
    assert not partial.exists()


def test_a_whole_partial_needs_no_server(server, tmp_path):
    """Interrupted between the last byte and the name."""
    folder = tmp_path / "cifar-10"
    folder.mkdir()
    (folder / "cifar-10-python.tar.gz.part").write_bytes(CONTENT)
    (path,) = fetch(served(server), tmp_path, Log())
    assert path.read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("partial", [CONTENT[:5000], CONTENT + b"more", b""])
def test_server_that_cannot_go_on(server, tmp_path, partial):
    """A server without ranges, or a partial file that is too long: it begins anew and still ends well."""
    server.ranges = False
    folder = tmp_path / "cifar-10"
    folder.mkdir()
    (folder / "cifar-10-python.tar.gz.part").write_bytes(partial)
    (path,) = fetch(served(server), tmp_path, Log())
    assert path.read_bytes() == CONTENT


def test_server_that_goes_on_elsewhere(server, tmp_path):
    """Another offset than asked for would be glued into a damaged file."""
    server.range_offset = 1
    folder = tmp_path / "cifar-10"
    folder.mkdir()
    (folder / "cifar-10-python.tar.gz.part").write_bytes(CONTENT[:5000])
    assert "expected bytes 5000- of" in refused(lambda: fetch(served(server), tmp_path, Log()))


def test_wrong_checksum(server, tmp_path):
    """A changed byte: named with both checksums, thrown away, and nothing under the final name."""
    server.content = CONTENT[:-1] + b"\x01"
    message = refused(lambda: fetch(served(server), tmp_path, Log()))
    assert (
        f"has MD5 {hashlib.md5(server.content).hexdigest()}: expected {hashlib.md5(CONTENT).hexdigest()}"
        in message
    )
    assert list((tmp_path / "cifar-10").iterdir()) == []
    server.content = CONTENT
    assert fetch(served(server), tmp_path, Log())


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("content", [CONTENT[:-7], CONTENT + b"x" * 3_000_000])
def test_wrong_size(server, tmp_path, content, length):
    """Another size than published ends at once, also where the server does not say how much it sends."""
    server.content, server.length = content, length
    message = refused(lambda: fetch(served(server), tmp_path, Log()))
    if length:
        assert f"offers {len(content)} bytes: expected {len(CONTENT)}" in message
    else:
        assert ("ended after" if len(content) < len(CONTENT) else "sends more than") in message
    left = [one.stat().st_size for one in (tmp_path / "cifar-10").iterdir()]
    assert sum(left) <= len(CONTENT)


def test_existing_file(server, tmp_path):
    """A file that is not the official one stays, unless the user says otherwise."""
    path = tmp_path / "cifar-10" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    message = refused(lambda: fetch(served(server), tmp_path, Log()), ConfigurationError)
    assert "exists and is not the official file" in message
    assert "--force" in message
    assert path.read_bytes() == b"mine"
    fetch(served(server), tmp_path, Log(), overwrite=True)
    assert path.read_bytes() == CONTENT


def test_without_a_network(server, tmp_path):
    """The address, the reason, and what to do: size, checksum and place of the file to bring."""
    gone = served(server)
    server.http.server_close()
    message = refused(lambda: fetch(gone, tmp_path, Log()))
    target = tmp_path / "cifar-10" / "cifar-10-python.tar.gz"
    assert f"cifar-10: cannot get {server.address} (" in message
    assert (
        f"bring the file ({len(CONTENT)} bytes, MD5 {hashlib.md5(CONTENT).hexdigest()}) to {target}"
        in message
    )
    assert "--set data.path=FOLDER" in message


def test_no_such_file_on_the_server(server, tmp_path):
    """Addresses die; the answer of the server is told."""
    missing = served(server)
    server.answer = lambda request: request.send_error(404)
    assert "(Not Found)" in refused(lambda: fetch(missing, tmp_path, Log()))


def test_no_space_and_no_right_to_write(server, tmp_path, monkeypatch):
    """Said before the download, not after an hour of it."""
    assert "bytes free: expected" in refused(lambda: fetch(served(server, size=10**18), tmp_path, Log()))
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(lambda: fetch(served(server), tmp_path / "file", Log()))
    assert server.asked == []


def test_published_sources():
    """What is known of the official files: whole checksums, sizes, and names that do not collide."""
    for known in KNOWN.values():
        files = [source.file for source in known.sources]
        assert len(set(files)) == len(files) > 0
        for source in known.sources:
            assert len(bytes.fromhex(source.md5)) == 16
            assert source.size > 4000
            assert source.address.startswith(("https://", "http://"))
    with pytest.raises(ConfigurationError, match="did you mean 'cifar-10'"):
        known_set("cifar10")


def test_default_folder(monkeypatch, tmp_path):
    """One order: the option, PCSIM_DATA, the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PCSIM_DATA", "/env")
    assert [str(data_root("/option")), str(data_root())] == ["/option", "/env"]
    monkeypatch.delenv("PCSIM_DATA")
    assert data_root() == tmp_path / ".cache" / "pcsim" / "data"


# ---------------------------------------------------------------------------------------- command line


def pcsim(*arguments, **environment) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own."""
    import os

    return subprocess.run(
        [sys.executable, "-c", "from pcsim.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def test_fetch_on_the_command_line_without_a_network(tmp_path):
    """One line, exit code 2, no traceback; a dead proxy stands for the missing network."""
    dead = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    done = pcsim("data", "fetch", "cifar-10", "--data-dir", tmp_path, **dead)
    assert done.returncode == 2
    assert (
        "error: cifar-10: cannot get https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in done.stderr
    )
    assert f"to {tmp_path}/cifar-10/cifar-10-python.tar.gz" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_to_go_on_with_can_be_pasted(monkeypatch):
    """A folder with a space and an apostrophe is quoted as a shell wants it."""
    monkeypatch.setattr("pcsim.training.datasets.fetch.fetch", lambda *arguments, overwrite: [])
    shown = CliRunner().invoke(app, ["data", "fetch", "cifar-10", "--data-dir", "it's my data"])
    assert shlex.split(shown.stdout)[3:5] == ["--data-dir", "it's my data,"]
    told = CliRunner().invoke(app, ["data", "fetch", "cifar-10", "--json"])
    assert json.loads(told.stdout) == {"name": "cifar-10", "files": []}


def test_own_arrays_without_a_shape(tmp_path):
    """Rows of numbers have no shape, and regression no classes: the heading claims neither."""
    path, rows = tmp_path / "own.npz", np.ones((4, 3), np.float32)
    for classes, targets in ((", 2 classes", np.arange(4) % 2), ("", rows)):
        np.savez(path, x_train=rows, y_train=targets, x_test=rows, y_test=targets)
        shown = CliRunner().invoke(app, ["data", "info", "npz", "--path", str(path)]).stdout
        assert f"npz as read{classes}\n" in shown.replace(" \n", "\n").replace("  ", "")
    np.savez(path, x_train=rows.reshape(4, 1, 1, 3), y_train=targets, x_test=rows, y_test=targets)
    assert "shape [1, 1, 3]" in CliRunner().invoke(app, ["data", "info", "npz", "--path", str(path)]).stdout


def test_list_and_info_on_the_command_line(tmp_path):
    """What is here is read and counted; what is not says where it comes from."""
    import json

    folder = tmp_path / "cifar-10"
    folder.mkdir()
    (folder / "cifar-10-python.tar.gz").write_bytes(CONTENT)
    listed = json.loads(pcsim("data", "list", "--data-dir", tmp_path, "--json").stdout)
    places = {one["name"]: one["place"] for one in listed["sets"]}
    assert places["cifar-10"] == str(folder)
    assert places["svhn"] is None
    assert "pcsim data fetch svhn" in pcsim("data", "list", PCSIM_DATA=str(tmp_path)).stdout
    shown = json.loads(pcsim("data", "info", "cifar-10", "--data-dir", tmp_path, "--json").stdout)
    assert shown["content"]["train"]["samples"] == 150
    assert sum(shown["content"]["test"]["labels"]) == 30
    assert shown["content"]["shape"] == [3, 32, 32]
    (folder / "cifar-10-python.tar.gz").write_bytes(CONTENT[:-100])
    damaged = pcsim("data", "info", "cifar-10", "--data-dir", tmp_path)
    assert damaged.returncode == 2
    assert "damaged" in damaged.stderr
    missing = pcsim("data", "info", "svhn", "--data-dir", tmp_path)
    assert missing.returncode == 0
    assert "no folder yet: pcsim data fetch svhn" in missing.stdout


def test_run_takes_the_data_directory(tmp_path):
    """--data-dir reaches the loader of a training run, and a folder whose name is a number stays text."""
    folder = tmp_path / "7" / "cifar-10"
    folder.mkdir(parents=True)
    (folder / "cifar-10-python.tar.gz").write_bytes(CONTENT)
    from pcsim.commands import with_options
    from pcsim.config import load_model
    from pcsim.experiments.experiment import build_dataset

    models = known_models()
    overrides = with_options([], None, tmp_path / "7")
    data = build_dataset(load_model(models / "cifar10.toml", overrides).data)
    assert data.train_inputs.shape == (150, 3072)
    assert load_model(models / "cifar10.toml", with_options([], None, "7")).data.directory == "7"
    np.testing.assert_array_equal(np.unique(data.train_targets) < 10, True)


def known_models():
    """The folder of model files."""
    from pathlib import Path

    return Path(__file__).parents[2] / "models"
