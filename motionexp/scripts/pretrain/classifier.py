"""Train the attribute classifier that judges samples: ``python -m motionexp.scripts.pretrain.classifier``.

It learns to abstain: on every attribute of a blend of videos or a video with heavy blur or noise, and on the
motion of a frozen or shuffled video and an uncaptioned motion.
"""

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from motionexp.data.shapes import grammar
from motionexp.data.shapes.scenes import Scene
from motionexp.metrics.attribute_classifier import AttributeClassifier, ClassifierConfig
from motionexp.scripts.pretrain.loop import in_bf16, options, train
from motionexp.scripts.pretrain.videos import PretrainingVideos

ATTRIBUTES = grammar.ATTRIBUTES | {"motion": grammar.CAPTIONED}


def labels(scene: Scene) -> np.ndarray:
    """Return each attribute's class in the order of ``ATTRIBUTES``; uncaptioned motion: the reject class."""
    pairs = [(values, scene.attributes[name]) for name, values in ATTRIBUTES.items()]
    return np.array([values.index(value) if value in values else len(values) for values, value in pairs])


def rejected(row: np.ndarray, *names: str) -> np.ndarray:
    """Return labels with the named attributes rejected."""
    reject = [len(values) for values in ATTRIBUTES.values()]
    return np.where(np.isin(list(ATTRIBUTES), names), reject, row)


def blurred(video: np.ndarray, sigma: float) -> np.ndarray:
    """Return (F, H, W, 3) uint8 after a Gaussian blur of ``sigma`` pixels."""
    size = 2 * int(3 * sigma) + 3
    # In float: OpenCV's blur of uint8 rounds between its two passes.
    frames = [
        cv2.GaussianBlur(frame.astype(np.float32), (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
        for frame in video
    ]
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def noised(video: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return a uint8 video with Gaussian noise of ``sigma`` grey levels."""
    return np.clip(np.round(video + rng.normal(0, sigma, video.shape)), 0, 255).astype(np.uint8)


def degraded(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Degrade a video mildly, so that its attributes can still be recognised."""
    kind = rng.integers(4)
    if kind == 0:
        return blurred(video, rng.uniform(0.4, 1.0))
    if kind == 1:
        return noised(video, rng.uniform(2, 10), rng)
    if kind == 2:
        return noised(np.round(video * rng.uniform(0.9, 1.1)), rng.uniform(0, 4), rng)
    return video


def corrupted(
    video: np.ndarray, second: np.ndarray, row: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Corrupt a video; return it with labels in which the attributes that it lost are rejected."""
    kind = rng.integers(6)
    # Frozen: appearance stays, motion is lost.
    if kind == 0:
        return np.repeat(video[rng.integers(16)][None], 16, 0), rejected(row, "motion")
    # Shuffled frames.
    if kind == 1:
        return video[rng.permutation(16)], rejected(row, "motion")
    # Two videos in one, of which neither attribute can be told.
    if kind == 2:
        return ((video.astype(int) + second) // 2).astype(np.uint8), rejected(row, *ATTRIBUTES)
    if kind == 3:
        return blurred(video, rng.uniform(6, 10)), rejected(row, *ATTRIBUTES)
    if kind == 4:
        return noised(video, rng.uniform(80, 120), rng), rejected(row, *ATTRIBUTES)
    # Frozen with noise that changes: without it, any change between frames would mean motion.
    return noised(np.repeat(video[:1], 16, 0), rng.uniform(1, 6), rng), rejected(row, "motion")


def batch(videos: PretrainingVideos, rows: np.ndarray, table: np.ndarray, step: int) -> tuple[Tensor, Tensor]:
    """Return videos (B, 16, 64, 64, 3) uint8 and labels (B, attributes); the last third is corrupted."""
    rng = np.random.default_rng([3, step])
    items, targets = [], []
    for place, row in enumerate(rows):
        video, target = videos.video(int(row)), table[row]
        # Mild degradation keeps the labels, so that the classifier does not reject every soft sample.
        if place < len(rows) * 2 // 3:
            video = degraded(video, rng)
        else:
            video, target = corrupted(video, videos.video(int(rows[0])), target, rng)
        items.append(video)
        targets.append(target)
    return torch.from_numpy(np.stack(items)), torch.from_numpy(np.stack(targets))


def main() -> None:
    """Train and save."""
    args = options(__doc__, "classifier", steps=3000, batch=48).parse_args()
    videos = PretrainingVideos(args.videos)
    scenes = videos.scenes()
    single = np.array([index for index, scene in enumerate(scenes) if len(scene.things) == 1])
    table = np.stack([labels(scene) for scene in scenes])
    torch.manual_seed(0)
    model = AttributeClassifier(ClassifierConfig(ATTRIBUTES))

    def loss(step: int) -> Tensor:
        # From the number of the step alone: a training that was stopped goes on with the same numbers.
        rows = np.random.default_rng([4, step]).choice(single, args.batch)
        pixels, targets = batch(videos, rows, table, step)
        logits = in_bf16(model, pixels)
        pairs = zip(ATTRIBUTES, targets.T, strict=True)
        parts = [nn.functional.cross_entropy(logits[name].float(), target) for name, target in pairs]
        return torch.stack(parts).sum()

    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.02)
    train(args, model, [optimiser], loss, ema=0.998, decay=0.5)
    model.save(args.output)


if __name__ == "__main__":
    main()
