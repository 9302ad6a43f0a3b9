"""Files: how they are named, written whole or not at all, locked, and sealed against damage."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import IO

PACKAGE = Path(__file__).resolve().parent
# A wheel carries conf/ and experiments/ inside the package; in a checkout they lie beside it.
ROOT = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent
# Of a name; file systems allow 255 bytes, and suffixes follow.
MOST_CHARACTERS = 120
PARTIAL = ".motionexp-partial-"
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


def path_below(folder: Path, name: str) -> Path:
    """The path of a name out of a file, which must lead nowhere else than below the folder.

    Raises TypeError or ValueError for another name.
    """
    path = PurePosixPath(name)
    if any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise ValueError("a name is longer than a file's may be")
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"{name} leads out of {folder}")
    return folder / path


def existing_part(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists. Raises OSError or ValueError for no name."""
    folder = folder.absolute()
    # The root exists, so that this ends.
    while True:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(folder)  # a link to nothing exists too: no folder can be made in its place
            return folder
        folder = folder.parent


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds a lock file: one process at a time. The system drops it when the process ends.

    `on_wait` is called first if another process holds it.
    """
    with open(path, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


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
    """A new file, locked while this process writes it, and deleted if an error comes."""
    while True:
        # In the target's folder, because a rename across file systems copies.
        file = tempfile.NamedTemporaryFile(dir=folder, prefix=PARTIAL, delete=False)  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            break
        file.close()  # another process took it for a leftover before the lock
    try:
        with file:
            yield file
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file.name)
        raise


def remove_leftovers(folder: Path, *, below: bool = False) -> None:
    """Deletes partial files that a killed process left in a folder, or also in the folders below it."""
    for path in (folder.rglob if below else folder.glob)(f"{PARTIAL}*"):
        # A living process holds the lock; another user's file, or one on a read-only disk, stays.
        with contextlib.suppress(OSError), open(path, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


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
