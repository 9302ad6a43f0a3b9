"""Latents of the pretraining videos, encoded once to disk."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from motionexp.pretrain.vae import pixels
from motionexp.pretrain.videos import CHUNK, PretrainingVideos


class Latents:
    """Scaled latents of the pretraining videos, encoded once and memory-mapped in half precision."""

    def __init__(self, videos: PretrainingVideos, vae: AutoencoderKL, folder: Path) -> None:
        folder = folder / str(videos.frames)
        folder.mkdir(parents=True, exist_ok=True)
        self._chunks = []
        for first in range(0, len(videos), CHUNK):
            path = folder / f"{first:07d}.npy"
            if not path.exists():
                print(f"encoding to {path}", flush=True)
                latents = np.stack([self._encode(vae, videos.video(first + row)) for row in range(CHUNK)])
                partial = path.with_suffix(".tmp")
                with partial.open("wb") as file:
                    np.save(file, latents)
                partial.replace(path)
            self._chunks.append(np.load(path, mmap_mode="r"))

    @staticmethod
    @torch.no_grad()
    def _encode(vae: AutoencoderKL, video: np.ndarray) -> np.ndarray:
        mode = vae.encode(pixels(video).to(vae.dtype)).latent_dist.mode().float()
        return (mode * vae.config.scaling_factor).half().numpy().transpose(1, 0, 2, 3)

    def batch(self, rows: np.ndarray) -> Tensor:
        """Return latents (B, 4, F, 16, 16) of videos ``rows``."""
        return torch.from_numpy(np.stack([self._chunks[row // CHUNK][row % CHUNK] for row in rows])).float()
