"""Our scores against the TGVE benchmark's (`scripts/run_eval.py`), written again, slowly, on transformers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from motionexp.data.base import Edit, Reference
from motionexp.metrics.scorer import Scorer
from tests.metrics.conftest import noise_video
from tests.metrics.tiny_clips import CLIP, CONTEXT, PREFERENCE, hugging_face_clip, processor, tokenizer

METRICS = ["text_alignment", "frame_consistency", "pick_score"]
CAPTIONS = ("A cat runs on grass, oil painting", "Two DOGS jump over a fence.", "a red car", "snow & ice")


def benchmark(model, frames, caption, side):
    """(text score, frame consistency) of one video and caption, as the benchmark computes them."""
    texts = tokenizer()([caption], padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt")
    images = [Image.fromarray(frame) for frame in frames]
    images = [image.resize((side, side)) if side else image for image in images]
    pixels = processor()(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = model(**texts, pixel_values=pixels).logits_per_image
        features = model.get_image_features(pixels).pooler_output
    pairs = [(a, b) for i, a in enumerate(features) for j, b in enumerate(features) if i != j]
    cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in pairs]
    return float(logits.mean()), float(np.mean(cosines))


@pytest.mark.parametrize("resize", [480, 0])
def test_scores_are_the_benchmarks_own(scoring_models, resize):
    scorer = Scorer(METRICS, replace(scoring_models, resize=resize))
    texts = set()
    for shape, captions in (((4, 10, 14), CAPTIONS[:2]), ((3, 12, 8), CAPTIONS[2:])):
        frames = noise_video(*shape).repeat(6, axis=1).repeat(6, axis=2)
        for caption in captions:
            text, consistency = benchmark(hugging_face_clip(*CLIP), frames, caption, resize)
            pick, _ = benchmark(hugging_face_clip(*PREFERENCE), frames, caption, resize)
            edit = Edit("style", caption)
            scores = scorer.score(frames, Reference("r", "tgve", frames, 8.0, "a thing", (edit,)), edit)
            assert scores["text_alignment"]["text_alignment"].value == pytest.approx(text, abs=1e-4)
            pairs = scores["frame_consistency"]["frame_consistency_pairs"].value
            assert pairs / 100 == pytest.approx(consistency, abs=1e-4)
            assert scores["pick_score"]["pick_score"].value == pytest.approx(pick, abs=1e-4)
            texts.add(round(text, 2))
    assert len(texts) == 4  # the random model tells videos and captions apart


def test_the_resizing_is_part_of_what_identifies_a_score(scoring_models):
    resized, plain = Scorer(METRICS, scoring_models), Scorer(METRICS, replace(scoring_models, resize=0))
    for name in METRICS:
        assert resized.model_of(name) != plain.model_of(name)
