"""The VAE and the noise schedule of a model, without its denoiser and its text encoder."""

from typing import Any

import numpy as np
import torch

from motionexp.backbones.checkpoint import load_part, read_json, shape_of, weights_hash
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.errors import InputError
from motionexp.hub import find_folder, naming_the_model

PARTS = ("vae", "scheduler")
STATISTICS = ("scaling_factor", "latents_mean")


class LatentSpace:
    """What turns frames into latents, and the schedule of their noise.

    Args:
        backbone: the model's class.
        path: as in `PipelineBackbone.from_pretrained`; of a pair of repositories the first is read.
        revision: likewise.

    Raises:
        InputError: before weights: the model has no VAE, there is no such model, or the VAE's configuration
            does not say how latents are scaled.
    """

    def __init__(self, backbone: type[Any], path: str, revision: str | None, name: str) -> None:
        if not (issubclass(backbone, PipelineBackbone) and "vae" in backbone.classes):
            raise InputError(
                f"model={name}: it has no VAE, so no energies of latents can be measured; choose one that has"
            )
        path, revision = path.partition("+")[0], (revision or "").partition("+")[0] or None
        self.name, self._backbone = name, backbone
        with naming_the_model(path, revision, PARTS):
            self._folder = find_folder(path, revision, False, PARTS)
            self.schedule = backbone.schedule_of(self._folder)
            shape = shape_of(backbone.classes["vae"], self._folder / "vae")
            self._check_statistics(shape)
        self.frames_per_latent, self.pixels_per_latent = backbone.codec.compression(shape)
        self.weights_hash = weights_hash(self._folder, PARTS)

    def _check_statistics(self, shape: Any) -> None:
        """Raises InputError where the size of latents would be a library's guess."""
        file = self._folder / "vae" / "config.json"
        buffers = dict(shape.named_buffers(recurse=False))
        has_mean = "latents_mean" in buffers or shape.config.get("latents_mean") is not None
        if not has_mean and not any(read_json(file).get(key) for key in STATISTICS):
            raise InputError(
                f"model={self.name}: {file} has neither {' nor '.join(STATISTICS)}; without the statistics of"
                " latents their energies are unknown: take the file from the model's publisher"
            )

    def check_size(self, frames: int, height: int, width: int) -> None:
        """Raises InputError for a video that the VAE cannot take."""
        ratio, side = self.frames_per_latent, self.pixels_per_latent
        if (frames - 1) % ratio:
            raise InputError(f"frames={frames}: {self.name} needs 1 frame and a multiple of {ratio}")
        if height % side or width % side:
            raise InputError(f"size {height} x {width}: {self.name} needs multiples of {side} pixels")

    def load(self, device: torch.device) -> None:
        """Load the VAE's weights, in fp32. Raises InputError for damaged ones."""
        vae = load_part(self._backbone.classes["vae"], self._folder / "vae", torch.float32)
        self._vae, self._device = vae.to(device).eval(), device

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Latents (C, f, h, w) of frames (F, H, W, 3) uint8, scaled as the network takes them."""
        latents = self._backbone.codec.encode(self._vae, torch.from_numpy(frames.copy())[None], self._device)
        return latents[0].float().cpu().numpy()
