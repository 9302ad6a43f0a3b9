"""What a command imports, and what it finds out before."""

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
    assert run([["--help"], *wrong]) == ([0, 2, 2, 2, 2], [])


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_gpu_that_is_certainly_missing_is_refused_without_torch(device, monkeypatch):
    from motionexp.config import checks
    from motionexp.errors import InputError

    monkeypatch.setattr(checks, "NVIDIA", ())
    monkeypatch.setattr(checks.sys, "platform", "linux")
    with pytest.raises(InputError, match=f"device={device}"):
        checks.check_device(device)


@pytest.mark.parametrize("device", ["cuda", "auto", "cpu"])
def test_a_device_that_may_be_there_is_left_to_torch(device, monkeypatch):
    from motionexp.config import checks

    monkeypatch.setattr(checks, "NVIDIA", ("/dev/null",))
    monkeypatch.setattr(checks.sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    checks.check_device(device)


JOB = """
import gc, sys
from motionexp.jobs.waiting import loading_libraries
with loading_libraries():
    import motionexp.jobs.job
names = {"matplotlib", "wandb", "timm", "tensorboard", "open_clip", "motionexp.metrics.scorer"}
assert not names & sys.modules.keys(), names & sys.modules.keys()
import torch
assert torch.cuda.is_available() or "triton" not in sys.modules
# Later searches for garbage leave out the libraries, and nothing that came after them.
assert gc.isenabled()
frozen = gc.get_freeze_count()
assert frozen > 1e5
later = [[] for _ in range(1000)]
with loading_libraries():
    import motionexp.jobs.job
assert gc.get_freeze_count() <= frozen
"""


def test_a_job_imports_neither_pictures_nor_loggers_nor_scorers():
    subprocess.run([sys.executable, "-c", JOB], check=True, cwd=ROOT)
