"""What a command imports, and what it finds out before."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "diffusers", "transformers", "lightning", "matplotlib", "wandb", "timm", "scipy", "sympy")
PROGRAM = """
import json, sys
from motionexp.cli import main
codes = [main(arguments) for arguments in {commands}]
print(json.dumps([codes, sorted({names} & sys.modules.keys())]))
"""


def run(commands: list[list[str]]) -> tuple[list[int], list[str]]:
    """The exit codes of commands in one new process, and which of the HEAVY packages it has imported."""
    program = PROGRAM.format(commands=commands, names=set(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    codes, imported = json.loads(done.stdout.splitlines()[-1])
    return codes, imported


def test_help_and_wrong_settings_import_nothing_heavy():
    wrong = (
        ["device=cuda", "tau=2000"],
        ["model=tiny_cogvideox", "attention=cross"],
        ["model=tiny_latte", "model.height=128"],
        ["frames=7"],
    )
    assert run([["--help"], ["status", "output=nowhere"], *wrong]) == ([0, 2, 2, 2, 2, 2], [])


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_gpu_that_is_certainly_missing_is_refused_without_torch(device, monkeypatch):
    from motionexp.config import checks
    from motionexp.errors import InputError

    monkeypatch.setattr(checks, "OF_GPUS", ())
    monkeypatch.setattr(checks.sys, "platform", "linux")
    with pytest.raises(InputError, match=f"device={device}"):
        checks.check_device(device)


@pytest.mark.parametrize("device", ["cuda", "auto", "cpu"])
def test_a_device_that_may_be_there_is_left_to_torch(device, monkeypatch):
    from motionexp.config import checks

    monkeypatch.setattr(checks, "OF_GPUS", ("null",))
    monkeypatch.setattr(checks.sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    checks.check_device(device)


@pytest.mark.parametrize("is_loaded", [False, True])
def test_libraries_are_loaded_without_a_search_for_garbage_once(is_loaded, monkeypatch):
    from motionexp.jobs.waiting import loading_libraries

    monkeypatch.delitem(sys.modules, "diffusers", raising=False)
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    if is_loaded:
        monkeypatch.setitem(sys.modules, "diffusers", sys)
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))
    with loading_libraries():
        assert gc.isenabled() == is_loaded
    assert gc.isenabled()
    assert frozen == ([] if is_loaded else [False])
    assert "triton" not in sys.modules


@pytest.mark.parametrize("has_gpu", [False, True])
def test_triton_is_put_off_where_no_gpu_is(has_gpu, monkeypatch):
    import torch

    from motionexp.jobs.waiting import without_triton

    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    with without_triton():
        assert ("triton" in sys.modules) != has_gpu
    assert "triton" not in sys.modules
