"""The program in the README of an export, run as a user runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def run_readme(folder: Path, pipeline: Any, arguments: Mapping[str, Any]) -> Any:
    """What the pipeline's call in README.md returns, with `arguments` in place of its dots."""
    text = (folder / "README.md").read_text()
    lines = [line.removeprefix("    ") for line in text.splitlines() if line.startswith("    ")]
    program = "\n".join(lines).replace("FOLDER", str(folder))
    assert program.count("\npipe(..., ") == 1
    names = {"pipe": pipeline, "arguments": arguments}
    exec(program.replace("\npipe(..., ", "\noutput = pipe(**arguments, "), names)
    return names["output"]
