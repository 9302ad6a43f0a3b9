"""The shared pass: what models see in a video, computed once for its content and used by every metric."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.metrics.base import CaptionFeatures, FrameFeatures, Need, Tracks, needed
from motionexp.metrics.encoders import ImageTextModel
from motionexp.metrics.tracks import Tracker, as_arrays, from_arrays

KEPT = 64
"""Videos whose features stay in memory."""
VISION: frozenset[Need] = frozenset({"clip", "scorer"})
Arrays = Mapping[str, np.ndarray]


class FeaturePass:
    """Runs each model once over a video and once over a caption, however many metrics ask, and when.

    Args:
        clip: what `text_alignment`, `frame_consistency` and `appearance_leakage` look through, or None.
        scorer: what `pick_score` looks through, or None.
        tracker: what `motion_fidelity` follows points by, or None.
        folder: where features are kept from one run to the next, by the content of the frames; None: nowhere.
    """

    def __init__(
        self,
        clip: ImageTextModel | None,
        scorer: ImageTextModel | None,
        tracker: Tracker | None = None,
        folder: Path | None = None,
    ) -> None:
        self.clip, self.scorer, self.tracker, self.folder = clip, scorer, tracker, folder
        self._captions: dict[str, CaptionFeatures] = {}
        self._kept: dict[str, Arrays] = {}

    def frames(self, frames: np.ndarray, needs: Collection[Need] = VISION) -> FrameFeatures:
        """Return the features of (F, H, W, 3) uint8 frames that are needed and have a model."""

        def through(model: ImageTextModel | None, need: Need) -> torch.Tensor | None:
            if model is None or need not in needs:
                return None
            arrays = self._of(
                f"{need} {model.identity}", frames, lambda: {"features": model.embed_frames(frames).numpy()}
            )
            return torch.from_numpy(arrays["features"])

        return FrameFeatures(clip=through(self.clip, "clip"), scorer=through(self.scorer, "scorer"))

    def tracks(self, frames: np.ndarray) -> Tracks:
        """Return the tracks of (F, H, W, 3) uint8 frames; raises `InputError` where there is no tracker."""
        tracker = needed(self.tracker, "motion_fidelity", "tracks")
        return from_arrays(self._of(tracker.identity, frames, lambda: as_arrays(tracker(frames))))

    def caption(self, caption: str) -> CaptionFeatures:
        """Return the features of a caption; those of one seen before are kept."""
        if caption not in self._captions:
            self._captions[caption] = CaptionFeatures(
                clip=self.clip.embed_captions([caption])[0] if self.clip else None,
                scorer=self.scorer.embed_captions([caption])[0] if self.scorer else None,
                clip_scale=self.clip.logit_scale if self.clip else 1.0,
                scorer_scale=self.scorer.logit_scale if self.scorer else 1.0,
            )
        return self._captions[caption]

    def _of(self, identity: str, frames: np.ndarray, compute: Callable[[], Arrays]) -> Arrays:
        """What one model gave for these frames: from memory, from the folder, or computed and kept."""
        digest = hashlib.sha256(f"{identity} {frames.shape} ".encode())
        digest.update(np.ascontiguousarray(frames).data)
        key = digest.hexdigest()
        arrays = self._kept.pop(key, None)
        if arrays is None:
            arrays = self._from_folder(key, compute)
        self._kept[key] = arrays
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return arrays

    def _from_folder(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        if self.folder is None:
            return compute()
        path = self.folder / f"{key[:20]}.safetensors"
        if not path.exists():
            arrays = compute()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
            return arrays
        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise InputError(f"{path}: damaged ({error}); delete it, and it is made again") from error
