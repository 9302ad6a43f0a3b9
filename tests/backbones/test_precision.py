"""What `auto` comes out as on machines of every kind."""

import pytest
import torch
from torch.nn.attention import SDPBackend

from motionexp.backbones.precision import (
    DTYPES,
    attention_kernels,
    resolve_device,
    resolve_precision,
)
from motionexp.errors import InputError

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU alone, without instructions for bf16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    _cpu(monkeypatch, bf16=False, amx=False)
    return monkeypatch


def _cpu(monkeypatch: pytest.MonkeyPatch, *, bf16: bool, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(
    ("bf16", "amx", "expected"),
    [(False, False, "fp32"), (True, False, "bf16"), (True, True, "bf16")],
    ids=["no instructions", "AVX-512", "tiles"],
)
def test_precision_of_a_cpu(machine: pytest.MonkeyPatch, bf16: bool, amx: bool, expected: str) -> None:
    _cpu(machine, bf16=bf16, amx=amx)
    assert resolve_precision(CPU) == expected


def test_precision_of_a_gpu(machine: pytest.MonkeyPatch) -> None:
    assert resolve_precision(CUDA) == "bf16"  # of another machine, which a dry run plans for
    machine.setattr(torch.cuda, "is_available", lambda: True)
    for supported, expected in ((True, "bf16"), (False, "fp32")):
        machine.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, s=supported: s)
        assert resolve_precision(CUDA) == expected
    assert resolve_precision(MPS) == "fp32"


@pytest.mark.parametrize("expected", DTYPES)
def test_a_precision_that_is_named_is_taken(machine: pytest.MonkeyPatch, expected: str) -> None:
    assert resolve_precision(CPU, expected) == expected


def test_an_unknown_precision(machine: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"precision=fp8: .*auto, fp32, bf16, fp16"):
        resolve_precision(CPU, "fp8")


def test_devices(machine: pytest.MonkeyPatch) -> None:
    assert resolve_device() == resolve_device("cpu") == CPU
    for missing in ("cuda", "cuda:0", "mps", "tpu", "cpu:x"):
        with pytest.raises(InputError, match=f"device={missing}: .*auto, cpu$"):
            resolve_device(missing)
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device() == resolve_device("mps") == MPS
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device() == CUDA
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match=r"device=cuda:2: .*auto, cpu, cuda:0, cuda:1, mps$"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("device", "dtype", "tokens", "plain"),
    [
        (CPU, torch.bfloat16, 16, True),
        (CPU, torch.bfloat16, 1024, False),
        (CPU, torch.float32, 16, False),
        (CUDA, torch.bfloat16, 16, False),
    ],
)
def test_attention_on_a_cpu_in_bf16_is_not_fused(
    device: torch.device, dtype: torch.dtype, tokens: int, plain: bool
) -> None:
    fused = torch.nn.attention._cur_sdpa_kernel_backends()
    with attention_kernels(device, dtype, tokens):
        inside = torch.nn.attention._cur_sdpa_kernel_backends()
    assert (inside == [SDPBackend.MATH]) == plain
    assert torch.nn.attention._cur_sdpa_kernel_backends() == fused
