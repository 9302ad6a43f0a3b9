"""CoTracker 3 for `motion_fidelity`, where the user has it: the authors' package and its weights.

Its weights come as a pickle (`scaled_offline.pth` of `facebook/cotracker3`), which we do not load. With
`save_file` of `safetensors.torch`, this writes them as we read them:

    save_file(torch.load("scaled_offline.pth", weights_only=True), "cotracker3.safetensors")
"""

import hashlib
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from motionexp.errors import InputError
from motionexp.metrics.base import Tracks
from motionexp.metrics.lucas_kanade import FlowSettings

GRID = 55
"""Points each way, as DiTFlow's and its predecessors' scores take them."""
WINDOW = 60
"""Frames that the offline model sees at once, as its authors load it (`hubconf.py`, 0b6edd2)."""


class CoTracker:
    """Follows a grid of 55 x 55 points of the first frame.

    Args:
        predictor: the package's `CoTrackerPredictor`, in eval mode.
        weights_hash: of its weights.
        device: where it runs.
    """

    def __init__(self, predictor: nn.Module, weights_hash: str, device: str = "cpu") -> None:
        self.predictor, self.device = predictor, torch.device(device)
        self.identity = f"cotracker3 {GRID} {weights_hash}"

    @classmethod
    def load(cls, weights: str | Path, device: str = "cpu") -> "CoTracker":
        """Load CoTracker 3, offline.

        Args:
            weights: its state dict as a safetensors file.
            device: a torch device.

        Raises:
            InputError: the package is not installed, or the file is not that of CoTracker 3.
        """
        try:
            package = import_module("cotracker.predictor")
        except ImportError as error:
            raise InputError(
                f"scoring.tracker=cotracker: {error}; install the package of the repository"
                " facebookresearch/co-tracker, or use scoring.tracker=lucas_kanade"
            ) from error
        # checkpoint=None builds the network without weights: the package would unpickle them.
        predictor: nn.Module = package.CoTrackerPredictor(checkpoint=None, window_len=WINDOW, v2=False)
        try:
            predictor.get_submodule("model").load_state_dict(load_file(weights))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"scoring.tracker_weights={weights}: not CoTracker 3's as safetensors: {error}"
            ) from error
        weights_hash = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        return cls(predictor.to(device).eval(), weights_hash, device)

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> Tracks:
        """Follow points of the first of (F, H, W, 3) uint8 frames, F >= 2."""
        # (1, F, 3, H, W) in 0..255, as the package reads it; a copy, since frames may be read-only.
        video = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2)[None].float().to(self.device)
        # (1, F, P, 2) pixels and (1, F, P).
        tracks, visible = self.predictor(video, grid_size=GRID)
        still = FlowSettings.for_size(*frames.shape[1:3]).still
        return Tracks(tracks[0].double().cpu().numpy(), visible[0].bool().cpu().numpy(), still)

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        self.predictor.to(device)
        self.device = device
