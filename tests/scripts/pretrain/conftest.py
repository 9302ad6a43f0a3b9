"""Videos of noise, for what needs their scenes and any pictures."""

import numpy as np
import pytest

from motionexp.data.shapes.scenes import Scene, pretraining_scene


class NoiseVideos:
    """200 scenes of the pretraining part, each frame noise of its own."""

    def __len__(self) -> int:
        return 200

    def scenes(self) -> list[Scene]:
        return [pretraining_scene(index) for index in range(len(self))]

    def single_frames(self, videos: np.ndarray, frames: np.ndarray) -> np.ndarray:
        seeds = [[int(video), int(frame)] for video, frame in zip(videos, frames, strict=True)]
        return np.stack(
            [np.random.default_rng(seed).integers(256, size=(64, 64, 3), dtype=np.uint8) for seed in seeds]
        )


@pytest.fixture(scope="session")
def noise_videos() -> NoiseVideos:
    return NoiseVideos()
