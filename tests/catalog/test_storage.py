"""One contract, two kinds of storage: a folder and a bucket. What holds for one must hold for the other."""

from __future__ import annotations

import errno
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from catalog import lease
from catalog.errors import UserError
from catalog.storage import LocalFolder, ObjectStore, Storage, open_storage

Open = Callable[[], Storage]


@pytest.fixture(params=["folder", "bucket"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same empty storage again and again."""
    if request.param == "folder":
        return lambda: open_storage(str(tmp_path / "store"))
    uri, options = request.getfixturevalue("s3")
    return lambda: open_storage(uri, options)


@pytest.fixture
def storage(reopen: Open) -> Storage:
    return reopen()


# -- objects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000])
def test_what_is_written_reads_back(storage: Storage, data: bytes) -> None:
    storage.write("a/b/c.bin", memoryview(data))
    assert storage.read("a/b/c.bin") == data
    assert storage.exists("a/b/c.bin")


def test_writing_again_replaces(storage: Storage) -> None:
    storage.write("a", b"first, and longer")
    storage.write("a", b"second")
    assert storage.read("a") == b"second"


def test_a_range_is_part_of_the_object_and_ends_with_it(storage: Storage) -> None:
    storage.write("a", b"0123456789")
    assert storage.read_range("a", 3, 4) == b"3456"
    assert storage.read_range("a", 8, 10) == b"89"


def test_what_is_not_there_cannot_be_read(storage: Storage) -> None:
    storage.write("a/b", b"x")
    for name in ("nothing", "a", "a/c"):
        assert not storage.exists(name)
    with pytest.raises(FileNotFoundError):
        storage.read("nothing")


def test_create_never_replaces(storage: Storage) -> None:
    assert storage.create("a/b", b"first")
    assert not storage.create("a/b", b"second")
    assert storage.read("a/b") == b"first"


def test_of_many_who_create_at_once_one_wins_and_its_bytes_are_whole(tmp_path: Path) -> None:
    # In a folder alone: the server that stands in for a bucket does not decide such races one at a time.
    storage = LocalFolder(str(tmp_path / "store"))
    for turn in range(6):
        name, start, wins = f"race/{turn}", threading.Barrier(8), []
        texts = [b"%d" % i * (1000 * (i + 1)) for i in range(8)]

        def create(i: int, name: str = name, start: Any = start, wins: Any = wins, texts: Any = texts) -> None:
            start.wait()
            if storage.create(name, texts[i]):
                wins.append(i)

        threads = [threading.Thread(target=create, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wins) == 1
        assert storage.read(name) == texts[wins[0]]
    assert len(list(storage.list())) == 6


def test_writers_of_one_name_leave_one_whole_object(storage: Storage) -> None:
    texts = [b"%d" % i * (50_000 * (i + 1)) for i in range(6)]
    threads = [threading.Thread(target=storage.write, args=("name", text)) for text in texts * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage.read("name") in texts
    assert [name for name, _ in storage.list()] == ["name"]


@pytest.mark.parametrize("size", [0, 10, 6_000_000])
def test_an_adopted_file_moves(storage: Storage, tmp_path: Path, size: int) -> None:
    file = tmp_path / "finished"
    file.write_bytes(os.urandom(size))
    data = file.read_bytes()
    storage.adopt("shards/a.tar", file)
    assert storage.read("shards/a.tar") == data
    assert not file.exists()


def test_listing_is_sorted_has_sizes_and_keeps_to_the_prefix(storage: Storage) -> None:
    for name in ("b/2", "b/10", "ab/x", "b/c/d", "a"):
        storage.write(name, name.encode())
    assert list(storage.list()) == [("a", 1), ("ab/x", 4), ("b/10", 4), ("b/2", 3), ("b/c/d", 5)]
    assert [name for name, _ in storage.list("b/")] == ["b/10", "b/2", "b/c/d"]
    assert list(storage.list("nothing/")) == []


def test_deleting_what_is_gone_is_fine(storage: Storage) -> None:
    storage.write("a", b"x")
    storage.delete("a")
    storage.delete("a")
    assert not storage.exists("a")


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../outside"])
def test_names_cannot_leave_the_store(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="leaves the store"):
        storage.write(name, b"x")
    with pytest.raises(ValueError, match="leaves the store"):
        storage.read(name)
    with pytest.raises(ValueError, match="leaves the store"):
        list(storage.list(name))


def test_other_addresses_are_refused() -> None:
    with pytest.raises(UserError, match=r"^gs://x: only folders and s3:// addresses can hold a store$"):
        open_storage("gs://x")


# -- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["write", "create"])
def test_a_full_disk_leaves_the_old_object_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    folder = LocalFolder(str(tmp_path / "store"))
    folder.write("a", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        getattr(folder, act)("a", b"new, and longer")
    assert folder.read("a") == b"old"
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]


def test_half_written_files_are_not_listed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from catalog.storage import LocalFolder; os.fsync = lambda _: os._exit(9)\n"
        "LocalFolder(sys.argv[1]).write('a/b', b'half')"
    )
    store = tmp_path / "store"
    assert subprocess.run([sys.executable, "-c", code, str(store)], check=False).returncode == 9
    folder = LocalFolder(str(store))
    assert len(list(store.rglob("*.tmp"))) == 1
    assert list(folder.list()) == []
    assert not folder.exists("a/b")


def test_adopting_works_across_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "finished"
    file.write_bytes(b"data")
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self == file:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    folder = LocalFolder(str(tmp_path / "store"))
    folder.adopt("a", file)
    assert folder.read("a") == b"data"
    assert not file.exists()


# -- locks ------------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from dataclasses import replace
from datetime import timedelta
from catalog.storage import ObjectStore, open_storage
ObjectStore.LEASE = timedelta(seconds=float(sys.argv[2]))
with open_storage(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""
SHORT = 2.0


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ObjectStore, "LEASE", timedelta(seconds=SHORT))


def _holder(storage: Storage) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, storage.uri, str(SHORT)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **storage.options},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.usefixtures("short_lease")
def test_a_lock_is_refused_while_another_process_holds_it_and_free_once_it_is_killed(reopen: Open) -> None:
    storage = reopen()
    holder = _holder(storage)
    try:
        who = f"process {holder.pid}"
        if isinstance(storage, ObjectStore):
            who = f"{os.uname().nodename} {who}"
        with pytest.raises(UserError) as refused, storage.lock():
            pass
        assert str(refused.value) == f"{storage.uri}: in use by {who}; wait for it or stop it"
    finally:
        _end(holder)
    started = time.monotonic()
    with storage.lock():
        assert time.monotonic() - started < 3 * SHORT


def test_a_lock_is_seen_while_it_is_held_and_no_longer(reopen: Open) -> None:
    storage = reopen()
    assert not storage.is_locked()
    with storage.lock():
        assert reopen().is_locked()
    assert not storage.is_locked()


@pytest.mark.usefixtures("short_lease")
def test_a_lock_given_back_is_free_at_once(reopen: Open) -> None:
    for _ in range(3):
        started = time.monotonic()
        with reopen().lock():
            pass
        assert time.monotonic() - started < SHORT


@pytest.mark.usefixtures("short_lease")
def test_a_lock_is_free_again_after_an_error(reopen: Open) -> None:
    with pytest.raises(ZeroDivisionError), reopen().lock():
        raise ZeroDivisionError
    with reopen().lock():
        pass


@pytest.mark.usefixtures("short_lease")
def test_a_lease_outlives_its_length_while_it_is_held(s3: tuple[str, dict[str, str]]) -> None:
    storage = open_storage(*s3)
    with storage.lock():
        time.sleep(2 * SHORT)
        with pytest.raises(UserError, match="in use by"), open_storage(*s3).lock():
            pass


@pytest.mark.usefixtures("short_lease")
def test_of_two_who_find_a_dead_lease_one_takes_it(
    s3: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(*s3)
    _end(_holder(storage))
    found_dead, over, outcomes = threading.Barrier(2), threading.Event(), []
    watch = lease._watch

    def together(*given: Any) -> str | None:
        etag = watch(*given)
        found_dead.wait()
        return etag

    one_at_a_time, replace = threading.Lock(), lease._Lease.replace

    def in_turn(self: lease._Lease, etag: str) -> bool:
        # The server that stands in for a bucket does not decide races; what counts is that the second one loses.
        with one_at_a_time:
            return replace(self, etag)

    def take() -> None:
        try:
            with open_storage(*s3).lock():
                outcomes.append("took")
                over.wait(10)
        except UserError as error:
            outcomes.append(str(error))
            over.set()

    monkeypatch.setattr(lease, "_watch", together)
    monkeypatch.setattr(lease._Lease, "replace", in_turn)
    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [f"{storage.uri}: another run took the store first; try again", "took"]


def _work_for_long(first: Callable[[], object]) -> None:
    first()
    time.sleep(4 * SHORT)
    pytest.fail("a holder without a lease went on")


@pytest.mark.usefixtures("short_lease")
def test_a_renewal_whose_answer_was_lost_is_no_lost_lease(s3: tuple[str, dict[str, str]]) -> None:
    storage = open_storage(*s3)
    with storage.lock():
        storage.write("lock", orjson.dumps({**orjson.loads(storage.read("lock")), "beat": 999}))
        time.sleep(SHORT)
    with storage.lock():
        pass


@pytest.mark.usefixtures("short_lease")
def test_who_lost_a_lease_is_stopped_and_leaves_the_new_holder_alone(s3: tuple[str, dict[str, str]]) -> None:
    storage = open_storage(*s3)
    usurper = b'{"holder":"somebody else","token":"other","beat":0}'

    def usurp() -> None:
        # The stand-in for a bucket may let a renewal through that it was deciding on when this was written.
        while storage.read("lock") != usurper:
            storage.write("lock", usurper)
            time.sleep(SHORT / 4)

    with pytest.raises(UserError) as lost, storage.lock():
        _work_for_long(usurp)
    assert str(lost.value) == f"{storage.uri}: the lock was lost to somebody else; run again once they are done"
    assert storage.read("lock") == usurper


@pytest.mark.usefixtures("short_lease")
def test_a_holder_that_cannot_reach_the_store_stops_within_a_lease(
    s3: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(*s3)

    def unreachable(*_: Any) -> bool:
        raise OSError("no route to host")

    with pytest.raises(UserError, match=r"the lock was lost to "), storage.lock():
        _work_for_long(lambda: monkeypatch.setattr(lease._Lease, "replace", unreachable))


class _Silence(http.server.BaseHTTPRequestHandler):
    """A server that takes requests and never answers."""

    def handle(self) -> None:
        time.sleep(4 * SHORT)


@pytest.mark.usefixtures("short_lease")
def test_a_store_that_no_longer_answers_ends_the_work_within_a_lease(
    s3: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retries of the store's client would keep the holder from learning what another run finds out after a lease."""
    storage = open_storage(*s3)
    assert isinstance(storage, ObjectStore)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Silence)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    deaf = {**storage.options, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}
    elsewhere = ObjectStore(storage.uri, deaf)._impatient()
    put = lease._Lease._put

    def lost_on_the_way(self: lease._Lease, mode: Any) -> None:
        put(replace(self, store=elsewhere), mode)

    try:
        with pytest.raises(UserError, match=r"the lock was lost to "), storage.lock():
            _work_for_long(lambda: monkeypatch.setattr(lease._Lease, "_put", lost_on_the_way))
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.usefixtures("short_lease")
def test_an_interrupt_by_a_person_stays_one(s3: tuple[str, dict[str, str]]) -> None:
    with pytest.raises(KeyboardInterrupt), open_storage(*s3).lock():
        raise KeyboardInterrupt
    with open_storage(*s3).lock():
        pass
