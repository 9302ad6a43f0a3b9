import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPProcessor

from motionexp.errors import InputError
from motionexp.metrics.base import Tracks
from motionexp.metrics.encoders import OpenClip, PreferenceModel, _open_clip_source
from motionexp.metrics.feature_cache import FeaturePass


def frames(count=3, height=48, width=64):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_clip_features_are_open_clips_own(clip, clip_folder):
    model, _, preprocess = open_clip.create_model_and_transforms(
        f"local-dir:{clip_folder}", require_pretrained=True
    )
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip_folder}")
    model.eval()
    with torch.no_grad():
        for frame, feature in zip(frames(), clip.embed_frames(frames()), strict=True):
            expected = model.encode_image(preprocess(Image.fromarray(frame))[None], normalize=True)[0]
            torch.testing.assert_close(feature, expected)
        expected = model.encode_text(tokenizer(["a red cat"]), normalize=True)
    torch.testing.assert_close(clip.embed_captions(["a red cat"]), expected)
    assert clip.logit_scale == pytest.approx(37.0)


def test_scorer_gives_the_logits_of_its_own_model(scorer, scorer_folder):
    model = CLIPModel.from_pretrained(scorer_folder)
    processor = CLIPProcessor.from_pretrained(scorer_folder, backend="pil")
    inputs = processor(text=["a cat", "dog"], images=list(frames()), return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model(**inputs).logits_per_image
    images, captions = scorer.embed_frames(frames()), scorer.embed_captions(["a cat", "dog"])
    torch.testing.assert_close(scorer.logit_scale * images @ captions.T, expected, rtol=1e-4, atol=1e-4)
    assert scorer.logit_scale == pytest.approx(53.0)


def test_many_frames_are_split_without_changing_anything(clip, scorer, monkeypatch):
    for model in (clip, scorer):
        whole = model.embed_frames(frames(5))
        monkeypatch.setattr("motionexp.metrics.encoders.FRAMES_AT_ONCE", 2)
        torch.testing.assert_close(model.embed_frames(frames(5)), whole)
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
    assert features.frames(frames()).preference is None
    for _ in range(3):
        caption = features.caption("a cat")
    assert clip.calls == ["frames", "a cat"]
    assert caption.clip_scale == 2.0
    assert caption.preference is None


def test_weights_hash_tells_weights_apart(clip, clip_folder):
    other = OpenClip.load(clip_folder)
    assert other.identity == clip.identity
    with torch.no_grad():
        other.model.logit_scale += 1e-3
    assert OpenClip(other.model, other.preprocess, other.tokenizer).identity != clip.identity


@pytest.mark.parametrize("length", [10, 11])
def test_a_caption_that_would_be_cut_is_refused(clip, scorer, length):
    caption = " ".join(["a"] * length)  # and a start and an end token; 12 fit
    for model in (clip, scorer):
        if length == 10:
            assert model.embed_captions([caption]).shape[0] == 1
        else:
            with pytest.raises(InputError, match="more than the 12 tokens"):
                model.embed_captions(["short", caption])


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "neither a folder nor"), ("ViT-L-14/nosuchtag", "neither a folder nor")],
)
def test_a_clip_that_does_not_exist(name, message):
    with pytest.raises(InputError, match=message):
        OpenClip.load(name)


def test_a_clip_without_weights_is_not_drawn_at_random(clip_folder, tmp_path):
    (tmp_path / "open_clip_config.json").write_text((clip_folder / "open_clip_config.json").read_text())
    with pytest.raises(InputError, match=r"no open_clip_model\.safetensors"):
        OpenClip.load(tmp_path)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="open_clip cannot load it"):
        OpenClip.load(tmp_path)


def test_quickgelu_follows_the_weights():
    assert _open_clip_source("ViT-L-14/openai") == ("ViT-L-14", "openai", True)
    assert _open_clip_source("ViT-H-14/laion2b_s32b_b79k") == ("ViT-H-14", "laion2b_s32b_b79k", False)


def test_a_scorer_that_lacks_weights_is_refused(scorer_folder, tmp_path):
    for file in scorer_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="text_projection"):
        PreferenceModel.load(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        PreferenceModel.load("./nowhere")
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="transformers cannot load it"):
        PreferenceModel.load(tmp_path)


@pytest.mark.parametrize(
    ("clip", "command"),
    [
        ("ViT-L-14/openai", "hf download timm/vit_large_patch14_clip_224.openai`"),
        ("hf-hub:owner/clip", "hf download owner/clip`"),
    ],
)
def test_a_clip_that_cannot_be_had_comes_with_the_command_that_fetches_it(clip, command, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model_and_transforms", _unreachable)
    with pytest.raises(InputError, match=command):
        OpenClip.load(clip)


def test_a_scorer_that_cannot_be_had_comes_with_the_commands_that_fetch_it(monkeypatch):
    monkeypatch.setattr(CLIPModel, "from_pretrained", _unreachable)
    with pytest.raises(InputError, match=r"`hf download owner/scorer`.*`hf download other/processor`"):
        PreferenceModel.load("owner/scorer", "other/processor")


def _unreachable(*args: object, **kwargs: object) -> None:
    raise OSError("the hub cannot be reached")


class Following:
    """Stands for a tracker; counts its calls."""

    identity = "following"

    def __init__(self):
        self.calls = 0

    def __call__(self, frames):
        self.calls += 1
        position = np.zeros((len(frames), 3, 2)) + frames.mean((1, 2, 3))[:, None, None]
        return Tracks(position, np.ones((len(frames), 3), bool), 0.5)


def test_features_are_kept_by_content_in_memory_and_from_run_to_run(tmp_path, monkeypatch):
    clip, tracker = Counting(), Following()
    features = FeaturePass(clip, None, tracker, tmp_path / "features")
    for _ in range(2):
        seen, followed = features.frames(frames().copy()), features.tracks(frames().copy())
    assert (len(clip.calls), tracker.calls) == (1, 1)
    assert len(list((tmp_path / "features").iterdir())) == 2
    other = frames()
    other[0, 0, 0, 0] ^= 1
    features.frames(other)
    features.frames(frames().reshape(3, 64, 48, 3))
    assert len(clip.calls) == 3
    again = FeaturePass(clip, None, tracker, tmp_path / "features")
    torch.testing.assert_close(again.frames(frames()).clip, seen.clip)
    np.testing.assert_array_equal(again.tracks(frames()).position, followed.position)
    assert (len(clip.calls), tracker.calls) == (3, 1)
    clip.identity = "other weights"
    FeaturePass(clip, None, tracker, tmp_path / "features").frames(frames())
    assert len(clip.calls) == 4


def test_memory_holds_the_newest_videos_only(monkeypatch):
    clip = Counting()
    monkeypatch.setattr("motionexp.metrics.feature_cache.VIDEOS_IN_MEMORY", 2)
    features = FeaturePass(clip, None)
    videos = [frames() ^ number for number in range(3)]
    for video in (*videos, videos[2], videos[1], videos[0]):
        features.frames(video)
    assert len(clip.calls) == 4


def test_a_damaged_file_of_features_is_named(tmp_path):
    FeaturePass(Counting(), None, folder=tmp_path).frames(frames())
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(b"damaged")
    with pytest.raises(InputError, match=rf"{file.name}: damaged"):
        FeaturePass(Counting(), None, folder=tmp_path).frames(frames())
    with pytest.raises(InputError, match="needs the tracks"):
        FeaturePass(None, None).tracks(frames())
