"""The formulas of guidance methods against slow, literal ones: values and gradients."""

import math

import pytest
import torch

from motionexp.config.compose import load
from motionexp.diffusion import inversion
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.hooks import Attended
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.moft import motion_channels, without_mean
from motionexp.methods.motionclone import frame_attention, link_loss
from motionexp.methods.smm import difference_loss, with_low_frequencies
from motionexp.methods.time_to_move import coarse_video
from tests.support.guidance_runs import guidance, noise_of, reference, sampled


@pytest.fixture(autouse=True)
def _few_steps_of_inversion(monkeypatch):
    monkeypatch.setattr(inversion, "LEAST_STEPS", 4)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(loss, literal, leaf):
    torch.testing.assert_close(loss, literal)
    ours, theirs = (torch.autograd.grad(value.sum(), leaf, retain_graph=True)[0] for value in (loss, literal))
    torch.testing.assert_close(ours, theirs)
    assert ours.abs().max() > 0


def test_space_time_feature_differences():
    features, target = drawn(2, 5, 4).requires_grad_(), drawn(1, 5, 4, seed=1)  # (B, D, F)
    rows = []
    for video in features:
        anchors = []
        for i in range(4):
            cosines = []
            for j in range(4):
                if i != j:
                    ours, theirs = video[:, i] - video[:, j], target[0, :, i] - target[0, :, j]
                    cosines.append(1 - ours @ theirs / (ours.norm() * theirs.norm()))
            anchors.append(sum(cosines) / 3)
        rows.append(sum(anchors) / 4)
    assert_same(difference_loss(features, target), torch.stack(rows), features)
    equal = difference_loss(target, target)
    torch.testing.assert_close(equal, torch.zeros_like(equal))


def test_low_frequencies_are_the_inverted_ones_and_high_ones_those_of_the_noise():
    noise, inverted = drawn(1, 2, 3, 8, 8), drawn(1, 2, 3, 8, 8, seed=1)
    mixed = with_low_frequencies(noise, inverted, 4)
    torch.testing.assert_close(with_low_frequencies(noise, noise, 4), noise)
    torch.testing.assert_close(
        mixed - noise, with_low_frequencies(torch.zeros_like(noise), inverted - noise, 4)
    )
    assert (mixed - noise).diff(dim=-1).abs().max() < (inverted - noise).diff(dim=-1).abs().max() / 2
    # All is low frequency where nothing is made smaller.
    torch.testing.assert_close(with_low_frequencies(noise, inverted, 1), inverted)


def test_motion_features_and_channels(loaded):
    method = guidance("moft", loaded, share=0.4, weight=3.0)
    features, target = drawn(2, 5, 3, 2, 2).requires_grad_(), without_mean(drawn(1, 5, 3, 2, 2, seed=1))
    channels = motion_channels(target, 0.4)
    observations = torch.stack([target[0, :, f, y, x] for f in range(3) for y in range(2) for x in range(2)])
    _, _, vectors = torch.linalg.svd(observations, full_matrices=False)
    assert channels.tolist() == sorted(vectors[0].abs().argsort(descending=True)[:2].tolist())
    method._target = channels, target[:, channels]

    class Read:
        def features(self, *args):
            return [features]

    rows = []
    for video in features:
        terms = []
        for channel in channels.tolist():
            for f in range(3):
                for y in range(2):
                    for x in range(2):
                        mean = sum(video[channel, frame, y, x] for frame in range(3)) / 3
                        terms.append((video[channel, f, y, x] - mean - target[0, channel, f, y, x]) ** 2)
        rows.append(3.0 * sum(terms) / len(terms))
    assert_same(method.batch_losses(Read(), None, 0.0, None), torch.stack(rows), features)


def test_sparse_temporal_attention():
    query, key = drawn(2, 2, 3, 4, 5).float().requires_grad_(), drawn(2, 2, 3, 4, 5, seed=1).float()
    of_reference = drawn(1, 2, 3, 4, 5, seed=2).float(), drawn(1, 2, 3, 4, 5, seed=3).float()
    values, frames = frame_attention(Attended(*of_reference, of_reference[0], slice(0, 1), "")).max(-1, True)
    part = Attended(query, key, key, slice(0, 2), "")
    rows = []
    for b in range(2):
        terms = []
        for head in range(2):
            for place in range(4):
                for f in range(3):
                    stored = torch.stack(
                        [
                            of_reference[0][0, head, f, place] @ of_reference[1][0, head, g, place]
                            for g in range(3)
                        ]
                    )
                    strongest = int((stored / math.sqrt(5)).softmax(0).argmax())
                    scores = torch.stack(
                        [query[b, head, f, place] @ key[b, head, g, place] for g in range(3)]
                    )
                    ours, theirs = (
                        (numbers / math.sqrt(5)).softmax(0)[strongest] for numbers in (scores, stored)
                    )
                    terms.append((ours - theirs) ** 2)
        rows.append(sum(terms) / len(terms))
    assert_same(link_loss(frame_attention(part), values, frames), torch.stack(rows), query)


def test_motionclone_changes_the_direction_to_x_t_alone(loaded):
    """x_prev is DDIM's, of x_0 by the plain prediction and of the noise less its share of the gradient."""
    method, schedule = guidance("motionclone", loaded, Window(0), weight=2.0), loaded.schedule
    method.timesteps = schedule.timesteps(4)
    t, t_prev = schedule.step_pairs(4)[1]
    x_t, output = noise_of(loaded, 1), noise_of(loaded, 2)[1:]
    method._gradient = drawn(*x_t.shape, seed=5).float()
    ours = method.correct(schedule.step(x_t, output, t, t_prev), t, t_prev)
    x_0, noise = schedule.to_x0(x_t, output, t), schedule.to_epsilon(x_t, output, t)
    now, prev = schedule.alpha_bar(t), schedule.alpha_bar(t_prev)
    noise = noise - (1 - now).sqrt() * 2.0 * method.ramp_at(t) * method._gradient
    torch.testing.assert_close(ours, prev.sqrt() * x_0 + (1 - prev).sqrt() * noise)


def test_motionclones_weight_rises_and_falls(loaded):
    method = guidance("motionclone", loaded)
    method.timesteps = list(range(50))
    assert [method.ramp_at(step) for step in (0, 4, 9, 25, 40, 45, 49)] == [0.1, 0.5, 1, 1, 1, 0.5, 0.1]


def test_inversion_starts_from_the_reference_and_mixes_by_scale(loaded):
    settings = guidance("inversion", loaded)
    watched = reference(loaded)
    starts = []

    def start(scale):
        method = guidance("inversion", loaded)
        method.scale = scale
        begin = method.start
        method.start = lambda *args: (starts.append(begin(*args)), starts[-1])[1]
        sampled(loaded, method)
        return starts[-1]

    first = loaded.schedule.timesteps(4)[0]
    inverted = inversion.invert(
        loaded, watched.latents, watched.conditioning, None, inversion.SamplerSettings(4, guidance_scale=1)
    )[first]
    torch.testing.assert_close(start(1.0), inverted)
    noise = noise_of(loaded, 2)[:1]
    torch.testing.assert_close(start(0.25), 0.5 * inverted + math.sqrt(0.75) * noise)
    with pytest.raises(InputError, match="adapter_scale=2"):
        start(2.0)
    assert settings.cost.forward == 0


def test_flowmotion_follows_the_predicted_video_without_the_networks_gradient(loaded):
    method = guidance("flowmotion", loaded)
    x_t, captions = noise_of(loaded, 2).requires_grad_(), loaded.embed(["a", "b"])
    method._target = drawn(1, 4, 4, 4, 4, seed=6).float()
    with torch.no_grad():
        output = loaded.predict(x_t, 800.0, captions)
    x_0 = loaded.schedule.to_x0(x_t, output, 800.0)  # the output is a constant
    rows = []
    for ours, theirs in zip(x_0, method._target.expand(2, -1, -1, -1, -1), strict=True):
        squared = ((ours - theirs) ** 2).mean()
        changes = [
            ((ours[:, f + 1] - ours[:, f]).abs() - (theirs[:, f + 1] - theirs[:, f]).abs()) ** 2
            for f in range(3)
        ]
        rows.append(20 * squared + 5 * torch.stack(changes).mean())
    assert_same(method.batch_losses(None, x_t, 800.0, captions), torch.stack(rows), x_t)


def test_flowmotions_target_is_predicted_for_the_noised_reference(loaded):
    method = guidance("flowmotion", loaded, Window(900))
    sampled(loaded, method)
    assert method.losses == {}
    method = guidance("flowmotion", loaded, Window(700))
    sampled(loaded, method)
    (t,) = method.losses
    watched = method.reference
    noised = loaded.schedule.add_noise(watched.latents, method.noise, t)
    with torch.no_grad():
        expected = loaded.schedule.to_x0(noised, loaded.predict(noised, t, watched.conditioning), t)
    torch.testing.assert_close(method._target, expected)


def test_flowmotions_window_is_the_first_10_of_50_steps_at_its_shift():
    window = Window(load(["method=flowmotion"]).tau)
    steps = FlowSchedule(shift=3.0).timesteps(50)
    assert [window.contains(t) for t in steps] == [True] * 10 + [False] * 40


def test_nearest_neighbours_of_latents(loaded):
    method = guidance("nearest", loaded, temperature=3.0, injection=False)
    latents = drawn(1, 4, 2, 2, 3).float().requires_grad_()  # (B, C, F, h, w)
    soft, hard = method.flow(latents, soft=True), method.flow(latents, soft=False)
    places = [(row, column) for row in range(2) for column in range(3)]
    expected = []
    for i in range(2):
        for j in range(2):
            for row, column in places:
                mine = latents[0, :, i, row, column]
                theirs = [latents[0, :, j, y, x] for y, x in places]
                cosines = torch.stack([mine @ latent / (mine.norm() * latent.norm()) for latent in theirs])
                y, x = places[int(cosines.argmax())]
                assert hard[0, i, j, row * 3 + column].tolist() == [y - row, x - column]
                weights = (3 * cosines).softmax(0)
                offsets = torch.tensor([[y - row, x - column] for y, x in places])
                expected.append((weights[:, None] * offsets).sum(0))
    literal = torch.stack(expected).view(1, 2, 2, 6, 2)
    assert_same(soft, literal, latents)


def test_a_coarse_video_moves_as_the_reference_and_its_clocks_run_out(loaded):
    first = torch.zeros(4, 4, 4)
    first[0], first[1, 1, 0], first[0, 1, 0] = 1.0, 5.0, 0.0  # a point on an even ground
    first[2] = 0.1 * torch.arange(16).reshape(4, 4) ** 2
    moved = first.clone()
    moved[:, 1, 1], moved[:, 1, 0] = first[:, 1, 0], first[:, 1, 1]
    coarse, moves = coarse_video(torch.stack([first, moved], dim=1)[None])
    torch.testing.assert_close(coarse[0, :, 1], moved)
    assert moves[0, 0, 0].sum() == 0
    assert moves[0, 0, 1].nonzero().tolist() == [[1, 0], [1, 1]]
    method = guidance("time_to_move", loaded, Window(300), background_t=700.0)
    method.noise, x = noise_of(loaded, 1), noise_of(loaded, 2)[1:]
    forced = {t: loaded.schedule.add_noise(method.coarse, method.noise, t) for t in (750, 500)}
    torch.testing.assert_close(method.correct(x, 999, 750), forced[750])
    expected = method.moves * forced[500] + (1 - method.moves) * x
    torch.testing.assert_close(method.correct(x, 750, 500), expected)
    assert torch.equal(method.correct(x, 500, 250), x)
    method.scale = 0.5
    torch.testing.assert_close(method.correct(x, 999, 750), (forced[750] + x) / 2)


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("inversion", {"prompt": "x"}, "method.prompt=x"),
        ("smm", {"source": "x"}, "method.source=x"),
        ("smm", {"blocks": [9]}, "block=9"),
        ("smm", {"downsampling": 0}, "method.downsampling=0"),
        ("moft", {"share": 0.0}, "method.share=0"),
        ("moft", {"reference_t": 1001.0}, "method.reference_t=1001"),
        ("flowmotion", {"weight": 0.0, "weight_of_changes": 0.0}, "method.weight=0"),
        ("nearest", {"temperature": -1.0}, "method.temperature=-1"),
        ("time_to_move", {"background_t": 1001.0}, "method.background_t=1001"),
        ("motionclone", {"ramp": 0.6}, "method.ramp=0.6"),
        ("motionclone", {"block": 9}, "block=9"),
        ("smm", {"blocks": []}, r"method.blocks=\[\]"),
        ("injection", {"injection_blocks": []}, r"method.injection_blocks=\[\]"),
        ("nearest", {"temperature": math.nan}, "method.temperature=nan"),
        ("moft", {"weight": math.nan}, "method.weight=nan"),
        ("moft", {"weight": math.inf}, "method.weight=inf"),
        ("motionclone", {"weight": math.nan}, "method.weight=nan"),
        ("motionclone", {"weight": math.inf}, "method.weight=inf"),
        ("flowmotion", {"weight": math.nan}, "method.weight=nan"),
        ("flowmotion", {"weight_of_changes": math.inf}, "method.weight_of_changes=inf"),
        ("flowmotion", {"first_rate": math.nan}, "method.first_rate=nan"),
        ("smm", {"last_rate": math.inf}, "method.last_rate=inf"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name, settings, named, loaded):
    with pytest.raises(InputError, match=named):
        guidance(name, loaded, **settings)
