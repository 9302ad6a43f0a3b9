import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPProcessor

from motionexp.config.schema import BUNDLED
from motionexp.data.shapes.grammar import ATTRIBUTES, vocabulary
from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import pretraining_scene
from motionexp.metrics.encoders import PreferenceModel
from motionexp.scripts.pretrain.captioned import CaptionedFrames, unseen_scenes
from motionexp.scripts.pretrain.clip import CONTEXT, normalised
from motionexp.scripts.pretrain.clip_text import build_tokenizer
from motionexp.scripts.pretrain.preference_model import (
    CORRUPTIONS,
    Embedder,
    build,
    corrupted,
    negative,
    off_colour,
    preference_accuracy,
    preference_loss,
    smeared,
    step_loss,
)

FOLDER = BUNDLED / "scorer"


@pytest.fixture(scope="module")
def bundled() -> tuple[CLIPModel, CLIPProcessor]:
    """Model and processor as anybody would load them."""
    model = AutoModel.from_pretrained(FOLDER, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(FOLDER)


def test_it_is_right_about_attributes_and_corrupted_frames():
    rates = preference_accuracy(PreferenceModel.load(), unseen_scenes("motion-dominant", 32))
    assert set(rates) == {*ATTRIBUTES, *CORRUPTIONS, "all"}
    assert rates["all"] >= 0.93
    assert min(rates.values()) >= 0.8


def test_the_processor_is_what_training_saw(bundled: tuple[CLIPModel, CLIPProcessor]):
    frame = render(pretraining_scene(1), select=[3])
    pixels = bundled[1].image_processor(images=list(frame), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, normalised(frame), atol=1e-5, rtol=0)


def test_each_word_is_one_token_and_any_text_can_be_spelt(bundled: tuple[CLIPModel, CLIPProcessor]):
    tokenizer = bundled[1].tokenizer
    ids = np.array([tokenizer(word).input_ids for word in vocabulary()])
    assert ids.shape == (len(set(ids[:, 1])), 3) == (len(vocabulary()), 3)
    assert tokenizer.get_vocab() == build_tokenizer(CONTEXT).get_vocab()
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    strange = tokenizer("zebra é 😀 7!").input_ids
    assert strange[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in strange[:-1]
    assert len(tokenizer(pretraining_scene(0).caption).input_ids) <= CONTEXT


def test_a_caption_s_padding_does_not_matter():
    scorer = PreferenceModel.load()
    captions = [scene.caption for scene in (*unseen_scenes("motion-dominant", 3), *unseen_scenes("pairs", 3))]
    together = scorer.embed_captions(captions)
    apart = torch.cat([scorer.embed_captions([caption]) for caption in captions])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_the_loss_is_the_one_written_out():
    generator = torch.Generator().manual_seed(0)
    image = normalize(torch.randn(6, 5, generator=generator), dim=-1)
    text = normalize(torch.randn(4, 5, generator=generator), dim=-1)
    positive, wrong, bad = image[:2], image[2:4], image[4:]
    expected = torch.tensor(0.0)
    for row in range(2):
        for caption, better, worse in (
            (text[row], positive[row], wrong[row]),
            (text[2 + row], wrong[row], positive[row]),
            (text[row], positive[row], bad[row]),
        ):
            high, low = (7.0 * better @ caption).exp(), (7.0 * worse @ caption).exp()
            expected -= torch.log(high / (high + low)) / 6
    logits = 7.0 * image[:4] @ text.T
    for scores in (logits, logits.T):
        expected -= scores.log_softmax(1).diagonal().mean() / 2
    torch.testing.assert_close(preference_loss(image, text, torch.tensor(7.0)), expected)


def test_a_step_is_the_same_when_it_is_taken_again(noise_videos):
    tokenizer = build_tokenizer(CONTEXT)
    torch.manual_seed(0)
    frames = CaptionedFrames(noise_videos)
    negatives = noise_videos.single_frames(np.arange(len(noise_videos)), np.zeros(len(noise_videos)))
    loss = step_loss(Embedder(build(tokenizer)), frames, negatives, tokenizer, 3)
    assert loss(7).item() == loss(7).item() != loss(8).item()


def test_a_negative_is_always_the_same_and_differs_in_one_attribute():
    for index in range(50):
        scene = pretraining_scene(index)
        changed, frame = negative(scene, index)
        assert (changed, frame) == negative(scene, index)
        assert len(dict(scene.attributes.items() ^ changed.attributes.items())) == 1
        assert 0 <= frame < 16


def test_a_line_is_smeared_along_itself_alone():
    frame = np.zeros((33, 33, 3), np.uint8)
    frame[16] = 200
    assert np.array_equal(smeared(frame, 8, 0.0), frame)
    across = smeared(frame, 8, np.pi / 2)[:, 16, 0].astype(float)
    assert across.sum() == pytest.approx(200, rel=0.05)
    assert (across > 0).sum() == 9


def test_hues_are_turned_about_grey():
    rng = np.random.default_rng(0)
    frame = rng.integers(60, 200, (4, 4, 3), dtype=np.uint8)
    assert np.array_equal(off_colour(frame, 0, 1), frame)
    assert np.array_equal(off_colour(frame, 120, 1), frame[..., [2, 0, 1]])
    assert np.ptp(off_colour(frame, 77, 0).astype(int), axis=-1).max() == 0


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_visible(kind: str):
    rng = np.random.default_rng(0)
    for index in range(20):
        frame = render(pretraining_scene(index), select=[4])[0]
        changed = corrupted(frame, kind, rng)
        assert (changed.shape, changed.dtype) == (frame.shape, np.uint8)
        assert np.abs(changed.astype(float) - frame).max() >= 10
