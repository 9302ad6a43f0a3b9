"""The linear probe against slow and obvious versions, and on latents of which it is known what they hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from motionexp.data.shapes import grammar
from motionexp.diffusion.schedule import NoiseSchedule, generator
from motionexp.probes import linear_probe
from motionexp.probes.block_features import activation_hooks, block_features, motion_blocks, pooled
from motionexp.probes.linear_probe import TARGETS, X_T, X_T_CLEAN, Probe, Ridge
from tests.support.tiny_cogvideox import tiny_cogvideox
from tests.support.tiny_models import tiny_unet3d

MOTIONS = len(TARGETS["motion"])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def planted(count: int, seed: int, signal: float, width: int = 60) -> tuple[Tensor, Tensor]:
    """Features of one fixed direction a motion, `signal` long, in unit noise; and the motions."""
    truth = torch.arange(count) % MOTIONS
    directions = torch.nn.functional.normalize(random(MOTIONS, width), dim=1)
    return signal * directions[truth] + random(count, width, seed=seed), truth


def right_of_two(signal: float, known: Tensor | None = None) -> float:
    """Share right for planted features, learnt with the true motions or with `known`."""
    train, truth = planted(340, 1, signal)
    test, asked = planted(340, 2, signal)
    learnt = {"motion": truth if known is None else known}
    scores = linear_probe.read_classes(train, train[-85:], test, learnt)["motion"]
    return float(linear_probe.two_alternative(scores, asked).mean())


class TestRidge:
    @pytest.mark.parametrize(("videos", "width"), [(12, 30), (30, 7)])
    def test_it_is_penalised_least_squares_with_a_free_offset(self, videos, width):
        features, wanted, others = random(videos, width), random(videos, 3, seed=1), random(5, width, seed=2)
        ridge, penalty = Ridge(features), 0.03
        ours = ridge.scores(ridge.products(others), wanted.double(), penalty) + wanted.mean(0)
        energy = (features - features.mean(0)).square().sum()
        padded = torch.cat([features, torch.ones(videos, 1)], 1).double()
        penalties = torch.diag(torch.tensor([penalty * energy] * width + [0.0])).double()
        weights = torch.linalg.solve(padded.T @ padded + penalties, padded.T @ wanted.double())
        slow = torch.cat([others, torch.ones(5, 1)], 1).double() @ weights
        torch.testing.assert_close(ours, slow, atol=1e-5, rtol=1e-5)

    def test_features_without_any_signal_give_equal_scores(self):
        ridge = Ridge(torch.zeros(6, 4))
        scores = ridge.scores(ridge.products(random(2, 4)), random(6, 3).double(), 1e-5)
        torch.testing.assert_close(scores, torch.zeros(2, 3).double())


class TestReadings:
    def test_a_class_that_is_coded_linearly_is_read_where_the_signal_is_strong(self):
        assert right_of_two(20.0) > 0.99
        assert right_of_two(3.0) < right_of_two(20.0)

    def test_without_signal_it_is_chance(self):
        assert right_of_two(0.0) == pytest.approx(0.5, abs=0.05)

    def test_with_shuffled_classes_it_is_chance_so_that_no_class_leaks(self):
        truth = torch.arange(340) % MOTIONS
        shuffled = truth[torch.randperm(340, generator=torch.Generator().manual_seed(5))]
        assert right_of_two(20.0, shuffled) == pytest.approx(0.5, abs=0.05)

    def test_a_video_s_scores_do_not_depend_on_the_other_test_videos(self):
        (train, truth), (test, _) = planted(68, 1, 5.0), planted(20, 2, 5.0)
        together = linear_probe.read_classes(train, train[-17:], test, {"motion": truth})["motion"]
        alone = linear_probe.read_classes(train, train[-17:], test[:1], {"motion": truth})["motion"]
        torch.testing.assert_close(together[:1], alone)

    def test_the_penalty_is_the_one_of_the_least_error_on_the_held_out_videos(self, monkeypatch):
        train, truth = planted(68, 1, 2.0)
        held_out, test = random(17, 60, seed=7), random(9, 60, seed=8)
        found = linear_probe.read_classes(train, held_out, test, {"motion": truth})["motion"]
        wanted = torch.nn.functional.one_hot(truth, MOTIONS).double()
        part, whole = Ridge(train[:51]), Ridge(train)
        errors = {}
        for penalty in linear_probe.PENALTIES:
            scores = part.scores(part.products(held_out), wanted[:51], penalty)
            errors[penalty] = float((scores + wanted[:51].mean(0) - wanted[51:]).square().sum())
        best = min(errors, key=lambda each: errors[each])
        torch.testing.assert_close(found, whole.scores(whole.products(test), wanted, best))

    def test_right_of_two_classes_is_the_mean_over_all_other_classes(self):
        scores, truth = random(20, 5).round(decimals=0).double(), torch.arange(20) % 5
        slow = []
        for row, own in zip(scores.tolist(), truth.tolist(), strict=True):
            others = [score for number, score in enumerate(row) if number != own]
            slow.append(np.mean([1.0 if row[own] > s else 0.5 if row[own] == s else 0.0 for s in others]))
        assert linear_probe.two_alternative(scores, truth).tolist() == pytest.approx(slow)

    def test_correct_is_the_highest_score(self):
        scores = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
        assert linear_probe.correct(scores, torch.tensor([1, 1])).tolist() == [1.0, 0.0]


class TestIdealObserver:
    def test_it_is_how_often_the_nearer_of_two_known_videos_is_the_right_one(self, backbone):
        schedule, t = backbone.schedule, 700
        first, second = random(50), 0.4 * random(50, seed=1)
        noise = random(20_000, 50, seed=2)
        x_t = schedule.add_noise(first.expand(20_000, 50), noise, t)
        signal = schedule.alpha_bar(t).sqrt()
        nearer = (x_t - signal * first).norm(dim=1) < (x_t - signal * second).norm(dim=1)
        said = linear_probe.ideal_observer(schedule, torch.dist(first, second)[None], t)
        assert 0.6 < float(said) < 0.95
        assert float(said) == pytest.approx(float(nearer.double().mean()), abs=0.01)

    def test_at_pure_noise_it_guesses(self):
        schedule = NoiseSchedule.from_config({"beta_schedule": "linear", "rescale_betas_zero_snr": True,
                                              "prediction_type": "v_prediction"})  # fmt: skip
        assert linear_probe.ideal_observer(schedule, torch.tensor([100.0]), 999).tolist() == [0.5]


class TestScenes:
    def test_motions_come_equally_often_and_parts_share_no_scene(self):
        train, test = (linear_probe.scenes(part, "motion-dominant", 34) for part in ("train", "test"))
        assert sorted(scene.attributes["motion"] for scene in train) == sorted(2 * grammar.CAPTIONED)
        assert not {repr(scene) for scene in train} & {repr(scene) for scene in test}

    def test_a_shape_does_not_tell_the_motion(self):
        found = linear_probe.scenes("train", "motion-dominant", 680)
        own = [grammar.MANNERS[scene.attributes["shape"]] == scene.attributes["motion"] for scene in found]
        assert np.mean(own) == pytest.approx(1 / MOTIONS, abs=0.03)

    def test_labels_are_numbers_of_classes(self):
        found = linear_probe.scenes("test", "appearance-dominant", 5)
        numbers = linear_probe.labels(found)
        for target, classes in TARGETS.items():
            named = [classes[number] for number in numbers[target].tolist()]
            assert named == [scene.attributes[target] for scene in found]


class TestTaps:
    def test_they_leave_the_network_as_it_was(self, backbone):
        x_t, caption = random(1, 4, 4, 4, 4), backbone.embed([""])
        before = backbone.predict(x_t, 500, caption)
        with activation_hooks(backbone.network, ["transformer_blocks.1", "transformer_blocks.0"]) as kept:
            during = backbone.predict(x_t, 500, caption)
        assert list(kept) == ["transformer_blocks.0", "transformer_blocks.1"]
        torch.testing.assert_close(during, before, atol=0, rtol=0)
        kept.clear()
        backbone.predict(x_t, 500, caption)
        assert not kept
        assert not any(module._forward_hooks for module in backbone.network.modules())

    def test_they_are_gone_after_a_mistake_too(self, backbone):
        with pytest.raises(ZeroDivisionError), activation_hooks(backbone.network, ["transformer_blocks.0"]):
            1 / 0  # noqa: B018
        assert not any(module._forward_hooks for module in backbone.network.modules())


class TestFeatures:
    def test_blocks_are_those_of_the_motion_attention(self, backbone):
        assert motion_blocks(backbone, backbone.embed([""])) == [
            "temporal_transformer_blocks.0",
            "temporal_transformer_blocks.1",
        ]

    def test_a_u_net_s_blocks_come_in_the_order_in_which_they_run(self, tmp_path):
        unet = tiny_unet3d(tmp_path)
        early, middle, late = motion_blocks(unet, unet.embed([""]))
        assert early == "transformer_in.transformer_blocks.0"
        assert middle.startswith("mid_block")
        assert late.startswith("up_blocks")

    def test_all_backbones_give_a_row_for_each_video(self, backbone, tmp_path):
        others = tiny_unet3d(tmp_path / "unet3d"), tiny_cogvideox(tmp_path / "cogvideox")
        for each in (backbone, *others):
            shape = each.latent_shape(each.frames, each.height, each.width)
            x_t, caption = random(3, *shape), each.embed([""])
            blocks = motion_blocks(each, caption)
            found = block_features(each, x_t, 500, caption, blocks)
            alone = block_features(each, x_t[1:2], 500, caption, blocks)
            for name in blocks:
                torch.testing.assert_close(found[name][1:2], alone[name], atol=1e-4, rtol=1e-4)
                assert not torch.allclose(found[name][0], found[name][1], atol=1e-3)

    @pytest.mark.parametrize("layout", ["along time", "over all"])
    @pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 8), (2, 3)])
    def test_places_are_means_within_each_frame(self, layout, height, width):
        videos, frames, channels = 2, 3, 5
        tokens = random(videos, frames, height, width, channels)
        if layout == "along time":
            output = tokens.permute(0, 2, 3, 1, 4).reshape(videos * height * width, frames, channels)
        else:
            output = tokens.reshape(videos, frames * height * width, channels)
        found = pooled(output, (videos, 4, frames, 2 * height, 2 * width))
        rows, columns = min(height, 4), min(width, 4)
        cells = tokens.reshape(videos, frames, rows, height // rows, columns, width // columns, channels)
        slow = cells.mean((3, 5)).permute(0, 1, 4, 2, 3).reshape(videos, -1)
        torch.testing.assert_close(found, slow)


class TestProbe:
    @pytest.fixture
    def probe(self, backbone):
        """Latents that hold a pattern for each motion, and nothing of the looks."""
        shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
        patterns = random(MOTIONS, *shape)

        def video(count: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
            numbers = torch.Generator().manual_seed(seed)
            found = {
                target: torch.randint(len(classes), (count,), generator=numbers)
                for target, classes in TARGETS.items()
            }
            return patterns[found["motion"]] + 0.3 * random(count, *shape, seed=seed), found

        (train, known), (test, truth) = video(136, 3), video(80, 4)
        caption = backbone.embed([""])
        return Probe(
            *(backbone, caption, ["temporal_transformer_blocks.0"]),
            train=train, test=test, known=known, truth=truth, draws=1,
        )  # fmt: skip

    def test_what_the_latents_hold_is_read_until_noise_covers_it(self, probe):
        def shares(t: int, target: str) -> dict[str, float]:
            found = probe.read(t).items()
            right = linear_probe.two_alternative
            return {name: float(right(each[target], probe.truth[target]).mean()) for name, each in found}

        clean = shares(0, "motion")
        assert list(clean) == [X_T_CLEAN, X_T, "block temporal_transformer_blocks.0"]
        assert min(clean.values()) > 0.95
        assert all(0.35 < share < 0.65 for share in shares(999, "motion").values())
        assert all(0.35 < share < 0.65 for share in shares(0, "shape").values())

    def test_more_noises_of_a_training_video_come_near_to_what_is_learnt_from_x_0(self, probe):
        def distance(draws: int) -> float:
            found = replace(probe, draws=draws).read(600)
            pair = torch.stack([found[X_T]["motion"].flatten(), found[X_T_CLEAN]["motion"].flatten()])
            return 1 - float(torch.corrcoef(pair)[0, 1])

        assert distance(16) < 0.3 * distance(1)

    def test_x_t_is_learnt_from_the_mean_over_noises_and_chosen_and_tested_on_one(self, probe):
        def noisy(part: str, latents: Tensor, index: int) -> Tensor:
            drawn = [
                torch.randn(latents.shape[1:], generator=generator("linear probe", part, video, index))
                for video in range(len(latents))
            ]
            return probe.backbone.schedule.add_noise(latents, torch.stack(drawn), 600).flatten(1)

        mean = sum(noisy("train", probe.train, index) for index in range(3)) / 3
        clean = probe.backbone.schedule.alpha_bar(600).sqrt() * probe.train.flatten(1)
        held_out, test = noisy("train", probe.train, 0)[102:], noisy("test", probe.test, 0)
        found = replace(probe, draws=3).read(600)
        for name, train in ((X_T, mean), (X_T_CLEAN, clean)):
            slow = linear_probe.read_classes(train, held_out, test, probe.known)
            for target in TARGETS:
                torch.testing.assert_close(found[name][target], slow[target], atol=1e-5, rtol=1e-3)

    def test_progress_counts_every_video_that_goes_through_the_network(self, probe):
        seen: list[int] = []
        twice = replace(probe, draws=2)
        twice.read(500, seen.append)
        assert sum(seen) == twice.evaluations() == 2 * 136 + 80
