"""A metric is one file: dropped into a copy of the package, it is listed, checked, scored and summarised."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JOB = ["tau=1000", "steps=1", "edit_kinds=[style]", "metrics=[brightness]", "output=out"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with the metric of docs/scores.md, and nothing else changed."""
    folder = tmp_path_factory.mktemp("copy")
    unchanged = shutil.ignore_patterns("bundled", "__pycache__")
    shutil.copytree(ROOT / "motionexp", folder / "motionexp", ignore=unchanged)
    for name in ("motionexp/bundled", "conf", "experiments", "run.py"):
        (folder / name).symlink_to(ROOT / name)
    documented = (ROOT / "docs" / "scores.md").read_text()
    code = documented.partition("```python\n")[2].partition("```")[0]
    (folder / "motionexp" / "metrics" / "brightness.py").write_text(code)
    return folder


def motionexp(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "motionexp.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_it_is_listed_and_checked(copy: Path) -> None:
    assert "How bright is the sample?" in motionexp(copy, "--help").stdout
    refused = motionexp(copy, "metrics=[brihgtness]")
    assert refused.returncode == 2
    assert "brightness" in refused.stderr + refused.stdout


@pytest.mark.slow
def test_a_job_scores_it_and_its_summary_has_its_heading(copy: Path) -> None:
    scored = motionexp(copy, *JOB)
    assert scored.returncode == 0, scored.stderr
    assert "bright" in scored.stdout.replace(str(copy), "").split()
    (rows,) = (copy / "out").rglob("rows.jsonl")
    assert '"metric": "brightness"' in rows.read_text() or '"metric":"brightness"' in rows.read_text()
