"""A line on stderr about work that takes more than a second."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

LOADING = "loading torch, diffusers and transformers ..."
PATIENCE = 1.0  # seconds


@contextmanager
def announced(work: str) -> Iterator[None]:
    """Print what goes on, if it is still going on after a second."""
    timer = Timer(PATIENCE, lambda: print(work, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
