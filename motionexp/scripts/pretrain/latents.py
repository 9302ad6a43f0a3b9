"""Latents of the pretraining videos, encoded once to disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from motionexp.scripts.pretrain.videos import CHUNK, PretrainingVideos, save_array


class Latents:
    """Scaled latents of the pretraining videos, encoded once and memory-mapped in half precision.

    Args:
        videos: rendered.
        encode: a video (F, 64, 64, 3) uint8 to its latents (C, f, 16, 16).
        folder: of the stored latents, with a folder for each length of videos.
    """

    def __init__(
        self, videos: PretrainingVideos, encode: Callable[[np.ndarray], Tensor], folder: Path
    ) -> None:
        folder = folder / str(videos.frames)
        folder.mkdir(parents=True, exist_ok=True)
        self._chunks = []
        for first in range(0, len(videos), CHUNK):
            path = folder / f"{first:07d}.npy"
            if not path.exists():
                print(f"encoding to {path}", flush=True)
                with torch.no_grad():
                    encoded = [encode(videos.video(first + row)).half().numpy() for row in range(CHUNK)]
                save_array(path, np.stack(encoded))
            self._chunks.append(np.load(path, mmap_mode="r"))

    def batch(self, rows: np.ndarray) -> Tensor:
        """Return latents (B, C, f, 16, 16) of videos ``rows``."""
        return torch.from_numpy(np.stack([self._chunks[row // CHUNK][row % CHUNK] for row in rows])).float()
