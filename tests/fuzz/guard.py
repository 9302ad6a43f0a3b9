"""What a case may not do: write outside its folder, run code, use the network, take long or much memory."""

import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fuzz.damage import MODULE

SECONDS = 5.0
"""Of the processor, for one case."""
MEMORY = 1_500_000_000
"""Bytes that a process may take beyond what it had before the first case."""
GROWTH = 600_000_000
"""Bytes by which one case may raise the peak of the process."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
RUNS = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("os.startfile", "pickle.find_class", "ctypes.dlopen", "webbrowser.open", "urllib.Request"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"),
)
CHANGES = (
    *("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    *("os.chown", "os.utime", "os.setxattr", "os.removexattr", "shutil.rmtree", "shutil.move"),
)
# Modules of Python that do something when they are imported.
ACTING = {"antigravity", "this", "idlelib", "turtledemo", "__hello__"}


class Escape(BaseException):
    """A case tried what it may not do. No `except Exception` catches it."""


class OutOfTime(BaseException):
    """A case took more than `SECONDS` of the processor."""


class Guard:
    """Watches one process by Python's audit events, which no code can switch off."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.escapes: list[str] = []
        self._roots: set[str] = set()
        sys.addaudithook(self._event)

    @contextmanager
    def within(self, folder: Path) -> Iterator[None]:
        """Allow writing in `folder` alone, and `SECONDS` of the processor, until the block is left."""
        # What was imported before, or is Python's, is no code of a case; threads have no signals.
        self._roots = {name.partition(".")[0] for name in list(sys.modules)} | sys.stdlib_module_names
        self._roots -= ACTING | {MODULE}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        signal.signal(signal.SIGPROF, _out_of_time)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        self.folder, self.escapes = folder.resolve(), []
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.folder = None
        if self.escapes:
            raise Escape(self.escapes[0])
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        if sys.platform == "linux" and growth > GROWTH:
            raise Escape(f"took {growth / 1e6:.0f} MB more than any case before")

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in RUNS:
            self._refuse(event, arguments)
        elif event == "import":
            root = str(arguments[0]).partition(".")[0]
            if root not in self._roots:
                self._refuse(event, arguments[:1])
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITES and not self._is_inside(path):
                self._refuse(event, (path,))
        elif event in CHANGES:
            # A path below an open folder comes with its number as the last argument.
            below = isinstance(arguments[-1], int) and arguments[-1] >= 0 and event != "os.mkdir"
            paths = [part for part in arguments if isinstance(part, str | bytes | os.PathLike)]
            paths = paths[1:] if event == "os.symlink" else paths  # what a link leads to is not changed
            if not below and not all(self._is_inside(path, of_link=True) for path in paths):
                self._refuse(event, arguments)

    def _is_inside(self, path: Any, *, of_link: bool = False) -> bool:
        """Whether a path, or with `of_link` the link that it may be, lies in the folder."""
        if isinstance(path, int) or path is None:
            return True  # a file that is open already
        folder, self.folder = self.folder, None  # resolving is no event of the case
        try:
            text = os.path.abspath(os.fsdecode(path))
            head, name = os.path.split(text)
            place = os.path.join(os.path.realpath(head), name) if of_link else os.path.realpath(text)
            return f"{place}{os.sep}".startswith(f"{folder}{os.sep}") or text == os.devnull
        except ValueError:
            return True  # a text with NUL, of which no file can be opened
        finally:
            self.folder = folder

    def _refuse(self, event: str, arguments: tuple[Any, ...]) -> None:
        self.escapes.append(f"{event} {arguments!r:.200}")
        raise Escape(self.escapes[-1])


def _out_of_time(*_: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        raise OutOfTime(f"more than {SECONDS:g} s of the processor")


def limit_memory() -> None:
    """Let this process take `MEMORY` bytes more than it has; beyond it there is a MemoryError."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
