import shutil
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from motionexp.errors import InputError
from motionexp.metrics.encoders import OpenClip, PreferenceModel, _open_clip_source
from motionexp.metrics.feature_cache import FeaturePass
from tests.metrics.conftest import noise_video, walk

UNREACHABLE = Mock(side_effect=OSError("the hub cannot be reached"))


def test_many_frames_are_split_without_changing_anything(clip, scorer, monkeypatch):
    for model in (clip, scorer):
        whole = model.embed_frames(noise_video(5))
        monkeypatch.setattr("motionexp.metrics.encoders.FRAMES_AT_ONCE", 2)
        torch.testing.assert_close(model.embed_frames(noise_video(5)), whole)
        monkeypatch.undo()


class Counting:
    logit_scale, identity = 2.0, "0"

    def __init__(self):
        self.calls = []

    def embed_frames(self, frames):
        self.calls.append("frames")
        return torch.ones(len(frames), 1)

    def embed_captions(self, captions):
        self.calls.append(captions[0])
        return torch.ones(len(captions), 1)


def test_a_caption_is_read_once_and_a_model_that_is_not_there_gives_none():
    clip = Counting()
    features = FeaturePass(clip, None)
    captions = [features.caption("a cat") for _ in range(3)]
    assert clip.calls == ["a cat"]
    assert (captions[-1].clip_scale, captions[-1].preference) == (2.0, None)
    assert features.frames(noise_video()).preference is None


def test_weights_hash_tells_weights_apart(clip, scoring_models):
    changed = OpenClip.load(scoring_models.clip)
    assert changed.identity == clip.identity
    with torch.no_grad():
        changed.model.logit_scale += 1e-3
    assert OpenClip(changed.model, changed.preprocess, changed.tokenizer).identity != clip.identity


def test_a_caption_that_would_be_cut_is_refused(clip, scorer):
    for model in (clip, scorer):
        # A start and an end token come on top; 77 fit.
        assert len(model.embed_captions([" ".join(["a"] * 75)])) == 1
        with pytest.raises(InputError, match="77 tokens"):
            model.embed_captions(["short", " ".join(["a"] * 76)])


@pytest.mark.parametrize("name", ["nowhere", "ViT-L-14/nosuchtag"])
def test_a_clip_that_does_not_exist(name):
    with pytest.raises(InputError, match=f"clip={name}"):
        OpenClip.load(name)


def test_a_clip_without_weights_is_not_drawn_at_random(scoring_models, tmp_path):
    shutil.copy(Path(scoring_models.clip) / "open_clip_config.json", tmp_path)
    with pytest.raises(InputError, match=r"no open_clip_model\.safetensors"):
        OpenClip.load(tmp_path)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=f"clip={tmp_path}"):
        OpenClip.load(tmp_path)


def test_quickgelu_follows_the_weights():
    assert _open_clip_source("ViT-L-14/openai") == (
        "ViT-L-14",
        "openai",
        True,
        "timm/vit_large_patch14_clip_224.openai",
    )
    assert not _open_clip_source("ViT-H-14/laion2b_s32b_b79k")[2]


def test_a_scorer_that_lacks_weights_is_refused(scoring_models, tmp_path):
    folder = Path(shutil.copytree(scoring_models.preference, tmp_path / "scorer"))
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="text_projection"):
        PreferenceModel.load(folder, scoring_models.preference_processor)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=f"scorer={folder}"):
        PreferenceModel.load(folder, scoring_models.preference_processor)
    with pytest.raises(InputError, match=r"scorer=\./nowhere"):
        PreferenceModel.load("./nowhere")


@pytest.mark.parametrize(
    ("clip", "command"),
    [
        ("ViT-L-14/openai", "hf download timm/vit_large_patch14_clip_224.openai`"),
        ("hf-hub:owner/clip", "hf download owner/clip`"),
    ],
)
def test_a_clip_that_cannot_be_had_comes_with_the_command_that_fetches_it(clip, command, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model_and_transforms", UNREACHABLE)
    with pytest.raises(InputError, match=command):
        OpenClip.load(clip)


def test_a_scorer_that_cannot_be_had_comes_with_the_commands_that_fetch_it(monkeypatch):
    monkeypatch.setattr(CLIPModel, "from_pretrained", UNREACHABLE)
    with pytest.raises(InputError, match=r"`hf download owner/scorer`.*`hf download other/processor`"):
        PreferenceModel.load("owner/scorer", "other/processor")


def test_features_are_stored_by_content_in_memory_and_from_run_to_run(tmp_path):
    clip, tracker = Counting(), Mock(identity="following", side_effect=lambda frames: walk(0))
    features = FeaturePass(clip, None, tracker, tmp_path / "features")
    for _ in range(2):
        seen, followed = features.frames(noise_video().copy()), features.tracks(noise_video().copy())
    assert (len(clip.calls), tracker.call_count) == (1, 1)
    assert len(list((tmp_path / "features").iterdir())) == 2
    features.frames(noise_video() ^ 1)
    features.frames(noise_video().reshape(3, 64, 48, 3))
    assert len(clip.calls) == 3
    again = FeaturePass(clip, None, tracker, tmp_path / "features")
    torch.testing.assert_close(again.frames(noise_video()).clip, seen.clip)
    np.testing.assert_equal(asdict(again.tracks(noise_video())), asdict(followed))
    assert (len(clip.calls), tracker.call_count) == (3, 1)
    clip.identity = "other weights"
    FeaturePass(clip, None, tracker, tmp_path / "features").frames(noise_video())
    assert len(clip.calls) == 4


def test_memory_holds_the_newest_videos_only(monkeypatch):
    clip = Counting()
    monkeypatch.setattr("motionexp.metrics.feature_cache.VIDEOS_IN_MEMORY", 2)
    features = FeaturePass(clip, None)
    videos = [noise_video() ^ number for number in range(3)]
    for video in (*videos, videos[2], videos[1], videos[0]):
        features.frames(video)
    assert len(clip.calls) == 4


def test_a_damaged_file_of_features_is_named(tmp_path):
    FeaturePass(Counting(), None, folder=tmp_path).frames(noise_video())
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=file.name):
        FeaturePass(Counting(), None, folder=tmp_path).frames(noise_video())
    with pytest.raises(InputError, match=r"motion_fidelity .*tracks"):
        FeaturePass(None, None).tracks(noise_video())
