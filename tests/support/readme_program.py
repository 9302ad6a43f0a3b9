"""The program in the README of an export, run as a user runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def run_readme(folder: Path, pipeline: Any, arguments: Mapping[str, Any], *, is_alone: bool = False) -> Any:
    """What the pipeline's call in README.md returns; for its dots, `arguments` that it does not name.

    `is_alone`: the callback is made without the pipeline, and the second of two calls with it is returned.
    """
    text = (folder / "README.md").read_text()
    lines = [line.removeprefix("    ") for line in text.splitlines() if line.startswith("    ")]
    program = "\n".join(lines).replace("FOLDER", str(folder))
    assert program.count("\npipeline(\n    ...,\n") == 1
    if is_alone:
        assert program.count(", pipeline)") == 1
        program = program.replace(", pipeline)", ")")

    def call(dots: object, **named: Any) -> Any:
        assert dots is ...
        outputs = [pipeline(**{**arguments, **named}) for _ in range(1 + is_alone)]
        return outputs[-1]

    names = {"pipeline": pipeline, "call": call}
    exec(program.replace("\npipeline(\n", "\noutput = call(\n"), names)
    return names["output"]
