"""Files: how they are named, written whole or not at all, locked, and sealed against damage."""

import _thread
import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, NamedTuple

import psutil  # type: ignore[import-untyped]

PACKAGE = Path(__file__).resolve().parent
# A wheel carries conf/ and experiments/ inside the package; in a checkout they lie beside it.
ROOT = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent
# Of a name; file systems allow 255 bytes, and suffixes follow.
MOST_CHARACTERS = 120
PARTIAL = ".motionexp-partial-"
DAY = 86_400.0  # seconds
MOST_OF_LOCK = 4096  # bytes
BLANK_SEAL = "sha256:" + "0" * 64
"""Stands in the content of a file that `seal` seals."""
_SEAL = re.compile(rb"sha256:([0-9a-f]{64})")


def version() -> str:
    """The version of this package: as installed, or of the checkout that is run without installing."""
    try:
        return metadata.version("motionexp")
    except metadata.PackageNotFoundError:
        return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def file_name(text: str) -> str:
    """A name out of data as the name of a file: at most `MOST_CHARACTERS` letters, digits, dots, - and _.

    A text of this form stays as it is. Of another text it is the part that can stay, a plus sign and a hash
    of the whole text, so that two texts never give one name.
    """
    name = plain_name(text)
    if name == text != "" and len(name) <= MOST_CHARACTERS:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[: MOST_CHARACTERS - len(digest) - 1]}+{digest}"


def plain_name(text: str) -> str:
    """The ASCII letters, digits, dots, - and _ of a text; whatever lies between them is one dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")


def user_path(text: str | Path) -> Path:
    """The path that a user names, where `~` and `~NAME` are homes; `~NAME` of nobody stays as it is."""
    return Path(os.path.expanduser(text))  # Path.expanduser raises RuntimeError for it


def existing_part(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists. Raises OSError or ValueError for no name."""
    folder = folder.absolute()
    # The root exists, so that this ends.
    while True:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(folder)  # a link to nothing exists too: no folder can be made in its place
            return folder
        folder = folder.parent


# A lock is a file that exists. Neither flock nor a clock is trusted: on shared file systems flock may lock
# nothing or fail, and the clocks of hosts differ and jump. `link` fails on NFS and Lustre as on a local disk
# if the name exists, for the server alone decides it; its answer may get lost, so that the number of links is
# looked at. The owner changes the file's time every BEAT seconds. The lock of a dead owner is taken over: on
# this machine if no such process runs, of another one if the file does not change for LEASE seconds, which
# the waiting process counts by its monotonic clock. NFS may show a time a minute late: LEASE is longer.
# (filelock.SoftFileLease takes over by exchanging two names, which NFS refuses; flufl.lock trusts clocks.)
BEAT = 15.0
LEASE = 150.0
UNREADABLE = 2.0
"""Seconds after which a lock without an owner is free: of a former version, or half written."""


class _Owner(NamedTuple):
    """Who has a lock: what the lock's file holds.

    `machine` names what shares process ids, `start` tells processes of one id apart, `token` locks.
    """

    host: str
    machine: str
    pid: int
    start: str
    token: str

    @classmethod
    def new(cls) -> "_Owner":
        """This process, for one more lock."""
        pid = os.getpid()
        return cls(socket.gethostname(), _machine(), pid, _start(pid), secrets.token_hex(8))

    def is_gone(self) -> bool:
        """Whether the process is dead, or left this lock; of a process of this machine."""
        return self not in _HELD if self.pid == os.getpid() else _start(self.pid) != self.start


_HELD: dict[_Owner, Path | None] = {}
"""The locks of this process, and those that it waits for, without a path."""


@functools.cache
def _machine() -> str:
    """Names what shares process ids: one boot of a machine, and on Linux a container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{socket.gethostname()}-{uuid.getnode():x}"


def _start(pid: int) -> str:
    """When a process started, by the kernel's count where there is one; empty: there is no such process."""
    with contextlib.suppress(OSError, IndexError):
        # The name in brackets may hold spaces; the state follows it, and 19 fields later the start in ticks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    with contextlib.suppress(psutil.Error):
        return str(psutil.Process(pid).create_time())
    return ""


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds a lock: one thread of one process at a time. The lock of a dead owner is taken over.

    `on_wait` is called first if another process holds it. A process that loses the lock, because its machine
    stood still for longer than `LEASE`, is interrupted.
    """
    path, owner = path.absolute(), _Owner.new()
    _HELD[owner] = None
    try:
        watch, pause = _Watch(path), 0.01
        while not _create(path, owner):
            if watch.is_dead():
                watch.remove()
                continue
            if on_wait is not None:
                on_wait()
                on_wait = None
            time.sleep(pause)
            pause = min(0.5, 1.5 * pause)
        _HELD[owner] = path
        _keep_alive()
        yield
    finally:
        try:
            # First the file: other threads take an owner that is not held for a dead one.
            if _read_owner(path) == owner:
                path.unlink(missing_ok=True)
        finally:
            del _HELD[owner]


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock, as far as one look tells: of another host by the age of the file."""
    owner = _read_owner(path)
    if owner is not None and owner.machine == _machine():
        return not owner.is_gone()
    return owner is not None and time.time() - path.stat().st_mtime < 10 * LEASE


def _create(path: Path, owner: _Owner) -> bool:
    """Makes the file of a lock with its content; False if the name exists."""
    new, content = path.with_name(_partial_name() + owner.token), json.dumps(owner._asdict()).encode()
    try:
        new.write_bytes(content)
        try:
            os.link(new, path)
        except OSError as error:
            if new.stat().st_nlink == 2:
                return True
            if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):  # no hard links
                with open(path, "xb") as file:
                    file.write(content)
            elif not isinstance(error, FileExistsError):
                raise
            else:
                return False
        return True
    except FileExistsError:
        return False
    finally:
        new.unlink(missing_ok=True)


def _read_owner(path: Path) -> _Owner | None:
    """The owner of a lock; None: there is no lock, or its content names none."""
    try:
        with open(path, "rb") as file:
            owner = _Owner(**json.loads(file.read(MOST_OF_LOCK)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (owner.host, owner.machine, owner.start, owner.token)
    return owner if type(owner.pid) is int and all(type(text) is str for text in texts) else None


class _Watch:
    """Looks at the lock of another owner again and again, until it is dead.

    Attributes:
        path: of the lock.
        owner: at the last look.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner: _Owner | None = None
        self._seen: tuple[object, float] | None = None  # the state of the file, and since when
        self._guard: _Watch | None = None

    def is_dead(self) -> bool:
        """Whether the lock has to be taken over."""
        try:
            with open(self.path, "rb") as file:  # which makes NFS ask the server for the time
                status = os.fstat(file.fileno())
        except OSError:
            return False
        self.owner, now = _read_owner(self.path), time.monotonic()
        state = status.st_mtime_ns, status.st_ino, self.owner
        if self._seen is None or self._seen[0] != state:
            self._seen = state, now
        if self.owner is not None and self.owner.machine == _machine():
            return self.owner.is_gone()
        return now - self._seen[1] > (UNREADABLE if self.owner is None else LEASE)

    def remove(self) -> None:
        """Remove the dead owner's lock. A second lock decides who does, or a new owner's could be removed."""
        path, owner = self.path.with_name(f"{self.path.name}.break"), _Owner.new()
        # One thread of a process at a time: two could take a killed owner's second lock for dead, and one
        # remove the new one. Between processes a kill in the moment of a removal leaves that chance.
        with _BREAK:
            _HELD[owner] = None
            try:
                if _create(path, owner):
                    if _read_owner(self.path) == self.owner:
                        self.path.unlink(missing_ok=True)
                    path.unlink(missing_ok=True)
                    return
            finally:
                del _HELD[owner]
            # Its owner has it for a moment only, or was killed in that moment.
            self._guard = self._guard or _Watch(path)
            if self._guard.is_dead():
                path.unlink(missing_ok=True)
        time.sleep(0.01)


def _keep_alive() -> None:
    """Starts the thread that changes the times of this process's locks; a forked process has none yet."""
    with _START:
        if not _THREADS or not _THREADS[-1].is_alive():
            _THREADS.append(threading.Thread(target=_beat, name="locks", daemon=True))
            _THREADS[-1].start()


_THREADS: list[threading.Thread] = []
_START = threading.Lock()
_BREAK = threading.Lock()


def _beat() -> None:
    missed: set[_Owner] = set()
    while True:
        time.sleep(BEAT)
        for owner, path in list(_HELD.items()):
            if path is None or owner.pid != os.getpid():
                continue
            try:
                is_ours = _read_owner(path) == owner
                if is_ours:
                    os.utime(path)
            except OSError:
                continue  # a server that does not answer for a while
            if is_ours or owner not in missed:  # twice, for the lock may be left just now
                missed = missed - {owner} if is_ours else missed | {owner}
            elif owner in _HELD:
                print(f"{path}: another process took over this lock", file=sys.stderr, flush=True)
                missed.discard(owner)
                handled = [one for one in (signal.SIGTERM, signal.SIGINT) if callable(signal.getsignal(one))]
                _thread.interrupt_main(*handled[:1])


def write_whole(path: Path, content: bytes | bytearray) -> None:
    """Writes a file whole or not at all: a reader finds the old one or the new one, never a part.

    Raises OSError with the path where it cannot be written.
    """
    remove_leftovers(path.parent)
    try:
        with _partial_file(path.parent) as file:
            file.write(content)
            file.flush()
            # Else a crash after the rename may leave an empty file under the right name.
            os.fsync(file.fileno())
            # tempfile makes files that only their owner reads.
            os.fchmod(file.fileno(), 0o644)
            os.replace(file.name, path)
    except OSError as error:
        # The name of the partial file would say nothing to a user.
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def _partial_file(folder: Path) -> Iterator[IO[bytes]]:
    """A new file whose name says which process writes it; it is deleted if an error comes."""
    # In the target's folder, because a rename across file systems copies.
    file = tempfile.NamedTemporaryFile(dir=folder, prefix=_partial_name(), delete=False)  # noqa: SIM115
    try:
        with file:
            yield file
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file.name)
        raise


def _partial_name() -> str:
    return f"{PARTIAL}{_machine_digest()}-{os.getpid()}-"


@functools.cache
def _machine_digest() -> str:
    return hashlib.sha256(_machine().encode()).hexdigest()[:8]


def remove_leftovers(folder: Path, *, below: bool = False) -> None:
    """Deletes partial files that a killed process left in a folder, or also in the folders below it.

    Those of another machine, whose processes nobody sees here, stay for a day.
    """
    for path in (folder.rglob if below else folder.glob)(f"{PARTIAL}*"):
        machine, _, rest = path.name.removeprefix(PARTIAL).partition("-")
        pid = rest.partition("-")[0]
        # Another user's file, or one on a read-only disk, stays.
        with contextlib.suppress(OSError):
            is_dead = machine == _machine_digest() and pid.isdecimal() and not _start(int(pid))
            if is_dead or _clock(folder) - path.stat().st_mtime > DAY:
                path.unlink()


def _clock(folder: Path) -> float:
    """The time by the clock that gives files in a folder their times."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".motionexp-clock-") as file:
        return os.fstat(file.fileno()).st_mtime


def sorted_metadata(content: bytes) -> bytes:
    """A safetensors file with its metadata in alphabetical order, which its library leaves to chance."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[end:]


def seal(content: bytes | bytearray) -> bytearray:
    """The content with its sha256 in place of `BLANK_SEAL`, which it contains."""
    sealed, start = bytearray(content), content.index(BLANK_SEAL.encode())
    digest = hashlib.sha256(content).hexdigest().encode()
    sealed[start : start + len(BLANK_SEAL)] = b"sha256:" + digest
    return sealed


def read_sealed(path: Path) -> bytes | None:
    """The content of a file that `seal` sealed; None if it has no seal, as files of former versions.

    Raises ValueError if the content is not what was sealed.
    """
    content = path.read_bytes()
    if (match := _SEAL.search(content)) is None:
        return None
    digest, view = hashlib.sha256(), memoryview(content)
    for part in (view[: match.start(1)], b"0" * 64, view[match.end(1) :]):
        digest.update(part)
    if digest.hexdigest().encode() != match[1]:
        raise ValueError("its content is not what was written")
    return content
