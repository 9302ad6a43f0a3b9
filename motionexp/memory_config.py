"""What `mode=` and the settings beside it stand for, and their checks. Imports no torch."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Protocol

MODES = ("fast", "low_memory")
TEXT_PRECISIONS = ("auto", "8bit", "4bit")
QUANTIZER = "bitsandbytes"


class MemorySettings(Protocol):
    """Those of `config.JobConfig` that say how memory is used."""

    mode: str
    checkpointing: bool | None
    offload: bool | None
    text_precision: str
    device: str
    model: Any


def tiles(cfg: MemorySettings) -> bool:
    """Whether the VAE works in tiles whose seams are blended, which changes results a little."""
    return cfg.mode == "low_memory" and cfg.model.video_vae


def checkpoints(cfg: MemorySettings) -> bool:
    """Whether activations are computed again in the backward pass."""
    return cfg.mode == "low_memory" if cfg.checkpointing is None else cfg.checkpointing


def offloads(cfg: MemorySettings, device: str) -> bool:
    """Whether what does not compute waits in main memory, for a job on a type of device (cpu, cuda, mps)."""
    return cfg.mode == "low_memory" and device == "cuda" if cfg.offload is None else cfg.offload


def mode_problems(cfg: MemorySettings) -> Iterator[str]:
    """What is wrong with these settings, one sentence a problem."""
    if cfg.mode not in MODES:
        yield f"mode={cfg.mode}: one of {', '.join(MODES)}"
    yield from text_precision_problems(cfg.text_precision)
    yield from offload_problems(cfg, cfg.device)


def text_precision_problems(text_precision: str) -> Iterator[str]:
    """What is wrong with `text_precision=`, the package that it needs included."""
    if text_precision not in TEXT_PRECISIONS:
        yield f"text_precision={text_precision}: one of {', '.join(TEXT_PRECISIONS)}"
    elif text_precision != "auto" and find_spec(QUANTIZER) is None:
        yield (
            f"text_precision={text_precision}: it needs the package {QUANTIZER}, which is not installed:"
            f" `pip install {QUANTIZER}`, or leave it at auto"
        )


def offload_problems(cfg: MemorySettings, device: str) -> Iterator[str]:
    """What is wrong with `offload=` on a device: of the settings, or of what `auto` has become."""
    if cfg.offload and not device.startswith(("cuda", "auto")):
        yield f"offload=true: device={device} has no memory of its own to spare; leave it out"
