"""DINO's ViT-B/16 as VBench reads it: features of frames, for `subject_consistency`."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize
from torchvision.transforms.v2 import functional as transforms

from motionexp.errors import InputError
from motionexp.files import user_path
from motionexp.hub import is_hub_id
from motionexp.metrics.encoders import FRAMES_AT_ONCE, weights_hash

SIDE = 224
"""The shorter side of the frames that the network reads, in pixels."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILES = ("config.json", "model.safetensors")


class Dino:
    """A vision transformer; features are of its class token, of unit length, in float32, on the CPU.

    Args:
        model: timm's `VisionTransformer` in eval mode, without a head, for squares of `SIDE` pixels.

    Attributes:
        identity: the weights' hash.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.identity = model, weights_hash(model)
        self.patch: int = model.patch_embed.patch_size[0]
        self.positions: Tensor = model.pos_embed.detach().clone()  # (1, 1 + patches of a square, D)
        self.device = self.positions.device

    @classmethod
    def load(cls, name: str, revision: str | None = None, device: str = "cpu") -> "Dino":
        """Load a network of timm.

        Args:
            name: a folder with `config.json` and `model.safetensors` as timm writes them, or a hub's id.
            revision: of `name`, on a hub.
            device: a torch device.

        Raises:
            InputError: there is no such folder or id, or its weights do not fit its config.
        """
        import timm  # which imports W&B

        folder = _folder(name, revision)
        try:
            config = json.loads((folder / FILES[0]).read_text())
            settings = {**config.get("model_args", {}), "num_classes": 0, "img_size": SIDE}
            model = timm.create_model(config["architecture"], pretrained=False, **settings)
            model.load_state_dict(load_file(folder / FILES[1]))
            return cls(model.float().to(device).eval())
        except (
            OSError,
            RuntimeError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            SafetensorError,
        ) as error:
            raise InputError(f"scoring.dino={name}: no vision transformer of timm: {error}") from error

    @torch.inference_mode()
    def embed_frames(self, frames: np.ndarray) -> Tensor:
        """Map (F, H, W, 3) uint8 RGB to (F, D)."""
        pixels = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float()  # (F, 3, H, W)
        # VBench resizes decoded videos so: torchvision's default of its time, for tensors.
        pixels = transforms.resize(pixels, [SIDE], antialias=False)
        pixels = transforms.normalize(pixels / 255, list(MEAN), list(DEVIATION))
        # The network's convolution leaves out what is no whole patch.
        rows, columns = pixels.shape[2] // self.patch, pixels.shape[3] // self.patch
        pixels = pixels[:, :, : rows * self.patch, : columns * self.patch]
        self.model.set_input_size(img_size=pixels.shape[2:])
        self.model.pos_embed = nn.Parameter(positions_of(self.positions, rows, columns).to(self.device))
        parts = [self.model(part.to(self.device)) for part in pixels.split(FRAMES_AT_ONCE)]
        return normalize(torch.cat(parts), dim=-1).cpu()

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        self.model.to(device)
        self.device = device


def positions_of(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Position embeddings for a grid of patches, as DINO's `interpolate_pos_encoding` has them.

    It resizes by a cubic convolution whose scale is that of a grid larger by a tenth of a patch. The
    functions of timm and transformers for this have another scale.

    Args:
        positions: (1, 1 + N, D), of the class token and of a square of N patches.
        rows, columns: of the grid.

    Returns:
        (1, 1 + rows * columns, D).
    """
    side = math.isqrt(positions.shape[1] - 1)
    if (rows, columns) == (side, side):
        return positions
    square = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = interpolate(square, scale_factor=scale, mode="bicubic")  # (1, D, rows, columns)
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def _folder(name: str, revision: str | None) -> Path:
    """The folder of a network's files; a hub's are downloaded once, and never a pickle."""
    if (folder := user_path(name)).is_dir():
        return folder
    if not is_hub_id(name):
        raise InputError(f"scoring.dino={name}: neither a folder nor a hub's OWNER/NAME")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except (OSError, ValueError) as error:
        at = f" --revision {revision}" if revision else ""
        command = f"hf download {name} {' '.join(FILES)}{at}"
        raise InputError(
            f"scoring.dino={name}: not on this machine, and the hub cannot be reached ({error}); fetched"
            f" where there is a network by `{command}`"
        ) from error
