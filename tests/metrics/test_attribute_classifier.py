import numpy as np
import pytest
import torch

from motionexp.data.shapes import grammar
from motionexp.errors import InputError
from motionexp.metrics.attribute_classifier import AttributeClassifier, ClassifierConfig

VALUES = {**grammar.ATTRIBUTES, "motion": grammar.CAPTIONED}


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return AttributeClassifier(ClassifierConfig(VALUES, width=8)).eval()


def videos(count=2, frames=6):
    return torch.randint(
        0, 256, (count, frames, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_looks_do_not_depend_on_the_order_of_frames_and_motion_does(classifier):
    video = videos()
    forwards, backwards = classifier(video), classifier(video.flip(1))
    assert all(forwards[name].shape == (2, len(values) + 1) for name, values in VALUES.items())
    for name in grammar.ATTRIBUTES:
        torch.testing.assert_close(forwards[name], backwards[name])
    assert (forwards["motion"] - backwards["motion"]).abs().max() > 1e-4


def test_gradients_reach_every_weight(classifier):
    classifier.zero_grad()
    sum(logits.square().mean() for logits in classifier(videos()).values()).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in classifier.parameters())


@pytest.mark.parametrize(("winner", "margin", "label"), [(2, 9.0, 2), (-1, 9.0, None), (2, 0.2, None)])
def test_rejected_and_unsure_are_abstentions(classifier, monkeypatch, winner, margin, label):
    logits = {name: torch.zeros(1, len(values) + 1) for name, values in VALUES.items()}
    for tensor in logits.values():
        tensor[0, winner] = margin
    monkeypatch.setattr(classifier, "forward", lambda video: logits)
    predicted = classifier.predict(videos()[0].numpy())
    for name, values in VALUES.items():
        assert predicted.labels[name] == (None if label is None else values[label])
        expected = np.exp(margin) / (np.exp(margin) + len(values))
        assert predicted.confidence[name] == pytest.approx(expected, rel=1e-5)


def test_saved_weights_give_the_same_answers(classifier, tmp_path):
    classifier.save(tmp_path)
    loaded = AttributeClassifier.load(tmp_path)
    assert loaded.config == classifier.config
    assert next(loaded.parameters()).dtype == torch.float32
    for name, expected in classifier(videos()).items():
        torch.testing.assert_close(loaded(videos())[name], expected, rtol=0.02, atol=0.02)


def test_a_damaged_folder_is_refused(classifier, tmp_path):
    def refused():
        with pytest.raises(InputError, match=f"classifier {tmp_path}"):
            AttributeClassifier.load(tmp_path)

    refused()
    classifier.save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"width": 8', '"width": 16'))
    refused()
    classifier.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    refused()


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (4, 32, 32, 3), (4, 64, 64, 1)])
def test_frames_that_it_cannot_read(classifier, shape):
    with pytest.raises(InputError, match="64 x 64 x 3"):
        classifier.predict(np.zeros(shape, np.uint8))
