"""The code of docs/python.md."""

import ast
import re
from pathlib import Path
from typing import Any

TEXT = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
TABLE, STORED, WITH_LOADER, WITH_PEFT, PANDAS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def functions(*blocks: str) -> dict[str, Any]:
    """The functions of blocks, with the blocks' imports; nothing else of them is run."""
    names: dict[str, Any] = {}
    for block in blocks:
        tree = ast.parse(block)
        kinds = ast.Import | ast.ImportFrom | ast.FunctionDef
        tree.body = [statement for statement in tree.body if isinstance(statement, kinds)]
        exec(compile(tree, "docs/python.md", "exec"), names)
    return names
