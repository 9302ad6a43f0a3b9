"""A model of a known family is one new YAML file in `conf/model/`."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from motionexp.cli.help import first_comment
from motionexp.config import compose, metrics, options
from motionexp.data.videos import write_mp4
from motionexp.errors import InputError
from motionexp.jobs.run import run
from tests.support.squares import METRICS, SQUARE_METRICS
from tests.support.tiny_models import SIZE, save_tiny_unet3d


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `conf/`, which is read in its place."""
    copy = Path(shutil.copytree(compose.CONF, tmp_path / "conf"))
    for module in (compose, options):
        monkeypatch.setattr(module, "CONF", copy)
    return copy


def test_one_file_makes_a_model(conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = save_tiny_unet3d(tmp_path / "weights")
    text = (conf / "model" / "modelscope.yaml").read_text()
    text = re.sub(r"^(# )ModelScope.*", r"\1Another U-Net", text, count=1)
    text = re.sub(r"^name: .*", "name: another", text, flags=re.MULTILINE)
    text = re.sub(r"^path: .*", f"path: {weights}", text, flags=re.MULTILINE)
    text = re.sub(r"^revision: .*\n", "", text, flags=re.MULTILINE)
    (conf / "model" / "another.yaml").write_text(f"{text}frame_range: [4, 8]\nsteps: 2\n")

    # Listed, composed with its family's settings, checked.
    assert "another" in options.options("model")
    assert first_comment(conf / "model" / "another.yaml") == "Another U-Net"
    write_mp4(clip := tmp_path / "clip.mp4", np.zeros((4, SIZE, SIZE, 3), np.uint8), fps=8)
    job = ["model=another", f"video={clip}", "caption=a red star", 'edits=["a blue star"]', "frames=4",
           f"model.height={SIZE}", f"model.width={SIZE}", "train_steps=1", "device=cpu",
           f"output={tmp_path / 'out'}"]  # fmt: skip
    cfg = compose.load(job)
    assert (cfg.model.name, cfg.steps, cfg.guidance_scale) == ("another", 2, 9.0)
    with pytest.raises(InputError, match="frames=9"):
        compose.load([*job, "frames=9"])

    # It runs.
    monkeypatch.setattr(metrics, "METRICS", metrics.METRICS | SQUARE_METRICS)
    cfg.metrics = METRICS
    rows = run(cfg)
    assert {(row.model, row.edit_caption, row.train_steps) for row in rows} == {("another", "a blue star", 1)}
