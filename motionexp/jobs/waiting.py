"""A line on stderr about work that takes more than a second."""

import atexit
import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

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


@contextmanager
def loading_libraries() -> Iterator[None]:
    """Import libraries without looking for garbage meanwhile, nor among their objects later.

    They are a million objects, which all stay: looking through them takes a third of a dry run's CPU time.
    """
    if "diffusers" in sys.modules:  # by an earlier job, whose tensors are no part of the libraries
        yield
        return
    gc.disable()
    try:
        with announced("loading torch, diffusers and transformers ..."), without_triton():
            yield
    finally:
        gc.freeze()
        if "triton" in sys.modules:
            atexit.register(gc.unfreeze)  # at the end of the process it reports what was not freed
        gc.enable()


@contextmanager
def without_triton() -> Iterator[None]:
    """Import no triton, which torch loads if it can, on a machine without the GPU that it compiles for."""
    import torch

    if torch.cuda.is_available() or "triton" in sys.modules:
        yield
        return
    # It warns that triton is not there.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    sys.modules["triton"] = None  # type: ignore[assignment]  # `import triton` says that it is not installed
    try:
        yield
    finally:
        del sys.modules["triton"]
