"""Text alignment against the logits of open_clip and the formula of torchmetrics."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity
from torchmetrics.functional.multimodal import clip_score

from motionexp.errors import InputError
from motionexp.metrics.appearance_leakage import AppearanceLeakage
from motionexp.metrics.feature_cache import FeaturePass
from motionexp.metrics.frame_consistency import (
    FrameConsistency,
)
from motionexp.metrics.pick_score import PickScore
from motionexp.metrics.text_alignment import TextAlignment, text_alignment
from tests.metrics.conftest import noise_video


def test_text_alignment_is_open_clips_logit(clip):
    images = torch.stack([clip.preprocess(Image.fromarray(frame)) for frame in noise_video()])
    with torch.no_grad():
        logits, _ = clip.model.get_logits(images, clip.tokenizer(["a dog runs"]))
    ours = text_alignment(
        clip.embed_frames(noise_video()), clip.embed_captions(["a dog runs"])[0], clip.logit_scale
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
    frames = noise_video()
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
    frames = noise_video()
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


@pytest.mark.parametrize("metric", [TextAlignment, PickScore, FrameConsistency, AppearanceLeakage])
def test_a_model_that_was_not_given_is_named(metric, inputs):
    with pytest.raises(InputError, match="which was not given"):
        metric().measure(inputs())
