"""Files that are written whole or not at all, by one process at a time."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# A wheel carries conf/ and experiments/ inside the package; in a checkout they lie beside it.
ROOT = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent


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


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: a reader finds the old one or the new one, never a part."""
    # In the target's folder, because a rename across file systems copies.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            # Else a crash after the rename may leave an empty file under the right name.
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner reads.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
