"""Jobs on a model without a number of frames of its own."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from motionexp.config.checks import check
from motionexp.jobs.dry_run import plan
from motionexp.jobs.run import run
from tests.support.kept_results import cells
from tests.support.tiny_models import CLIP_TOKENS, save_tiny_unet3d


@pytest.fixture(scope="session")
def unet(tmp_path_factory):
    return {
        "_target_": "motionexp.backbones.unet3d.UNet3DBackbone.from_pretrained",
        "name": "tiny_unet3d",
        "path": str(save_tiny_unet3d(tmp_path_factory.mktemp("unet3d"))),
        "frames": 5,
        "frame_range": [2, 7],
        "max_caption_tokens": CLIP_TOKENS,
    }


def problems(cfg):
    return check(replace(cfg, metrics=None))


def test_a_job_reads_and_makes_as_many_frames_as_it_is_asked_for(make, unet, tmp_path, capsys):
    for frames in (3, 7):
        cfg = make(model=unet, frames=frames, output=str(tmp_path / str(frames)))
        assert problems(cfg) == []
        assert {row.settings["frames"] for row in run(cfg)} == {frames}
        (cell,) = cells(cfg)
        samples = [np.load(file)["frames"] for file in (cell / "media").glob("*.npz")]
        assert [sample.shape for sample in samples] == [(frames, 16, 16, 3)] * 2
    with safe_open(cell / "adapter" / "adapter.safetensors", framework="np") as file:
        assert all(name.startswith("unet.") for name in file.keys())  # noqa: SIM118  # not a dict
    # An adapter has no number of frames either: this one, tuned on 7, samples 3.
    kept = {"adapter": str(cell / "adapter"), "tau": None, "references": ["one"]}
    assert {row.method for row in run(make(model=unet, frames=3, **kept))} == {"lora"}
    plan(make(model=unet, frames=6))
    assert "trainable parameters" in capsys.readouterr().out


def test_frames_outside_the_models_range_are_refused(make, unet):
    for frames in (1, 8):
        said = f"frames={frames}: tiny_unet3d makes videos of 2 to 7 frames"
        assert problems(make(model=unet, frames=frames)) == [said]
    odd = {**unet, "frame_range": [3, 7], "frame_step": 2}
    (problem,) = problems(make(model=odd, frames=6))
    assert problem.startswith("frames=6: tiny_unet3d makes videos of 3 to 7 frames")
    assert problems(make(model=odd)) == []
    assert problems(make(frames=5)) == ["frames=5: tiny makes videos of exactly 4 frames"]
    for legal in ([2], [7, 2], [0, 7]):
        (problem,) = problems(make(model={**unet, "frame_range": legal}))
        assert problem.startswith(f"model.frame_range={legal}: the fewest and the most")
