"""CONTRIBUTING's method in two files: in a copy of the tree it is trained, sampled, scored and tabulated."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from motionexp.results.rows import read_rows

ROOT = Path(__file__).parents[2]
NAME = "absolute_lora"
SMALL = ("references=1", "train_steps=2", "steps=2", "metrics=[frame_consistency]", "base_model=false")


def example(language: str) -> str:
    """The code of CONTRIBUTING.md in a language."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.mark.slow
def test_a_method_is_two_files(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for folder in ("conf", "tests", "experiments"):
        shutil.copytree(ROOT / folder, tree / folder)
    ignored = shutil.ignore_patterns("bundled", "__pycache__")
    shutil.copytree(ROOT / "motionexp", tree / "motionexp", ignore=ignored)
    (tree / "motionexp" / "bundled").symlink_to(ROOT / "motionexp" / "bundled")
    for file in ("pyproject.toml", "run.py"):
        shutil.copy(ROOT / file, tree)
    code, settings = example("python"), example("yaml")
    assert len((code + settings).splitlines()) < 60
    (tree / "motionexp" / "methods" / f"{NAME}.py").write_text(code)
    (tree / "conf" / "method" / f"{NAME}.yaml").write_text(settings)

    # In one process, for torch takes seconds. The second command takes the stored adapter for other captions.
    chosen = f"{NAME} and (saved_adapter or trainable_parameters or resumes)"
    program = (
        "import sys, pytest; from motionexp.cli import main;"
        f"chosen = ['{NAME},lora edit_kinds=[multiple]', '{NAME} edit_kinds=[style]'];"
        "codes = [main([*sys.argv[1:], *f'method={words}'.split()]) for words in chosen];"
        f"codes += [pytest.main(['-n', '0', '-q', '-k', '{chosen}', 'tests/methods/test_contract.py'])];"
        "sys.exit(max(codes))"
    )
    words = ["-m", "device=cpu", "precision=fp32", "tau=0", *SMALL, f"output={tmp_path}/out"]
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(rf"\b{NAME} +1 \(1\)", done.stdout), done.stdout
    rows = [row for row in read_rows(tmp_path / "out") if row.method == NAME]
    assert {row.edit_kind for row in rows} == {"multiple", "style"}
    assert len(list((tmp_path / "out").rglob("fit.json"))) == 2
