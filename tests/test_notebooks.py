"""The notebooks of docs/ run, with fewer steps and references than a reader takes."""

import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"
FASTER = {
    "100, 25, 2.0, 1e-2": "1, 2, 1.0, 1e-2",
    "(0, 500, 700, 900)": "(0, 900)",
    '"references=3", "data.split=tuning"': '"references=1", "train_steps=1", "steps=8", "edit_kinds=[style]"',
    '"0,500,700"': '"0,700"',
}


def cells(name: str) -> list[str]:
    content = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.notebook
@pytest.mark.parametrize(("name", "replaced"), [("adapter_to_probe.ipynb", 2), ("sweep_to_table.ipynb", 2)])
def test_a_notebook_runs_from_start_to_end(name, replaced, tmp_path, monkeypatch):
    for entry in ("docs", "motionexp", "conf", "experiments", "run.py"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))
    text = "\n\n".join(cells(name))
    found = [slow for slow in FASTER if slow in text]
    assert len(found) == replaced
    for slow in found:
        text = text.replace(slow, FASTER[slow])
    variables: dict[str, object] = {}
    exec(text, variables)
    assert plt.get_fignums()
    plt.close("all")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in content["cells"])
