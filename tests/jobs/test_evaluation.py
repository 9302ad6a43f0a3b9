import numpy as np
import pytest
import torch

from motionexp.data.base import Edit
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.diffusion.sampling import SamplerSettings, initial_noise
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs.evaluation import SampleSettings, count_adapter_steps, peak_memory, sample
from motionexp.methods.lora import LoRA
from motionexp.metrics.scorer import Scorer
from tests.support.squares import Squares
from tests.support.tiny_models import FRAMES, SIZE, tiny_backbone, tiny_pipeline

RED, BLUE = Edit("style", "a red one"), Edit("object", "a longer blue one 12")
SETTINGS = SampleSettings(SamplerSettings(steps=3, guidance_scale=2.0), seed=5)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return tiny_backbone(tmp_path_factory.mktemp("weights"))


def tuned(backbone, low: float) -> LoRA:
    """An adapter that changes what it touches."""
    method = LoRA(backbone, Window(low), rank=2, alpha=2.0)
    with torch.no_grad():
        for name, parameter in method.parameters.items():
            if "lora_B" in name:
                parameter.fill_(0.3)
    return method


def frames(backbone, method, requests, settings=SETTINGS, **arguments) -> list[np.ndarray]:
    edits, indices = zip(*requests, strict=True)
    samples = sample(backbone, method, edits, settings, indices=indices, **arguments)
    return [video.frames for video in samples]


def test_the_base_model_gives_what_the_stock_pipeline_gives_on_the_same_noise(backbone):
    (ours,) = frames(backbone, None, [(RED, 1)])
    shape = backbone.latent_shape(FRAMES, SIZE, SIZE)
    theirs = tiny_pipeline()(
        RED.caption,
        negative_prompt="",
        num_inference_steps=3,
        guidance_scale=2.0,
        height=SIZE,
        width=SIZE,
        video_length=FRAMES,
        latents=initial_noise(5, 1, shape)[None],
        clean_caption=False,
        mask_feature=True,
        output_type="pt",
    ).frames[0]
    difference = np.abs(ours.astype(float) - 255 * theirs.permute(0, 2, 3, 1).numpy())
    assert difference.max() <= 1


def test_a_sample_does_not_depend_on_its_batch(backbone):
    requests = [(RED, 0), (BLUE, 0), (RED, 1)]
    together = frames(backbone, None, requests, at_once=3)
    apart = frames(backbone, None, requests)
    assert np.shape(together)[:2] == (3, FRAMES)
    assert np.abs(np.subtract(together, apart, dtype=int)).max() <= 1
    assert np.abs(together[0].astype(int) - together[1]).max() > 1
    assert np.abs(together[0].astype(int) - together[2]).max() > 1


def test_tau_1000_is_the_base_model_bit_for_bit_and_tau_0_is_not(backbone):
    base = frames(backbone, None, [(RED, 0)])
    videos = {}
    for low in (1000, 900, 0):
        method = tuned(backbone, low)
        videos[low] = frames(backbone, method, [(RED, 0)])
        steps = count_adapter_steps(backbone, method, SETTINGS)
        method.remove()
        # Three steps have t = 666, 333 and 0.
        assert steps == {1000: 0, 900: 0, 0: 3}[low]
    assert np.array_equal(videos[1000], base)
    assert np.array_equal(videos[900], base)
    assert not np.array_equal(videos[0], base)
    assert np.array_equal(frames(backbone, None, [(RED, 0)]), base)


def test_scale_0_is_the_base_model_and_counts_no_step(backbone):
    base = frames(backbone, None, [(RED, 0)])
    method = tuned(backbone, 0)
    silent = SampleSettings(SETTINGS.sampler, seed=5, adapter_scale=0.0)
    (video,) = sample(backbone, method, [RED], silent)
    method.remove()
    assert video.adapter_steps == 0
    assert np.abs(video.frames.astype(int) - base[0]).max() <= 1


def test_what_is_said_of_a_sample(backbone):
    steps = []
    show = lambda *counts: steps.append(counts)  # noqa: E731
    samples = sample(backbone, None, [RED, BLUE], SETTINGS, indices=[0, 3], progress=show)
    first = next(samples)
    assert len(steps) == 3, "a sample comes as soon as its batch is done"
    videos = [first, *samples]
    assert [(video.edit, video.index) for video in videos] == [(RED, 0), (BLUE, 3)]
    assert steps == [(done, 6) for done in range(1, 7)]
    assert all(video.seconds > 0 for video in videos)
    assert 2**20 < peak_memory(torch.device("cpu")) < 2**40


class Black:
    """Stands for CLIP and the scorer: a frame's features are its mean colour."""

    logit_scale = 10.0
    identity = "black"
    videos = 0

    def embed_frames(self, frames):
        self.videos += 1
        colours = torch.from_numpy(frames.reshape(len(frames), -1, 3).mean(1)).float() + 1
        return torch.nn.functional.normalize(colours, dim=-1)

    def embed_captions(self, captions):
        return torch.nn.functional.normalize(torch.ones(len(captions), 3), dim=-1)


@pytest.fixture
def fakes(monkeypatch):
    from motionexp.metrics.encoders import OpenClip, PreferenceModel

    clip, scorer = Black(), Black()
    monkeypatch.setattr(OpenClip, "load", lambda *a, **k: clip)
    monkeypatch.setattr(PreferenceModel, "load", lambda *a, **k: scorer)
    return clip, scorer


def test_a_video_goes_once_through_each_model_however_many_metrics_ask(fakes):
    reference = Squares().read("one", FRAMES, 32, 32)
    names = ["text_alignment", "frame_consistency", "pick_score", "appearance_leakage", "flow_similarity"]
    scorer = Scorer(names)
    scores = scorer.score(reference.frames, reference, reference.edits[0])
    assert list(scores) == names
    assert [model.videos for model in fakes] == [1, 1]
    assert scores["text_alignment"]["text_alignment"].value == pytest.approx(10, abs=0.1)
    assert scores["flow_similarity"]["flow_similarity"].value == pytest.approx(1)
    assert scorer.model_of("flow_similarity") == ""
    assert scorer.model_of("text_alignment") == scorer.model_of("frame_consistency") != ""


def test_a_reference_with_a_frame_too_many_is_scored_without_it():
    reader, scorer = ShapesReferences("tuning"), Scorer(["flow_similarity", "trajectory", "nuisances"])
    name = reader.names()[0]
    longer, exact = reader.read(name, 17), reader.read(name, 16)
    frames = longer.frames.copy()
    frames[16] = 0  # what this frame shows does not count
    scores = scorer.score(frames, longer, longer.edits[0])
    assert scores["trajectory"]["velocity_similarity"].value > 0.9
    for metric, values in scorer.score(exact.frames, exact, exact.edits[0]).items():
        for value, measured in values.items():
            assert scores[metric][value].value == pytest.approx(measured.value, nan_ok=True), value


def test_metrics_that_need_truth_are_left_out_where_there_is_none_and_refused_where_asked_for(fakes):
    reference = Squares().read("one", FRAMES, SIZE, SIZE)
    edit = reference.edits[0]
    some = Scorer(["flow_similarity", "trajectory"])
    some.explicit = False
    assert some.applicable(reference, edit) == ["flow_similarity"]
    with pytest.raises(InputError, match="reference one of suite squares"):
        Scorer(["trajectory"]).score(reference.frames, reference, edit)


def test_a_soft_window_scales_the_adapter_step_by_step(backbone, monkeypatch):
    method = tuned(backbone, 100)
    scales = []
    original = type(backbone).predict

    def watched(self, x_t, t, conditioning):
        scales.append((t, method.scale if method.set_active(t) else 0.0))
        return original(self, x_t, t, conditioning)

    try:
        monkeypatch.setattr(type(backbone), "predict", watched)
        # Three steps have t = 666, 333 and 0.
        method.window = Window(100, 1000, ((100, 0.0), (1000, 1.0)))
        settings = SampleSettings(SamplerSettings(steps=3, guidance_scale=2.0), seed=5, adapter_scale=0.5)
        ramp = frames(backbone, method, [(RED, 0)], settings)
        assert scales == [
            (666, pytest.approx(0.5 * 566 / 900)),
            (333, pytest.approx(0.5 * 233 / 900)),
            (0, 0.0),
        ]
        assert count_adapter_steps(backbone, method, settings) == 2
        # A soft window that is 1 throughout is the hard one.
        method.window = Window(100, 1000, ((100, 1.0),))
        even = frames(backbone, method, [(RED, 0)])
        method.window = Window(100)
        hard = frames(backbone, method, [(RED, 0)])
    finally:
        method.remove()
    assert np.array_equal(even[0], hard[0])
    assert not np.array_equal(ramp[0], hard[0])
