"""A new setting is one line in the schema: a copy of the package with such lines knows all about them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLACE = "    dry_run: bool"
# Of a setting: its line, another right value, a wrong one, and whether tables show its default alone.
NEW = {
    "training": ('float = setting(1.0, "new", "training", above=0, added_later=True)', 2.0, "0", True),
    "sampling": ('int = setting(3, "new", "sampling", low=1, high=5, added_later=True)', 4, "6", True),
    "probe": ('str = setting("x", "new", "probe", choices=("x", "y"), added_later=True)', "y", "z", False),
    "cell": ('int = setting(0, "new", "cell", low=0, added_later=True)', 1, "0.5", True),
    "none": ('float = setting(0.0, "new", "none", low=0)', 1.0, "-1", False),
}
IDS = ("adapter", "sample", "probe")
CHANGED = {"training": {"adapter"}, "sampling": {"sample"}, "probe": {"probe"}, "cell": {"adapter", "probe"}}
CODE = """
import json, sys
from dataclasses import replace
from motionexp.config.compose import load
from motionexp.config.ids import adapter_id, probe_id, sample_id
from motionexp.errors import InputError
from motionexp.cli.help import help_text
from motionexp.results.selection import SAMPLED, TRAINED

def ids(cfg):
    content = {"weights_hash": "w", "precision": "fp32", "reference_hash": "r"}
    sample = sample_id(cfg, "a", caption="c", index=0)
    return [adapter_id(cfg, **content), sample, probe_id(cfg, caption="c", **content)]

new, base = json.loads(sys.argv[1]), sys.argv[2:]
default = load([*base, "probe=tampering"])
answer = {"default": ids(default), "help": help_text(), "in_tables": TRAINED + SAMPLED}
answer["ids"] = {
    name: ids(replace(default, **{f"new_{name}": right})) for name, (_, right, *_) in new.items()
}
try:
    load([*base, *(f"new_{name}={wrong}" for name, (_, _, wrong, _) in new.items() if name != "cell")])
except InputError as error:
    answer["problems"] = str(error).splitlines()
try:
    load([*base, "new_cell=0.5"])
except InputError as error:
    answer["problems"].append(str(error))
assert "torch" not in sys.modules
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory) -> dict[str, Any]:
    """What a copy of the package whose schema has the lines of `NEW` says about them."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("motionexp", "conf", "experiments"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("bundled", "__pycache__"))
    schema = folder / "motionexp" / "config" / "schema.py"
    source = schema.read_text()
    lines = "".join(f"    new_{name}: {line}\n" for name, (line, *_) in NEW.items())
    assert source.count(PLACE) == 1
    schema.write_text(source.replace(PLACE, lines + PLACE))
    (folder / "model").mkdir()
    (folder / "model" / "model_index.json").write_text("{}")
    base = ["model.path=model", "model.closed_vocabulary=false", f"output={folder / 'out'}"]
    command = [sys.executable, "-c", CODE, json.dumps(NEW), *base]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize("name", NEW)
def test_one_line_is_a_setting(answer, name):
    _, _, wrong, in_tables = NEW[name]
    assert [line for line in answer["help"].splitlines() if line.split("=")[0].strip() == f"new_{name}"]
    assert [problem for problem in answer["problems"] if problem.startswith(f"new_{name}={wrong}: ")]
    assert (f"new_{name}" in answer["in_tables"]) == in_tables
    pairs = zip(IDS, answer["default"], answer["ids"][name], strict=True)
    assert {kind for kind, before, after in pairs if before != after} == CHANGED.get(name, set())


def test_a_default_that_was_added_later_changes_no_id(answer, base):
    from motionexp.config.compose import load
    from motionexp.config.ids import adapter_id, sample_id

    cfg = load([*base, "probe=tampering"])
    adapter = adapter_id(cfg, weights_hash="w", precision="fp32", reference_hash="r")
    assert answer["default"][:2] == [adapter, sample_id(cfg, "a", caption="c", index=0)]
