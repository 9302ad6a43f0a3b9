"""Which device and which number format a model runs in, from what the machine can do."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from motionexp.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Beyond this many tokens the matrix of scores costs more memory than the fused kernel costs time.
SHORT_SEQUENCE = 256


def resolve_device(device: str = "auto") -> torch.device:
    """`auto`: the GPU if there is one (CUDA, then Apple's), else the CPU; else the device named.

    Raises InputError for a device that this machine or this torch does not have.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    kind, _, index = device.partition(":")
    count = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}.get(kind, 0)
    # `cuda` alone is the first GPU.
    if not (index or "0").isdecimal() or int(index or 0) >= count:
        devices = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *["mps"] * mps]
        raise InputError(f"device={device}: this machine has {', '.join(devices)}")
    return torch.device(device)


def resolve_precision(device: torch.device, precision: str = "auto") -> Precision:
    """`auto`: bf16 where the device's own arithmetic has it and is fast in it, else fp32.

    fp16 is never chosen by itself: small gradients vanish in it. Raises InputError for an unknown word.
    """
    if precision in ("fp32", "bf16", "fp16"):
        return precision  # type: ignore[return-value]
    if precision != "auto":
        raise InputError(f"precision={precision}: one of auto, {', '.join(DTYPES)}")
    if device.type == "cuda" and not torch.cuda.is_available():
        return "bf16"  # of a plan for another machine
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and bf16_is_fast_on_cpu() else "fp32"


def bf16_is_fast_on_cpu() -> bool:
    """Whether this CPU multiplies bf16 in its own instructions (AVX-512 BF16 or AMX).

    Without them bf16 is up to a hundred times slower than fp32. Features alone decide, no
    measurement: the precision is part of a result's id, which must not depend on the machine's load.
    """
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def plain_attention(device: torch.device, dtype: torch.dtype, tokens: int) -> bool:
    """Whether attention over so many tokens is faster without the fused kernel: on a CPU in bf16, if few.

    That kernel takes more than half of a small model's whole time there.
    """
    return device.type == "cpu" and dtype == torch.bfloat16 and tokens <= SHORT_SEQUENCE


def attention_kernels(device: torch.device, dtype: torch.dtype, tokens: int) -> AbstractContextManager[None]:
    """The context in which attention runs with the kernel that suits it; see `plain_attention`."""
    return sdpa_kernel(SDPBackend.MATH) if plain_attention(device, dtype, tokens) else nullcontext()
