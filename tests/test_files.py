"""Names out of data, files of killed processes, seals, and signals. No torch."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from motionexp.errors import Stopped, stoppable
from motionexp.files import (
    BLANK_SEAL,
    MOST_CHARACTERS,
    PARTIAL,
    file_name,
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


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_else(tmp_path):
    write_whole(tmp_path / "rows.jsonl", b"old")
    dead, alive = tmp_path / f"{PARTIAL}dead", tmp_path / f"{PARTIAL}alive"
    for path in (dead, alive):
        path.write_bytes(b"half a ro")
    with open(alive, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_whole(tmp_path / "rows.jsonl", b"new")
        assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", alive.name}
    assert (tmp_path / "rows.jsonl").read_bytes() == b"new"
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / dead.name).write_bytes(b"")
    remove_leftovers(tmp_path, below=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["media", "rows.jsonl"]


def test_a_writer_whose_partial_file_was_taken_for_a_leftover_makes_another(tmp_path, monkeypatch):
    lock, taken = fcntl.flock, []

    def late(file, operation):
        if not taken:
            taken.append(file.name)
            os.unlink(file.name)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    write_whole(tmp_path / "a", b"content")
    assert taken
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


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


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
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
