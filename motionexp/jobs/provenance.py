"""The code and the machine that made a row."""

import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from motionexp.config.ids import PROBE_VERSION, SAMPLE_VERSION, guidance_version
from motionexp.files import PACKAGE

PACKAGES = (
    "motionexp",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "lightning",
    "open_clip_torch",
    "numpy",
    "av",
)


@cache
def commit() -> tuple[str, bool]:
    """(git commit of this checkout, whether tracked files differ from it); ("", False) outside one."""
    # An installed package may lie inside somebody else's repository, for instance in its environment.
    tracked = _git(PACKAGE, "ls-files", "--error-unmatch", "__init__.py")
    head = _git(PACKAGE, "rev-parse", "HEAD") if tracked is not None else None
    if head is None:
        return "", False
    return head, bool(_git(PACKAGE, "status", "--porcelain", "--untracked-files=no"))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@cache
def packages() -> dict[str, str]:
    """Versions of the packages that results may depend on, and Python's."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}: {_processor()}"


@cache
def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def origin(device: torch.device) -> Mapping[str, Any]:
    """The fields of a row that describe the code and the device that made it."""
    head, dirty = commit()
    return {"commit": head, "dirty": dirty, "packages": packages(), "device": device_name(device)}


def versions(
    training_record: Mapping[str, Any], *, probes: bool, guided_by: Mapping[str, Any] | None
) -> dict[str, int]:
    """The versions of the stages that make a job's samples; `guided_by`: the method, where it guides."""
    if probes:
        return {"probe": PROBE_VERSION}
    # Records from before the version was stored are of version 1.
    training = {"training": training_record.get("version", 1)} if training_record else {}
    guidance = {} if guided_by is None else {"guidance": guidance_version(guided_by)}
    return training | guidance | {"sampling": SAMPLE_VERSION}
