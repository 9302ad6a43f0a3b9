import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from PIL import Image
from torch.nn.functional import cross_entropy, normalize

from motionexp.config.schema import BUNDLED
from motionexp.data.shapes.grammar import ATTRIBUTES, vocabulary
from motionexp.data.shapes.render import render
from motionexp.data.shapes.scenes import pretraining_scene
from motionexp.metrics.encoders import OpenClip
from motionexp.scripts.pretrain.captioned import (
    PARTS,
    CaptionedFrames,
    caption_accuracy,
    may_be_shown,
    neighbours,
    shown_neighbour,
    unseen_scenes,
)
from motionexp.scripts.pretrain.clip import (
    CONTEXT,
    Embedder,
    build_tokenizer,
    contrastive_loss,
    normalised,
    settings,
    step_loss,
)

FOLDER = BUNDLED / "clip"


@pytest.fixture(scope="module")
def bundled():
    """Model, transform and tokenizer as anybody would load them."""
    source = f"local-dir:{FOLDER}"
    model, _, preprocess = open_clip.create_model_and_transforms(source, require_pretrained=True)
    return model.eval(), preprocess, open_clip.get_tokenizer(source)


def test_the_metrics_find_it_right_attribute_by_attribute():
    rates = caption_accuracy(OpenClip.load(), unseen_scenes("motion-dominant", 32), motion=True)
    assert set(rates) == {*ATTRIBUTES, "all"}
    assert min(rates.values()) >= 0.85


def test_the_transform_is_what_training_saw(bundled):
    _, preprocess, _ = bundled
    frame = render(pretraining_scene(1), select=[3])
    torch.testing.assert_close(preprocess(Image.fromarray(frame[0])), normalised(frame)[0])


def test_each_word_is_one_token_and_case_does_not_matter(bundled):
    _, _, tokenizer = bundled
    unknown, end = build_tokenizer().unk_token_id, build_tokenizer().eos_token_id
    ids = tokenizer(vocabulary())
    assert ids.shape == (len(vocabulary()), CONTEXT)
    assert (ids[:, 1] == end).all()
    assert len(set(ids[:, 0].tolist()) - {unknown}) == len(vocabulary())
    assert torch.equal(tokenizer(["A Red CIRCLE, moves"])[0, :3], tokenizer(["a red circle"])[0, :3])
    assert tokenizer(["a zebra"])[0, 1] == unknown


def test_every_caption_fits(bundled):
    longest = (
        "a poster of an orange striped circle circles clockwise and a cyan ringed moon arcs left on brick"
    )
    captions = [longest, *(pretraining_scene(index).caption for index in range(500))]
    assert (bundled[2](captions)[:, -1] == build_tokenizer().pad_token_id).all()


def test_neighbours_differ_in_one_attribute():
    scene = unseen_scenes("motion-dominant", 1)[0]
    near = list(neighbours(scene))
    assert len({neighbour.still_caption for _, neighbour in near} - {scene.still_caption}) == len(near) == 20
    for attribute, neighbour in near:
        assert {name for name, _ in scene.attributes.items() ^ neighbour.attributes.items()} == {attribute}


def test_no_wrong_caption_is_of_a_held_out_combination():
    rng = np.random.default_rng(0)
    for index in range(200):
        scene = pretraining_scene(index)
        for attribute in ATTRIBUTES:
            neighbour = shown_neighbour(scene, attribute, rng)
            assert may_be_shown(neighbour)
            assert neighbour.still_caption != scene.still_caption


def test_unseen_scenes_are_of_their_part():
    parts = {part: unseen_scenes(part, 8) for part in PARTS}
    assert all(not may_be_shown(scene) for scene in parts["held out"])
    assert all(may_be_shown(scene) for scene in parts["motion-dominant"])
    assert {scene.contrast for scene in parts["appearance-dominant"]} == {"appearance-dominant"}
    assert {len(scene.things) for scene in parts["pairs"]} == {2}


def test_no_two_of_a_batch_look_alike(noise_videos):
    frames = CaptionedFrames(noise_videos)
    rows = frames.rows(np.random.default_rng(0), 100)
    assert len(rows) == 100
    assert len({frames.scenes[row].still_caption for row in rows}) == 100


def test_the_loss_is_the_one_written_out():
    generator = torch.Generator().manual_seed(0)
    image = normalize(torch.randn(3, 5, generator=generator), dim=-1)
    text = normalize(torch.randn(3 + 3 * 2, 5, generator=generator), dim=-1)
    logits = 7.0 * image @ text[:3].T
    expected = (cross_entropy(logits, torch.arange(3)) + cross_entropy(logits.T, torch.arange(3))) / 2
    for row in range(3):
        wrong = text[3 + 2 * row : 5 + 2 * row]
        scores = 7.0 * torch.stack([image[row] @ text[row], *(image[row] @ caption for caption in wrong)])
        expected += -torch.log_softmax(scores, 0)[0] / 3
    torch.testing.assert_close(contrastive_loss(image, text, torch.tensor(7.0)), expected)


def test_a_step_is_the_same_when_it_is_taken_again(noise_videos):
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    embedder = Embedder(CLIP(**settings(len(tokenizer))))
    loss = step_loss(embedder, CaptionedFrames(noise_videos), tokenizer, 3)
    assert loss(7).item() == loss(7).item() != loss(8).item()


def test_the_folder_is_small_and_has_its_card():
    assert "license: apache-2.0" in (FOLDER / "README.md").read_text()
    folders = [FOLDER, BUNDLED / "scorer"]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) < 4e6
