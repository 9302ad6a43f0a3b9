"""The linear probe against slow versions, and on latents with known content."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from motionexp.data.shapes import grammar
from motionexp.diffusion.schedule import NoiseSchedule, generator
from motionexp.probes import linear_probe
from motionexp.probes.analysis.linear_rows import TARGETS, X_T, X_T_CLEAN
from motionexp.probes.block_features import block_features, module_outputs, motion_blocks, pooled
from motionexp.probes.linear_probe import LinearProbe, Ridge
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


def accuracy(signal: float, shuffled: bool = False) -> float:
    """Two-alternative accuracy for planted features, learnt with the true motions or with shuffled ones."""
    train, train_labels = planted(340, 1, signal)
    test, test_labels = planted(340, 2, signal)
    if shuffled:
        train_labels = train_labels[torch.randperm(340, generator=torch.Generator().manual_seed(5))]
    scores = linear_probe.read_classes(train, train[-85:], test, {"motion": train_labels})["motion"]
    return float(linear_probe.two_alternative(scores, test_labels).mean())


class TestRidge:
    @pytest.mark.parametrize(("videos", "width"), [(12, 30), (30, 7)])
    def test_it_is_penalised_least_squares_with_a_free_offset(self, videos, width):
        features, targets, test = random(videos, width), random(videos, 3, seed=1), random(5, width, seed=2)
        ridge, penalty = Ridge(features), 0.03
        ours = ridge.scores(ridge.products(test), targets.double(), penalty) + targets.mean(0)
        energy = (features - features.mean(0)).square().sum()
        padded = torch.cat([features, torch.ones(videos, 1)], 1).double()
        penalties = torch.diag(torch.tensor([penalty * energy] * width + [0.0])).double()
        weights = torch.linalg.solve(padded.T @ padded + penalties, padded.T @ targets.double())
        slow = torch.cat([test, torch.ones(5, 1)], 1).double() @ weights
        torch.testing.assert_close(ours, slow, atol=1e-5, rtol=1e-5)

    def test_features_without_any_signal_give_equal_scores(self):
        ridge = Ridge(torch.zeros(6, 4))
        scores = ridge.scores(ridge.products(random(2, 4)), random(6, 3).double(), 1e-5)
        torch.testing.assert_close(scores, torch.zeros(2, 3).double())


class TestScores:
    def test_a_linear_class_is_read_with_a_strong_signal_and_chance_is_left_without_one(self):
        assert accuracy(20.0) > 0.99
        assert accuracy(0.0) == pytest.approx(0.5, abs=0.05)
        # No class leaks into the scores.
        assert accuracy(20.0, shuffled=True) == pytest.approx(0.5, abs=0.05)

    def test_the_penalty_is_the_one_of_the_least_error_on_the_held_out_videos(self):
        train, truth = planted(68, 1, 2.0)
        held_out, test = random(17, 60, seed=7), random(9, 60, seed=8)
        scores = linear_probe.read_classes(train, held_out, test, {"motion": truth})["motion"]
        classes = torch.nn.functional.one_hot(truth, MOTIONS).double()
        part, whole = Ridge(train[:51]), Ridge(train)
        errors = {}
        for penalty in linear_probe.PENALTIES:
            predicted = part.scores(part.products(held_out), classes[:51], penalty) + classes[:51].mean(0)
            errors[penalty] = float((predicted - classes[51:]).square().sum())
        best = min(errors, key=errors.__getitem__)
        torch.testing.assert_close(scores, whole.scores(whole.products(test), classes, best))

    def test_the_penalty_does_not_depend_on_how_frequent_a_class_is(self):
        # Nine of ten training videos have the first motion, and all held-out videos the second one.
        truth = torch.tensor(([0] * 9 + [1]) * 4 + [1] * 4)
        features = torch.nn.functional.one_hot(truth, MOTIONS).float()
        scores = linear_probe.read_classes(features, features[-4:], features, {"motion": truth})["motion"]
        # The features are the classes without noise, so that the least penalty is the best.
        torch.testing.assert_close(scores.float(), features - features.mean(0), atol=1e-3, rtol=0)

    def test_right_of_two_classes_is_the_mean_over_all_other_classes(self):
        scores, truth = random(20, 5).round(decimals=0).double(), torch.arange(20) % 5
        slow = []
        for row, label in zip(scores.tolist(), truth.tolist(), strict=True):
            true_score = row.pop(label)
            slow.append(np.mean([(true_score > score) + 0.5 * (true_score == score) for score in row]))
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
        probability = float(linear_probe.ideal_observer(schedule, torch.dist(first, second)[None], t))
        assert 0.6 < probability < 0.95
        assert probability == pytest.approx(float(nearer.double().mean()), abs=0.01)

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
        attributes = [scene.attributes for scene in linear_probe.scenes("train", "motion-dominant", 680)]
        typical = [grammar.MANNERS[scene["shape"]] == scene["motion"] for scene in attributes]
        assert np.mean(typical) == pytest.approx(1 / MOTIONS, abs=0.03)

    def test_labels_are_numbers_of_classes(self):
        scenes = linear_probe.scenes("test", "appearance-dominant", 5)
        for target, numbers in linear_probe.labels(scenes).items():
            classes = [scene.attributes[target] for scene in scenes]
            assert [TARGETS[target][number] for number in numbers.tolist()] == classes


class TestActivationHooks:
    def test_they_leave_the_network_as_it_was(self, backbone):
        x_t, caption = random(1, 4, 4, 4, 4), backbone.embed([""])
        before = backbone.predict(x_t, 500, caption)
        with module_outputs(backbone.network, ["transformer_blocks.1", "transformer_blocks.0"]) as outputs:
            during = backbone.predict(x_t, 500, caption)
        assert list(outputs) == ["transformer_blocks.0", "transformer_blocks.1"]
        torch.testing.assert_close(during, before, atol=0, rtol=0)
        assert not any(module._forward_hooks for module in backbone.network.modules())
        with pytest.raises(ZeroDivisionError), module_outputs(backbone.network, ["transformer_blocks.0"]):
            1 / 0  # noqa: B018
        assert not any(module._forward_hooks for module in backbone.network.modules())


class TestFeatures:
    def test_blocks_are_those_of_the_motion_attention(self, backbone):
        blocks = [f"temporal_transformer_blocks.{number}" for number in (0, 1)]
        assert motion_blocks(backbone, backbone.embed([""])) == blocks

    def test_a_u_net_s_blocks_come_in_the_order_in_which_they_run(self, tmp_path):
        unet = tiny_unet3d(tmp_path)
        early, middle, late = motion_blocks(unet, unet.embed([""]))
        assert early == "transformer_in.transformer_blocks.0"
        assert middle.startswith("mid_block")
        assert late.startswith("up_blocks")

    def test_all_backbones_give_a_row_for_each_video(self, backbone, tmp_path):
        for model in (backbone, tiny_unet3d(tmp_path / "unet3d"), tiny_cogvideox(tmp_path / "cogvideox")):
            shape = model.latent_shape(model.frames, model.height, model.width)
            x_t, caption = random(3, *shape), model.embed([""])
            blocks = motion_blocks(model, caption)
            together = block_features(model, x_t, 500, caption, blocks)
            alone = block_features(model, x_t[1:2], 500, caption, blocks)
            for name in blocks:
                torch.testing.assert_close(together[name][1:2], alone[name], atol=1e-4, rtol=1e-4)
                assert not torch.allclose(together[name][0], together[name][1], atol=1e-3)

    @pytest.mark.parametrize("layout", ["along time", "over all"])
    @pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 8), (2, 3)])
    def test_places_are_means_within_each_frame(self, layout, height, width):
        videos, frames, channels = 2, 3, 5
        tokens = random(videos, frames, height, width, channels)
        if layout == "along time":
            output = tokens.permute(0, 2, 3, 1, 4).reshape(videos * height * width, frames, channels)
        else:
            output = tokens.reshape(videos, frames * height * width, channels)
        features = pooled(output, (videos, 4, frames, 2 * height, 2 * width))
        rows, columns = min(height, 4), min(width, 4)
        cells = tokens.reshape(videos, frames, rows, height // rows, columns, width // columns, channels)
        slow = cells.mean((3, 5)).permute(0, 1, 4, 2, 3).reshape(videos, -1)
        torch.testing.assert_close(features, slow)


class TestProbe:
    @pytest.fixture
    def probe(self, backbone):
        """Latents with a pattern for each motion, and nothing of the appearance."""
        shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
        patterns = random(MOTIONS, *shape)

        def video(count: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
            rng = np.random.default_rng(seed)
            labels = {name: torch.tensor(rng.integers(len(c), size=count)) for name, c in TARGETS.items()}
            return patterns[labels["motion"]] + 0.3 * random(count, *shape, seed=seed), labels

        (train, train_labels), (test, test_labels) = video(136, 3), video(80, 4)
        caption, blocks = backbone.embed([""]), ["temporal_transformer_blocks.0"]
        return LinearProbe(backbone, caption, blocks, train, test, train_labels, test_labels, draws=1)

    def test_what_the_latents_hold_is_read_until_noise_covers_it(self, probe):
        clean, noise = probe.read(0), probe.read(999)
        assert list(clean) == [X_T_CLEAN, X_T, "block temporal_transformer_blocks.0"]

        def shares(read: linear_probe.Scores, target: str) -> np.ndarray:
            truth = probe.test_labels[target]
            return np.array([linear_probe.two_alternative(s[target], truth).mean() for s in read.values()])

        assert (shares(clean, "motion") > 0.95).all()
        for chance in (shares(noise, "motion"), shares(clean, "shape")):
            assert (np.abs(chance - 0.5) < 0.15).all()

    def test_x_t_is_learnt_from_the_mean_over_noises_and_chosen_and_tested_on_one(self, probe):
        def noisy(part: str, latents: Tensor, index: int) -> Tensor:
            seeds = [generator("linear probe", part, video, index) for video in range(len(latents))]
            drawn = [torch.randn(latents.shape[1:], generator=seed) for seed in seeds]
            return probe.backbone.schedule.add_noise(latents, torch.stack(drawn), 600).flatten(1)

        mean = sum(noisy("train", probe.train, index) for index in range(3)) / 3
        clean = probe.backbone.schedule.alpha_bar(600).sqrt() * probe.train.flatten(1)
        held_out, test = noisy("train", probe.train, 0)[102:], noisy("test", probe.test, 0)
        seen: list[int] = []
        scores = replace(probe, draws=3).read(600, seen.append)
        for name, train in ((X_T, mean), (X_T_CLEAN, clean)):
            slow = linear_probe.read_classes(train, held_out, test, probe.train_labels)
            for target in TARGETS:
                torch.testing.assert_close(scores[name][target], slow[target], atol=1e-5, rtol=1e-3)
        # Progress counts every video that goes through the network.
        assert sum(seen) == replace(probe, draws=3).evaluations() == 3 * 136 + 80
