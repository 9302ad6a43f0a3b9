"""The code of docs/python.md."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
TABLE, STORED, WITH_LOADER, WITH_PEFT, PANDAS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)

EXPORT = re.search(r"python run.py (export .*)", TEXT.split("### Latte")[1])[1].split()  # type: ignore[index]
