"""A metric is one file: dropped into a copy of the package, it is listed, checked, scored and summarised."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from motionexp import metrics
from motionexp.config.metrics import METRICS, read_metric
from motionexp.jobs.summary import headings
from motionexp.metrics.scorer import Scorer

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize(
    ("argument", "code", "answer"),
    [("--help", 0, "How bright is the sample?"), ("metrics=[brihgtness]", 2, "brightness")],
)
def test_it_is_listed_and_checked(copy, argument, code, answer):
    command = [sys.executable, "-m", "motionexp", argument]
    finished = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert finished.returncode == code
    assert answer in finished.stderr + finished.stdout


def test_it_is_scored_and_has_its_heading_in_summaries(copy, monkeypatch, inputs):
    folder, sample = copy / "motionexp" / "metrics", inputs()
    spec = read_metric(folder / "brightness.py", "motionexp.metrics.brightness", "brightness")
    monkeypatch.setitem(METRICS, "brightness", spec)
    monkeypatch.setattr(metrics, "__path__", [str(folder)])
    scores = Scorer(["brightness"]).score(sample.frames, sample.reference, sample.edit)
    assert scores["brightness"]["brightness"].value == pytest.approx(sample.frames.mean())
    assert headings([spec]) == {"brightness": ("bright", "")}
