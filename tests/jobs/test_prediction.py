"""`python run.py predict`: the VAE and the schedule alone, and errors before any weight."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from motionexp.backbones import latent_space
from motionexp.backbones.latent_space import LatentSpace
from motionexp.cli import main
from motionexp.config.prediction import load_prediction
from motionexp.config.schema import BUNDLED
from motionexp.data.videos import write_mp4
from motionexp.errors import InputError
from motionexp.jobs.prediction import predict_job
from motionexp.jobs.sweep_table import table as print_table_of
from tests.support.made_videos import moving

MODEL = BUNDLED / "tiny_latte"


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Four clips with captions: one that moves fast, and its copies in other brightness."""
    folder = tmp_path_factory.mktemp("clips")
    video = moving(16)
    for number in range(4):
        frames = np.roll(video, 3 * number, axis=0) // (number + 1)
        write_mp4(folder / f"{number}.mp4", frames, 8)
    lines = [f"{number}.mp4,a ball number {'abcd'[number]},a cube" for number in range(4)]
    (folder / "captions.csv").write_text("\n".join(["video,caption,object", *lines]))
    return folder


@pytest.fixture
def vae_alone(tmp_path) -> Path:
    """A model's folder without denoiser and text encoder."""
    for part in ("vae", "scheduler"):
        shutil.copytree(MODEL / part, tmp_path / "model" / part)
    shutil.copy(MODEL / "model_index.json", tmp_path / "model")
    return tmp_path / "model"


def test_clips_are_predicted_from_the_vae_and_the_schedule_alone(clips, vae_alone, tmp_path, capsys):
    words = ["model=tiny_latte", f"model.path={vae_alone}", "model.name=mine", "data=folder"]
    assert main(["predict", *words, f"data.path={clips}", f"output={tmp_path}", "device=cpu"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.split("table:")[0].splitlines())) <= 80
    assert "no ground truth" in " ".join(shown.lower().split())
    (page,) = (tmp_path / "tables").glob("predict-mine-*.md")
    assert page.with_suffix(".csv").is_file()
    lines = [line for line in page.read_text().splitlines() if line.startswith(("| motion", "| appearance"))]
    # Six pairs of four clips.
    assert [line.split("|")[-2].strip() for line in lines] == ["6 (4)", "6 (4)"]
    # The offsets of all three bundled models: this is another model.
    assert "(3 models)" in page.read_text()


def test_the_bundled_world_has_a_line_for_each_factor_and_is_measured_once(tmp_path, monkeypatch):
    cfg = load_prediction(["model=tiny_latte", "references=3", f"output={tmp_path}", "device=cpu"])
    table = predict_job(cfg)
    labels = [line.labels[0] for line in table.lines]
    assert labels == ["motion", "colour", "shape", "surface", "background", "boundary (τ)"]
    assert "(2 models)" in " ".join(table.notes)
    monkeypatch.setattr(LatentSpace, "load", None)
    assert predict_job(cfg).blocks == table.blocks
    with pytest.raises(InputError, match="no scores of samples"):
        print_table_of([f"output={tmp_path}"])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["references=2"], "references=2"),
        (["references=[01-wander-cyan-square]"], "references"),
        (["video=my.mp4"], "video=my.mp4"),
        (["tau=700"], "tau"),
        (["model=latte"], "model=latte"),
        (["data=folder", "data.path={clips}", "references=2"], "references=2"),
        (["data=folder", "data.path={equal}"], "caption"),
        (["model.path={without}"], "scaling_factor"),
        (["model=show1", "data=folder", "data.path={clips}", "frames=8"], "model=show1"),
        (["frames=0"], "frames"),
    ],
)
def test_a_wrong_prediction_is_an_error_before_weights(words, named, clips, vae_alone, tmp_path, monkeypatch):
    monkeypatch.setattr(latent_space, "load_part", None)
    equal = tmp_path / "equal"
    shutil.copytree(clips, equal)
    (equal / "captions.csv").write_text("video,caption,object\n0.mp4,a,b\n1.mp4,A,b\n2.mp4,a,b\n")
    config = vae_alone / "vae" / "config.json"
    settings = json.loads(config.read_text())
    del settings["scaling_factor"]
    config.write_text(json.dumps(settings))
    words = [word.format(clips=clips, equal=equal, without=vae_alone) for word in words]
    with pytest.raises(InputError, match=named):
        predict_job(load_prediction([*words, f"output={tmp_path / 'out'}"]))
    assert not (tmp_path / "out" / "tables").exists()
