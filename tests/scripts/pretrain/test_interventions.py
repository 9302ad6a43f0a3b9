"""A small Latte with one cause changed: trained, continued, and used as a model."""

from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
from diffusers import DDIMScheduler

from motionexp.backbones.latte import LatteBackbone
from motionexp.data.shapes.grammar import COLOURS
from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import pretraining_scene
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.errors import InputError
from motionexp.scripts.pretrain import interventions, videos
from motionexp.scripts.pretrain.interventions import INTERVENTIONS, train


def test_an_intervention_is_trained_continued_and_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(videos, "CHUNK", 4)
    monkeypatch.setattr(interventions, "OUTPUT", tmp_path / "models")
    monkeypatch.setattr(interventions, "FOLDER", tmp_path)
    monkeypatch.setattr(interventions, "PretrainingVideos", lambda count, chroma: Rendered(count, chroma))
    args = Namespace(
        videos=4, steps=2, image_steps=1, batch=2, image_batch=2, rate=1e-3, seconds=None, untrained=False,
        output=tmp_path / "training",
    )  # fmt: skip
    train("schedule_double", args)
    train("schedule_double", Namespace(**{**vars(args), "steps": 3}))
    assert "going on from step 2" in capsys.readouterr().out
    model = LatteBackbone.from_pretrained(tmp_path / "models" / "schedule_double", name="double")
    expected = DDIMScheduler(beta_start=2e-4, beta_end=4e-2).alphas_cumprod
    assert model.schedule.alphas_cumprod.numpy() == pytest.approx(expected.numpy())
    assert model.schedule.prediction_type == "v_prediction"


class Rendered:
    """Pretraining videos in main memory."""

    frames = 16

    def __init__(self, count: int, chroma: float) -> None:
        self.chroma, self._scenes = chroma, [pretraining_scene(index) for index in range(count)]

    def __len__(self) -> int:
        return len(self._scenes)

    def video(self, index: int) -> np.ndarray:
        return render(self._scenes[index])

    def scenes(self) -> list:
        return self._scenes


def test_chroma_changes_nothing_but_the_objects_colours():
    scene = replace(pretraining_scene(0), contrast="motion-dominant")
    whole, half = (render(replace(scene, chroma=chroma)).astype(float) for chroma in (1, 0.5))
    grey = render(replace(scene, chroma=1e-9)).astype(float)
    # Linear in the chroma, to the rounding of two pictures.
    assert np.abs((whole - grey) / 2 - (half - grey)).max() <= 1
    # Hues have no luminance.
    assert np.abs((whole - grey).mean(-1)).max() <= 1
    assert np.abs(whole - grey).max() > 10


def test_captions_leave_out_the_words_for_colours_alone():
    whole, bare = (
        ShapesReferences(unnamed=unnamed).read("01-wander-cyan-square") for unnamed in ("", "colour")
    )
    captions = [[video.caption, *(edit.caption for edit in video.edits)] for video in (whole, bare)]
    for first, second in zip(*captions, strict=True):
        words = [word for word in first.split() if word not in COLOURS]
        assert second.split() == ["a" if word == "an" else word for word in words]
    assert bare.strata == {**whole.strata, "unnamed": "colour"}
    assert np.array_equal(whole.frames, bare.frames)


def test_captions_without_appearance_have_shapes_and_motions_alone():
    bare = ShapesReferences(unnamed="appearance").read("01-wander-cyan-square")
    assert bare.caption == "a square is moving"
    assert {edit.kind: edit.caption for edit in bare.edits}["style"] == bare.caption
    assert bare.strata["unnamed"] == "appearance"


@pytest.mark.parametrize("wrong", [{"chroma": 0.0}, {"chroma": 3.0}, {"unnamed": "shape"}])
def test_another_world_than_there_is_is_an_error(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ShapesReferences(**wrong)


def test_two_schedules_two_contrasts_and_two_captions_are_changed():
    changes = [
        tuple(name for name in ("scheduler", "chroma", "unnamed", "empty_share")
              if getattr(one, name) != getattr(interventions.Intervention(""), name))
        for one in INTERVENTIONS.values()
    ]  # fmt: skip
    assert changes == [("scheduler",)] * 2 + [("chroma",)] * 2 + [("unnamed",), ("empty_share",)]
