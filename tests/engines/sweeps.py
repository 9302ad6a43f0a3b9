"""Sweeps of seconds, run as a user runs them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SMALL = ["steps=2", "base_model=false", "metrics=[frame_consistency]", "edit_kinds=[multiple]", "device=cpu"]


def start(output: Path, *words: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """`python run.py WORDS` in a process, with settings that make its jobs small."""
    names = {word.partition("=")[0] for word in words}
    small = [word for word in SMALL if word.partition("=")[0] not in names]
    if "probe" in names:  # which has steps and metrics of its own
        small = ["device=cpu"]
    return subprocess.Popen(
        [sys.executable, "run.py", *words, *small, f"output={output}"],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(output: Path, *words: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """The exit code, the output and the errors of `python run.py WORDS`."""
    process = start(output, *words, environment=environment)
    shown, errors = process.communicate(timeout=500)
    return process.returncode, shown, errors


def folder_of(output: Path) -> Path:
    """The folder of the only sweep."""
    (folder,) = (output / "sweeps").iterdir()
    return folder


def plan_of(output: Path) -> dict[str, Any]:
    """The plan of the only sweep."""
    return json.loads((folder_of(output) / "plan.json").read_text())


def rows_of(output: Path) -> list[str]:
    """All rows, sorted, without wall times, memory and what a machine's load changes."""
    lines = [line for path in output.rglob("rows.jsonl") for line in path.read_text().splitlines()]
    return sorted(json.dumps({**json.loads(line), "seconds": 0, "peak_memory": 0}) for line in lines)


def records(output: Path) -> list[dict[str, Any]]:
    """The records of all trainings of the jobs' own length."""
    return [json.loads(path.read_text()) for path in sorted(output.rglob("fit.json"))]


def wait_for(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    """The first true value of a condition. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(condition)
        time.sleep(0.1)
    return value


def has_begun(output: Path, count: int = 1) -> Callable[[], bool]:
    """Whether trainings with `keep_steps=[5]` have come to that step."""
    return lambda: len(list(output.rglob("adapter.safetensors"))) >= count


def processes_with(text: str) -> list[int]:
    """The Python processes whose command line or environment holds a text."""
    pids = []
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal() or int(path.name) == os.getpid():
            continue
        try:
            command, environment = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue
        if b"python" in command.split(b"\0")[0] and text.encode() in command + environment:
            pids.append(int(path.name))
    return pids
