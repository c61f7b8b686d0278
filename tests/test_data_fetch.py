"""Downloads from a server of this machine: interrupted, resumed, wrong, mirrored, and asked for twice at once."""

import hashlib
import io
import multiprocessing
import os
import pickle
import sys
import tarfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torchvision import datasets

from sslcourse.data import fetch, load
from sslcourse.data.fetch import Remote, Unavailable
from sslcourse.errors import CourseError

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """files: what it has, by path. cuts: how much of each of the next answers it sends before it hangs up."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cuts, self.ranges, self.asked, self.delay = {}, [], True, [], 0.0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range", "")
        server.asked.append((self.path.strip("/"), wanted))
        time.sleep(server.delay)
        content = server.files.get(self.path.strip("/"))
        if content is None:
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: server.cuts.pop(0) if server.cuts else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SSLCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSLCOURSE_MIRROR", raising=False)
    return tmp_path / "data"


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def remote(server):
    server.files["far/thing.bin"] = CONTENT
    return Remote(f"{server.url}far/thing.bin", md5(CONTENT), "here/thing.bin")


def get(remote, home):
    fetch.fetch(remote, home, progress=False)
    return (home / remote.place).read_bytes()


def left(home):
    return sorted(path.name for path in home.rglob("*") if path.is_file())


# --- one file ----------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_and_once(server, remote, home):
    assert get(remote, home) == CONTENT and get(remote, home) == CONTENT
    assert server.asked == [("far/thing.bin", "")] and left(home) == ["thing.bin"]


def test_an_interruption_is_gone_on_from_at_once(server, remote, home):
    server.cuts = [100_000, 150_000]
    assert get(remote, home) == CONTENT
    assert [wanted for _, wanted in server.asked] == ["", "bytes=100000-", "bytes=250000-"]


def test_an_interrupted_run_is_gone_on_from_by_the_next(server, remote, home):
    server.cuts = [100_000, 0]
    with pytest.raises(Unavailable, match="0.1 MB of it are here, and the next run goes on from there"):
        get(remote, home)
    assert left(home) == ["thing.bin.part"]
    assert get(remote, home) == CONTENT
    assert server.asked[-1] == ("far/thing.bin", "bytes=100000-") and left(home) == ["thing.bin"]


def test_a_server_that_cannot_go_on_begins_anew(server, remote, home):
    server.ranges = False
    server.cuts = [100_000]
    assert get(remote, home) == CONTENT
    assert [wanted for _, wanted in server.asked] == ["", "bytes=100000-"]


@pytest.mark.parametrize("found", [b"of another file", CONTENT + b"too much", CONTENT[:-1] + b"?"])
def test_what_an_earlier_run_left_of_another_file_is_thrown_away(remote, home, found):
    (home / "here").mkdir(parents=True)
    (home / "here" / "thing.bin.part").write_bytes(found)
    assert get(remote, home) == CONTENT and left(home) == ["thing.bin"]


def test_a_whole_file_that_was_not_yet_moved_is_taken(server, remote, home):
    (home / "here").mkdir(parents=True)
    (home / "here" / "thing.bin.part").write_bytes(CONTENT)
    assert get(remote, home) == CONTENT and left(home) == ["thing.bin"]


def test_a_wrong_checksum_is_refused_and_thrown_away(server, remote, home):
    server.files["far/thing.bin"] = CONTENT[:-1] + b"?"
    with pytest.raises(Unavailable, match="thing.bin has a wrong checksum, and was thrown away"):
        get(remote, home)
    assert left(home) == [] and len(server.asked) == 1


def test_a_damaged_file_is_replaced(remote, home):
    (home / "here").mkdir(parents=True)
    (home / "here" / "thing.bin").write_bytes(CONTENT[:1000])
    assert get(remote, home) == CONTENT


@pytest.mark.parametrize(("path", "reason"), [("nothing", "404"), ("far", "404")])
def test_a_file_that_the_server_lacks_is_named_with_the_reason(server, remote, home, path, reason):
    with pytest.raises(Unavailable, match=f"{path}: .*{reason}"):
        get(Remote(server.url + path, remote.md5, remote.place), home)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_a_full_disk_ends_the_download(remote, home):
    (home / "here").mkdir(parents=True)
    (home / "here" / "thing.bin.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        get(remote, home)


@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_shown_on_standard_error_alone(remote, home, shown, capfd):
    fetch.fetch(remote, home, progress=shown)
    said = capfd.readouterr()
    assert said.out == "" and ("thing.bin" in said.err) == shown


# --- mirrors -----------------------------------------------------------------------------------------------------


def test_a_mirror_that_is_a_folder(remote, home, tmp_path, monkeypatch, server):
    (tmp_path / "a mirror").mkdir()
    (tmp_path / "a mirror" / "thing.bin").write_bytes(CONTENT)
    monkeypatch.setenv("SSLCOURSE_MIRROR", str(tmp_path / "a mirror"))
    assert get(remote, home) == CONTENT and server.asked == []


@pytest.mark.parametrize("end", ["", "/"])
def test_a_mirror_that_is_a_url(server, remote, home, monkeypatch, end):
    server.files = {"near/by/thing.bin": CONTENT}
    monkeypatch.setenv("SSLCOURSE_MIRROR", f"{server.url}near/by{end}")
    assert get(remote, home) == CONTENT and server.asked == [("near/by/thing.bin", "")]


def test_a_mirror_is_not_trusted(remote, home, tmp_path, monkeypatch):
    (tmp_path / "thing.bin").write_bytes(CONTENT[:-1])
    monkeypatch.setenv("SSLCOURSE_MIRROR", str(tmp_path))
    with pytest.raises(Unavailable, match="wrong checksum"):
        get(remote, home)


def test_a_mirror_that_is_not_there_or_lacks_the_file_is_named(remote, home, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOURSE_MIRROR", str(tmp_path))
    with pytest.raises(Unavailable, match=f"file://.*{tmp_path.name}/thing.bin: .*No such file"):
        get(remote, home)
    monkeypatch.setenv("SSLCOURSE_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(CourseError, match="SSLCOURSE_MIRROR is .*nowhere.*no such folder.*thing.bin"):
        get(remote, home)


# --- a data set --------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar(server, monkeypatch):
    """CIFAR-10's archive, small, at the server; returns its bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:

        def add(name, thing):
            content = pickle.dumps(thing)
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            return [name, md5(content)]

        def batch(name, seed):
            data = np.random.default_rng(seed).integers(0, 256, (20, 3072), dtype=np.uint8)
            return add(name, {"data": data, "labels": [i % 10 for i in range(20)]})

        monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch(f"data_batch_{i}", i) for i in range(1, 6)])
        monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch", 6)])
        meta = add("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": meta[1]})
    offer(server, monkeypatch, packed.getvalue())
    return packed.getvalue()


def offer(server, monkeypatch, content):
    server.files["cifar-10-python.tar.gz"] = content
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{server.url}cifar-10-python.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(content))


def test_a_data_set_is_downloaded_once_and_said_to_be(server, cifar, home, capfd):
    server.cuts = [5_000]
    assert len(load("cifar10", progress=False).test) == 20
    said = capfd.readouterr()
    assert said.out == "" and said.err == f"sslcourse: cifar10 is not in {home} yet: getting 170 MB.\n"
    assert len(load("cifar10", progress=False).test) == 20
    assert len(server.asked) == 2 and capfd.readouterr().err == ""


def test_what_stops_in_the_middle_says_how_to_go_on(server, cifar, home):
    server.cuts = [5_000, 0]
    with pytest.raises(
        CourseError, match="no sound copy of cifar10 .*the next run goes on from there.*SSLCOURSE_MIRROR"
    ):
        load("cifar10", progress=False)
    assert len(load("cifar10", progress=False).test) == 20
    assert server.asked[-1][1] == "bytes=5000-"


def test_a_truncated_archive_is_downloaded_anew_and_without_a_network_refused(server, cifar, home, monkeypatch):
    home.mkdir()
    (home / "cifar-10-python.tar.gz").write_bytes(cifar[:-100])
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{server.url}nothing")
    with pytest.raises(CourseError, match="no sound copy of cifar10 is in .*put cifar-10-python.tar.gz into"):
        load("cifar10", progress=False)
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{server.url}cifar-10-python.tar.gz")
    assert len(load("cifar10", progress=False).test) == 20


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"no archive"])
def test_an_archive_that_cannot_be_unpacked_leaves_nothing_half_there(server, cifar, home, monkeypatch, damage):
    offer(server, monkeypatch, damage(cifar))
    with pytest.raises(CourseError, match="the copy of cifar10 in .* is damaged"):
        load("cifar10", progress=False)
    assert not (home / "cifar-10-batches-py").exists() and not list(home.glob("*.unpacking"))


def test_a_batch_that_changed_is_unpacked_again(server, cifar, home):
    load("cifar10", progress=False)
    (home / "cifar-10-batches-py" / "test_batch").write_bytes(b"changed")
    (home / "cifar-10-batches-py" / "stray").write_bytes(b"")
    (home / ".cifar-10-python.tar.gz.unpacking").mkdir()  # of a run that was killed
    assert len(load("cifar10", progress=False).test) == 20
    assert len(server.asked) == 1 and "stray" not in left(home)
    assert not (home / ".cifar-10-python.tar.gz.unpacking").exists()


@contextmanager
def processes(target, count):
    """`count` forks of this process, which inherit what was patched."""
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=target) for _ in range(count)]
    for process in running:
        process.start()
    yield running
    for process in running:
        process.join(60)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_two_processes_at_once_one_downloads_and_unpacks(server, cifar, home, tmp_path, monkeypatch):
    server.delay = 0.3  # long enough for the second to find nothing as well
    unpack = fetch.unpack

    def counted(archive):
        with open(tmp_path / "unpacked", "a") as file:
            file.write("x")
        unpack(archive)

    monkeypatch.setattr(fetch, "unpack", counted)

    def child():
        os._exit(0 if len(load("cifar10", progress=False).test) == 20 else 1)

    with processes(child, 2) as running:
        pass
    assert [process.exitcode for process in running] == [0, 0]
    assert server.asked == [("cifar-10-python.tar.gz", "")] and (tmp_path / "unpacked").read_text() == "x"


@pytest.mark.skipif(sys.platform == "win32", reason="modes are other ones there")
def test_what_an_archive_keeps_to_itself_has_the_mode_that_the_umask_gives(tmp_path):
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, mode in (("top", 0o700), ("top/secret.bin", 0o600)):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, 3
            if name == "top":
                member.type, member.size = tarfile.DIRTYPE, 0
            tar.addfile(member, io.BytesIO(b"abc"))
    before = os.umask(0o022)
    try:
        fetch.unpack(archive)
    finally:
        os.umask(before)
    assert (tmp_path / "top").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "top" / "secret.bin").stat().st_mode & 0o777 == 0o644


def test_a_copy_that_may_not_be_read_is_not_called_damaged(home, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "data_batch_1")

    monkeypatch.setattr(datasets.CIFAR10, "__init__", refuse)
    with pytest.raises(CourseError, match=r"can't be read by you \(data_batch_1\); ask whoever made it"):
        load("cifar10")
