"""The scores that look through CLIP or a scorer, against independent computations."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity, normalize
from torchmetrics.functional.multimodal import clip_score

from motionexp.errors import InputError
from motionexp.metrics.appearance_leakage import AppearanceLeakage, appearance_leakage
from motionexp.metrics.base import CaptionFeatures, FrameFeatures
from motionexp.metrics.feature_cache import FeaturePass
from motionexp.metrics.frame_consistency import (
    FrameConsistency,
    frame_consistency_consecutive,
    frame_consistency_pairs,
)
from motionexp.metrics.pick_score import PickScore, pick_score
from motionexp.metrics.text_alignment import TextAlignment, text_alignment


def unit(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def video(seed=0, count=4):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_text_alignment_is_open_clips_logit(clip):
    images = torch.stack([clip.preprocess(Image.fromarray(frame)) for frame in video()])
    with torch.no_grad():
        logits, _ = clip.model.get_logits(images, clip.tokenizer(["a dog runs"]))
    ours = text_alignment(
        clip.embed_frames(video()), clip.embed_captions(["a dog runs"])[0], clip.logit_scale
    )
    np.testing.assert_allclose(ours, logits[:, 0].numpy(), rtol=1e-4, atol=1e-4)


class Unwrapped(torch.nn.Module):
    """What torchmetrics 1.9 expects: features as tensors, as they were before transformers 5."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixels):
        return self.model.visual_projection(self.model.vision_model(pixels).pooler_output)

    def get_text_features(self, tokens, mask):
        return self.model.text_projection(self.model.text_model(tokens, mask).pooler_output)


def test_text_alignment_follows_the_formula_of_torchmetrics(scorer):
    """torchmetrics gives 100 x cosine, averaged, then clamped at 0: the same but for the temperature."""
    frames = video()
    for caption in ("a dog runs", "cat", "zebra"):
        theirs = clip_score(
            torch.from_numpy(frames).permute(0, 3, 1, 2),
            [caption] * len(frames),
            model_name_or_path=lambda: (Unwrapped(scorer.model), scorer.processor),
        )
        ours = text_alignment(scorer.embed_frames(frames), scorer.embed_captions([caption])[0], 100.0).mean()
        assert max(ours, 0) == pytest.approx(theirs.item(), abs=1e-3)


def test_temperature_is_read_from_the_weights_not_from_the_config(clip, scorer, inputs):
    features = FeaturePass(clip, scorer)
    frames = video()
    shown = inputs(
        frames, features=features.frames(frames), caption=features.caption("a dog"),
        reference_caption=features.caption("a cat"),
    )  # fmt: skip
    alignment = TextAlignment().measure(shown)["text_alignment"]
    cosine = cosine_similarity(features.frames(frames).clip, features.caption("a dog").clip[None])
    np.testing.assert_allclose(alignment.series, 37.0 * cosine.numpy(), rtol=1e-4)
    preference = PickScore().measure(shown)["pick_score"]
    cosine = cosine_similarity(features.frames(frames).preference, features.caption("a dog").preference[None])
    assert preference.value == pytest.approx(53.0 * float(cosine.mean()), rel=1e-4)


def test_pick_score_is_before_any_softmax():
    frames, caption = unit(5, 7), unit(7, seed=1)
    assert pick_score(frames, caption, 100.0)[0] == pytest.approx(100 * float(frames[0] @ caption), rel=1e-5)
    assert pick_score(frames[:1], caption, 100.0)[0] != pytest.approx(1.0)


def test_both_pairings_against_slow_loops():
    frames = unit(6, 5).double()
    pairs = [
        np.mean([float(frames[i] @ frames[j]) for j in range(6) if i != j]) * 100 for i in range(6)
    ]  # fmt: skip
    np.testing.assert_allclose(frame_consistency_pairs(frames), pairs)
    assert frame_consistency_pairs(frames).mean() == pytest.approx(np.mean(pairs))
    consecutive = [100 * float(frames[i] @ frames[i + 1]) for i in range(5)]
    np.testing.assert_allclose(frame_consistency_consecutive(frames), consecutive)
    assert np.mean(pairs) != pytest.approx(np.mean(consecutive), rel=0.01)


def test_a_frozen_video_scores_100_in_frame_consistency(clip, inputs):
    frames = np.repeat(video(count=1), 6, axis=0)
    shown = inputs(frames, features=FrameFeatures(clip.embed_frames(frames)))
    for measured in FrameConsistency().measure(shown).values():
        assert measured.value == pytest.approx(100, abs=1e-4)


def test_one_frame_has_no_pairs(inputs):
    shown = inputs(features=FrameFeatures(unit(1, 4)))
    for measured in FrameConsistency().measure(shown).values():
        assert np.isnan(measured.value)
        assert "single frame" in measured.reason
    with pytest.raises(ValueError, match="too few"):
        frame_consistency_pairs(unit(1, 4))
    with pytest.raises(ValueError, match="too few"):
        frame_consistency_consecutive(unit(1, 4))


def test_appearance_leakage_is_a_difference_of_cosines_and_changes_sign_with_the_captions(inputs):
    frames, reference, edit = unit(4, 6), unit(6, seed=1), unit(6, seed=2)
    slow = [float(frame @ reference) - float(frame @ edit) for frame in frames]
    np.testing.assert_allclose(appearance_leakage(frames, reference, edit), slow, atol=1e-6)
    np.testing.assert_allclose(appearance_leakage(frames, edit, reference), -np.array(slow), atol=1e-6)
    shown = inputs(
        features=FrameFeatures(frames),
        caption=CaptionFeatures(edit, clip_scale=100.0),
        reference_caption=CaptionFeatures(reference, clip_scale=100.0),
    )
    assert AppearanceLeakage().measure(shown)["appearance_leakage"].value == pytest.approx(np.mean(slow))


@pytest.mark.parametrize("metric", [TextAlignment, PickScore, FrameConsistency, AppearanceLeakage])
def test_a_model_that_was_not_given_is_named(metric, inputs):
    with pytest.raises(InputError, match="which was not given"):
        metric().measure(inputs())
