"""Train the attribute classifier that judges samples: ``python -m motionexp.scripts.pretrain.classifier``.

It may abstain: mush (blends, heavy blur, noise) is rejected for every attribute; a frozen or a shuffled
video, and a motion without a name, for motion alone.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from motionexp.data.shapes import grammar
from motionexp.data.shapes.scenes import Scene
from motionexp.metrics.attribute_classifier import AttributeClassifier, ClassifierConfig
from motionexp.scripts.pretrain.loop import LearningRateSchedule, in_bf16, train
from motionexp.scripts.pretrain.videos import FOLDER, PretrainingVideos

ATTRIBUTES = grammar.ATTRIBUTES | {"motion": grammar.CAPTIONED}


def labels(scene: Scene) -> np.ndarray:
    """Return each attribute's class in the order of ``ATTRIBUTES``; uncaptioned motion: the reject class."""
    row = []
    for name, values in ATTRIBUTES.items():
        value = scene.attributes[name]
        row.append(values.index(value) if value in values else len(values))
    return np.array(row)


def rejected(row: np.ndarray, *names: str) -> np.ndarray:
    """Return labels with the named attributes rejected."""
    reject = [
        len(values) if name in names else label
        for (name, values), label in zip(ATTRIBUTES.items(), row, strict=False)
    ]
    return np.array(reject)


def blurred(video: np.ndarray, sigma: float) -> np.ndarray:
    """Return (F, H, W, 3) uint8 after a Gaussian blur of ``sigma`` pixels."""
    radius = int(3 * sigma) + 1
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    weight = torch.from_numpy(kernel / kernel.sum()).float()
    frames = torch.from_numpy(video.copy()).permute(0, 3, 1, 2).float()
    for shape in ((1, -1), (-1, 1)):
        padding = (radius, radius, 0, 0) if shape[0] == 1 else (0, 0, radius, radius)
        padded = nn.functional.pad(frames, padding, mode="reflect")
        frames = nn.functional.conv2d(padded.flatten(0, 1)[:, None], weight.view(1, 1, *shape)).view_as(
            frames
        )
    return frames.permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy()


def noised(video: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return a uint8 video with Gaussian noise of ``sigma`` grey levels."""
    return np.clip(np.round(video + rng.normal(0, sigma, video.shape)), 0, 255).astype(np.uint8)


def degraded(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Degrade a video mildly, so that its attributes can still be told."""
    kind = rng.integers(4)
    if kind == 0:
        return blurred(video, rng.uniform(0.4, 1.0))
    if kind == 1:
        return noised(video, rng.uniform(2, 10), rng)
    if kind == 2:
        return noised(np.round(video * rng.uniform(0.9, 1.1)), rng.uniform(0, 4), rng)
    return video


def ruined(
    video: np.ndarray, other: np.ndarray, row: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Ruin a video and return it with the labels that remain true of it."""
    kind = rng.integers(6)
    if kind == 0:
        return np.repeat(video[rng.integers(16)][None], 16, 0), rejected(row, "motion")
    if kind == 1:
        return video[rng.permutation(16)], rejected(row, "motion")
    if kind == 2:
        return ((video.astype(int) + other) // 2).astype(np.uint8), rejected(row, *ATTRIBUTES)
    if kind == 3:
        return blurred(video, rng.uniform(6, 10)), rejected(row, *ATTRIBUTES)
    if kind == 4:
        return noised(video, rng.uniform(80, 120), rng), rejected(row, *ATTRIBUTES)
    return noised(np.repeat(video[:1], 16, 0), rng.uniform(1, 6), rng), rejected(row, "motion")


def batch(videos: PretrainingVideos, rows: np.ndarray, table: np.ndarray, step: int) -> tuple[Tensor, Tensor]:
    """Return videos (B, 16, 64, 64, 3) uint8 and labels (B, attributes); the last third is ruined."""
    rng = np.random.default_rng([3, step])
    whole = len(rows) * 2 // 3
    items, targets = [], []
    for place, row in enumerate(rows):
        video, target = videos.video(int(row)), table[row]
        if place < whole:
            items.append(degraded(video, rng))
        else:
            video, target = ruined(video, videos.video(int(rows[0])), target, rng)
            items.append(video)
        targets.append(target)
    return torch.from_numpy(np.stack(items)), torch.from_numpy(np.stack(targets))


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--videos", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, help="stop after this time; the next call goes on")
    parser.add_argument("--output", type=Path, default=FOLDER / "classifier")
    args = parser.parse_args()
    videos = PretrainingVideos(args.videos)
    scenes = [videos.scene(index) for index in range(len(videos))]
    single = np.array([index for index, scene in enumerate(scenes) if len(scene.things) == 1])
    table = np.stack([labels(scene) for scene in scenes])
    torch.manual_seed(0)
    model = AttributeClassifier(ClassifierConfig(ATTRIBUTES))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)

    def loss(step: int) -> Tensor:
        rows = np.random.default_rng([4, step]).choice(single, args.batch)
        pixels, targets = batch(videos, rows, table, step)
        logits = in_bf16(model, pixels)
        parts = [
            nn.functional.cross_entropy(logits[name].float(), targets[:, i])
            for i, name in enumerate(ATTRIBUTES)
        ]
        return torch.stack(parts).sum()

    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.02)
    schedule = LearningRateSchedule(args.steps, decay=0.5)
    train(
        model, [optimiser], loss, schedule, args.output / "training", ema=0.998, seconds=args.seconds
    ).copy_to(model)
    model.save(args.output)


if __name__ == "__main__":
    main()
