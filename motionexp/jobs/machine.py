"""What a job needs of the machine, and what it says where disk or memory do not suffice. Imports no torch."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from motionexp.config.schema import JobConfig
from motionexp.errors import InputError

DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)
FILES_ERRORS = (errno.EMFILE, errno.ENFILE)
# PyTorch raises RuntimeError, of several texts, on CPUs and in the libraries of GPUs.
MEMORY_TEXTS = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")


class DiskError(InputError):
    """The output folder became full or unwritable while a job ran, or no more files can be opened."""


class OutOfMemory(MemoryError):
    """Main memory or a GPU's memory was too small; the message says what to set."""


@contextmanager
def clear_disk_errors(output: str) -> Iterator[None]:
    """Turn a full or unwritable disk, or too many open files, into one clear error.

    Nothing is lost: files are written whole.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FILES_ERRORS:
            raise DiskError(
                f"{error.filename or output}: cannot be opened ({os.strerror(error.errno)}); raise the"
                " limit, as by `ulimit -n 4096`. Finished results are kept, and the same command continues"
            ) from error
        if error.errno not in DISK_ERRORS:
            raise
        raise DiskError(
            f"{error.filename or output}: cannot be written ({os.strerror(error.errno)}); free space or"
            " choose another output=. Finished results are kept, and the same command continues from them"
        ) from error


@contextmanager
def clear_memory_errors(advice: str) -> Iterator[None]:
    """Raise OutOfMemory with advice, as `smaller` gives it, in place of PyTorch's and numpy's errors."""
    try:
        yield
    except OutOfMemory:
        raise
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        size = re.search(r"allocate (\d[\d.]* ?\w+)", str(error))
        needed = f" ({size[1]} more were needed)" if size else ""
        raise OutOfMemory(f"out of memory{needed}: {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether main memory or a GPU's memory was too small."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(text in str(error) for text in MEMORY_TEXTS)


def smaller(cfg: JobConfig) -> str:
    """The settings that make a job need less memory than it does now, in words."""
    settings = ["mode=low_memory"] if cfg.mode != "low_memory" else []
    trains = cfg.adapter is None and cfg.probe is None
    if cfg.batch_size > 1 and trains:  # the same draws a step, and so the same id
        settings += [f"batch_size=1 trainer.accumulate={cfg.batch_size * cfg.trainer.accumulate}"]
    if cfg.trainer.ranks > 1 and cfg.trainer.strategy != "fsdp":
        settings += ["trainer.strategy=fsdp"]
    settings += ["a smaller train_together="] if cfg.train_together > 1 else []
    settings += ["a smaller memory_limit="] if cfg.memory_limit is not None else []
    whole = cfg.device == "cpu" or cfg.offload in ("none", "model")  # and not a block at a time
    if cfg.mode == "low_memory" and whole and cfg.network_precision == "auto":
        settings += ["network_precision=fp8"]
    settings += ["fewer frames="] if cfg.model.frame_range is not None else []
    halved = cfg.train_together > 1 or cfg.memory_limit is not None
    settings += ["retry=smaller_batch"] if halved and cfg.probe is None and cfg.retry is None else []
    hint = "" if cfg.dry_run else "; dry_run=true prints the memory of each phase"
    return f"try {', '.join(settings or ['another model='])}{hint}"


def smaller_batch(cfg: JobConfig, *, trains: bool, at_once: int) -> JobConfig | None:
    """The settings of a job with half as many videos in a batch; None where it cannot be halved.

    Args:
        cfg: of a job.
        trains: whether the batch is that of the training, or else that of the sampling.
        at_once: videos in a batch of the sampling.
    """
    if trains:
        return replace(cfg, train_together=cfg.train_together // 2) if cfg.train_together > 1 else None
    if cfg.memory_limit is None or at_once == 1:
        return None
    return replace(cfg, memory_limit=cfg.memory_limit / 2)


def batch_in_words(cfg: JobConfig) -> str:
    """The settings of the sizes of batches."""
    limit = "" if cfg.memory_limit is None else f", memory_limit={cfg.memory_limit:g}"
    return f"train_together={cfg.train_together}{limit}"
