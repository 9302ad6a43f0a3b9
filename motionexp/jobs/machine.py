"""What a job needs of the machine, and what it says where disk or memory do not suffice. Imports no torch."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from motionexp.config.schema import JobConfig
from motionexp.errors import InputError

DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)
# PyTorch raises RuntimeError, of several texts, on CPUs and in the libraries of GPUs.
MEMORY_TEXTS = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")


class DiskError(InputError):
    """The output folder became full or unwritable while a job ran."""


@contextmanager
def clear_disk_errors(output: str) -> Iterator[None]:
    """Turn a full or unwritable disk into one clear error. Nothing is lost: files are written whole."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise DiskError(
            f"{error.filename or output}: cannot be written ({os.strerror(error.errno)}); free space or"
            " choose another output=. Finished results are kept, and the same command continues from them"
        ) from error


@contextmanager
def clear_memory_errors(advice: str) -> Iterator[None]:
    """Raise MemoryError with advice, as `smaller` gives it, in place of PyTorch's and numpy's errors."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        size = re.search(r"allocate (\d[\d.]* ?\w+)", str(error))
        needed = f" ({size[1]} more were needed)" if size else ""
        raise MemoryError(f"out of memory{needed}: {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether main memory or a GPU's memory was too small."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(text in str(error) for text in MEMORY_TEXTS)


def smaller(cfg: JobConfig) -> str:
    """The settings that make a job need less memory than it does now, in words."""
    settings = ["mode=low_memory"] if cfg.mode != "low_memory" else []
    settings += ["batch_size=1"] if cfg.batch_size > 1 and cfg.adapter is None and cfg.probe is None else []
    settings += ["a smaller train_together="] if cfg.train_together > 1 else []
    settings += ["a smaller memory_limit="] if cfg.memory_limit is not None else []
    settings += ["fewer frames="] if cfg.model.frame_range is not None else []
    hint = "" if cfg.dry_run else "; dry_run=true prints the memory of each phase"
    return f"try {', '.join(settings or ['another model='])}{hint}"
