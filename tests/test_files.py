"""Names out of data, files of killed processes, seals, and signals. No torch."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from motionexp import files
from motionexp.errors import Stopped, stoppable
from motionexp.files import (
    BLANK_SEAL,
    MOST_CHARACTERS,
    PARTIAL,
    file_name,
    is_locked,
    locked,
    read_sealed,
    remove_leftovers,
    seal,
    sorted_metadata,
    write_whole,
)
from tests.support.hostile_names import HOSTILE_NAMES

# names


@pytest.mark.parametrize("name", ["01-wander-cyan-square", "dj_shadow", "A.b", "x" * MOST_CHARACTERS])
def test_a_plain_name_stays(name):
    assert file_name(name) == name


def test_any_other_text_becomes_a_name_that_no_other_text_has(tmp_path):
    names = [file_name(text) for text in HOSTILE_NAMES]
    assert len(set(names) | set(HOSTILE_NAMES)) == len(names) + len(HOSTILE_NAMES)
    for name in names:
        assert (tmp_path / name).resolve().parent == tmp_path
        assert len(name.encode()) <= MOST_CHARACTERS
        assert name.isascii()
        assert name.isprintable()
        write_whole(tmp_path / f"{name}.series.json", b"")
    assert len(list(tmp_path.iterdir())) == len(names)


# leftovers


@pytest.fixture
def dead_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path, dead_process):
    write_whole(tmp_path / "rows.jsonl", b"old")
    here, day = files._machine_digest(), files.DAY
    dead, alive = f"{PARTIAL}{here}-{dead_process}-x", f"{PARTIAL}{here}-{os.getpid()}-x"
    elsewhere, old, former = f"{PARTIAL}0123-{dead_process}-x", f"{PARTIAL}0123-1-x", f"{PARTIAL}y"
    for name in (dead, alive, elsewhere, old, former):
        (tmp_path / name).write_bytes(b"half a ro")
    now = (tmp_path / elsewhere).stat().st_mtime
    for name in (old, former):
        os.utime(tmp_path / name, (now - day - 60,) * 2)
    write_whole(tmp_path / "rows.jsonl", b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", alive, elsewhere}
    assert (tmp_path / "rows.jsonl").read_bytes() == b"new"
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / dead).write_bytes(b"")
    remove_leftovers(tmp_path, below=True)
    assert {path.name for path in tmp_path.rglob("*")} == {"media", "rows.jsonl", alive, elsewhere}


# locks

HOLDER = """
import sys, time
from pathlib import Path
from motionexp.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock."""
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_living_owner_is_waited_for_and_a_dead_one_is_not(tmp_path, holder):
    path, waited = tmp_path / "lock", []

    def kill() -> None:
        waited.append(True)
        assert is_locked(path)
        # Not once it has ended, but as long as nobody has asked for its exit code.
        threading.Timer(0.3, holder.kill).start()

    start = time.monotonic()
    with locked(path, kill):
        assert waited
        assert time.monotonic() - start >= 0.3
        assert [file.name for file in tmp_path.iterdir()] == ["lock"]
    assert list(tmp_path.iterdir()) == []
    assert not is_locked(path)


def foreign(path: Path, **changes: object) -> None:
    """A lock of a process on another machine."""
    owner = files._Owner.new()._replace(machine="elsewhere", token="t")._replace(**changes)
    path.write_text(json.dumps(owner._asdict()))


@pytest.mark.parametrize("shift", [0, -1e6, 1e6])
def test_a_dead_owner_elsewhere_is_taken_over_whatever_the_clocks_say(shift, tmp_path, monkeypatch):
    path = tmp_path / "lock"
    monkeypatch.setattr(files, "LEASE", 0.4)
    foreign(path)
    os.utime(path, (time.time() + shift,) * 2)
    beats = 5

    def beat() -> None:
        """The owner changes the time of its lock, by a clock that is wrong and jumps."""
        for number in range(beats):
            time.sleep(0.2)
            os.utime(path, (time.time() + shift * (-1) ** number,) * 2)

    thread, start = threading.Thread(target=beat), time.monotonic()
    thread.start()
    with locked(path):
        # It lived for a second, and was silent for the rest.
        assert beats * 0.2 + 0.4 <= time.monotonic() - start < 10
    thread.join()
    assert list(tmp_path.iterdir()) == []


def test_a_process_of_the_same_id_that_started_later_is_another_one(tmp_path, holder):
    path = tmp_path / "lock2"
    for owner in (
        {"pid": holder.pid, "start": "1"},
        {"pid": os.getpid()},
    ):  # the second left without a release
        foreign(path, machine=files._machine(), **owner)
        assert not is_locked(path)
        with locked(path, pytest.fail):
            assert is_locked(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "1"}', b"\xff" * 9])
def test_a_lock_without_an_owner_is_free_after_a_moment(content, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UNREADABLE", 0.05)
    (tmp_path / "lock").write_bytes(content)  # as a former version left it
    assert not is_locked(tmp_path / "lock")
    with locked(tmp_path / "lock"):
        pass


def test_one_thread_at_a_time_holds_a_lock_that_a_dead_process_left(tmp_path, dead_process):
    path, holding, most = tmp_path / "lock", [], []
    foreign(path, machine=files._machine(), pid=dead_process)
    foreign(path.with_name("lock.break"), machine=files._machine(), pid=dead_process)

    def hold(_: int) -> None:
        with locked(path):
            holding.append(1)
            most.append(len(holding))
            time.sleep(0.001)
            holding.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(40)))
    assert most == [1] * 40
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_being_left_is_not_that_of_a_dead_owner(tmp_path, monkeypatch):
    path, read, looks = tmp_path / "lock", files._read_owner, []

    def look_of_another_thread(lock):
        monkeypatch.setattr(files, "_read_owner", read)
        looks.append(files._Watch(path).is_dead())
        return read(lock)

    with locked(path):
        monkeypatch.setattr(files, "_read_owner", look_of_another_thread)
    assert looks == [False]
    assert list(tmp_path.iterdir()) == []
    assert path not in files._HELD.values()


def test_a_lost_answer_and_a_file_system_without_links(tmp_path, monkeypatch):
    link = os.link

    def lost(source, target):
        link(source, target)
        raise FileExistsError  # the server did it, and was asked again

    def refused(source, target):
        raise OSError(errno.EPERM, "no links here")

    for answer in (lost, refused):
        monkeypatch.setattr(os, "link", answer)
        with locked(tmp_path / "lock", pytest.fail):
            assert not files._create(tmp_path / "lock", files._Owner.new()) or answer is lost
    assert list(tmp_path.iterdir()) == []


def test_a_process_whose_lock_was_taken_over_is_interrupted(tmp_path, monkeypatch, capsys):
    path, times = tmp_path / "lock", []
    monkeypatch.setattr(files, "BEAT", 0.05)
    monkeypatch.setattr(files, "_THREADS", [])  # another thread, with the short time

    def work() -> None:
        with locked(path):
            for number in range(500):
                times.append(path.stat().st_mtime_ns)
                if number == 20:
                    foreign(path)
                time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert len({*times[:20]}) > 2  # it said that it lives
    assert "lock" in capsys.readouterr().err
    assert path.exists()  # it is the other owner's


def test_an_error_names_the_file_that_was_to_be_written(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "none" / "a.json", b"")
    assert caught.value.filename == str(tmp_path / "none" / "a.json")


# seals


def test_no_flipped_bit_of_a_sealed_file_passes(tmp_path):
    path, content = tmp_path / "sealed", b"tensors " + BLANK_SEAL.encode() + b" and more"
    path.write_bytes(content)
    assert seal(content)[:8] == b"tensors "
    whole = bytes(seal(content))
    path.write_bytes(whole)
    assert read_sealed(path) == whole
    refused = 0
    for place in range(0, 8 * len(whole), 3):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert read_sealed(path) is None  # a file without a seal is never used
        except ValueError:
            refused += 1
    assert refused > 2 * (len(whole) - len(BLANK_SEAL))


def test_equal_metadata_are_equal_bytes():
    # The library writes metadata in the order of a hash map, which differs from call to call.
    tensors, entries = {"a": np.arange(3.0)}, [(f"key {number}", "Ünï" * number) for number in range(8)]
    files = {sorted_metadata(save(tensors, dict(entries))) for _ in range(8)}
    (content,) = files
    assert np.array_equal(load(content)["a"], tensors["a"])
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"].items()) == entries


# signals


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        *((signum, 128 + signum) for signum in (signal.SIGUSR1, signal.SIGUSR2)),
    ],
)
def test_a_signal_ends_a_run_once_with_its_code(signum, code):
    saved = []

    @stoppable()
    def run() -> None:
        try:
            os.kill(os.getpid(), signum)
            time.sleep(1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second signal does not interrupt the saving
            time.sleep(0.01)
            saved.append(True)

    with pytest.raises(Stopped) as caught:
        run()
    assert saved
    assert (caught.value.code, caught.value.signum) == (code, signum)
    assert signal.getsignal(signum) == signal.SIG_DFL


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("signum", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)])
def test_a_signal_within_a_destructor_is_not_lost(signum, kind):
    class Bar:
        def __del__(self):
            signal.raise_signal(signum)

    @stoppable()
    def run() -> None:
        bar = Bar()
        del bar
        for _ in range(500):
            time.sleep(0.01)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(kind):
            run()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_closed_pipe_has_its_code_and_a_line(tmp_path):
    root = Path(__file__).parents[1]
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, root / "run.py", "--help"],
        cwd=root,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    (line,) = result.stderr.decode().splitlines()
    assert (result.returncode, line.split(":")[0]) == (141, "error")
