"""The shared pass: features of a video, computed once for its content and used by every metric."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from motionexp.errors import InputError
from motionexp.files import BLANK_SEAL, read_sealed, seal, write_whole
from motionexp.metrics.base import CaptionFeatures, FrameFeatures, Need, Tracks, needed
from motionexp.metrics.dino import Dino
from motionexp.metrics.encoders import ImageTextModel
from motionexp.metrics.tracks import Tracker

VIDEOS_IN_MEMORY = 64
"""Videos whose features stay in memory."""
VISION: frozenset[Need] = frozenset({"clip", "preference"})
"""Models of frames and captions."""
OF_FRAMES: frozenset[Need] = VISION | {"dino"}
TRACKS = {field.name for field in fields(Tracks)}
Arrays = Mapping[str, np.ndarray]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: with more, the last bits of a caption's features would be others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class FeaturePass:
    """Runs each model once over a video and once over a caption, however many metrics ask, and when.

    Args:
        clip: of metrics that need "clip"; None: none does.
        preference: of metrics that need "preference"; None: none does.
        tracker: of metrics that need "tracks"; None: none does.
        folder: where features are stored from one run to the next, by the content of the frames; None:
            nowhere.
        dino: of metrics that need "dino"; None: none does.
    """

    def __init__(
        self,
        clip: ImageTextModel | None,
        preference: ImageTextModel | None,
        tracker: Tracker | None = None,
        folder: Path | None = None,
        dino: Dino | None = None,
    ) -> None:
        self.clip, self.preference, self.tracker, self.folder = clip, preference, tracker, folder
        self.dino = dino
        self._captions: dict[tuple[str, frozenset[Need]], CaptionFeatures] = {}
        self._computed: dict[str, Arrays] = {}

    def frames(self, frames: np.ndarray, needs: Collection[Need] = OF_FRAMES) -> FrameFeatures:
        """Return the features of (F, H, W, 3) uint8 frames that are needed and have a model."""
        features = {}
        # The labels are part of the stored files' names: they stay as they are.
        models = (
            ("clip", "clip", self.clip),
            ("preference", "scorer", self.preference),
            ("dino", "dino", self.dino),
        )
        for need, label, model in models:
            if model is not None and need in needs:
                arrays = self._of(
                    f"{label} {model.identity}", frames, partial(_embedded, model, frames), {"features"}
                )
                features[need] = torch.from_numpy(arrays["features"])
        return FrameFeatures(**features)

    def tracks(self, frames: np.ndarray) -> Tracks:
        """Return the tracks of (F, H, W, 3) uint8 frames; raises `InputError` where there is no tracker."""
        tracker = needed(self.tracker, "motion_fidelity", "tracks")
        arrays = self._of(tracker.identity, frames, lambda: asdict(tracker(frames)), TRACKS)
        # A file holds arrays alone: the number comes back as one of length 1.
        return Tracks(arrays["position"], arrays["visible"], float(np.squeeze(arrays["still"])))

    def caption(self, caption: str, needs: Collection[Need] = VISION) -> CaptionFeatures:
        """Return the features of a caption that are needed and have a model, computed once.

        Raises:
            InputError: a needed model would cut the caption.
        """
        models = VISION & set(needs)
        if (caption, models) not in self._captions:
            clip = self.clip if "clip" in models else None
            preference = self.preference if "preference" in models else None
            with _one_thread():
                self._captions[caption, models] = CaptionFeatures(
                    clip=clip.embed_captions([caption])[0] if clip else None,
                    preference=preference.embed_captions([caption])[0] if preference else None,
                    clip_scale=clip.logit_scale if clip else 1.0,
                    preference_scale=preference.logit_scale if preference else 1.0,
                )
        return self._captions[caption, models]

    def _of(
        self, identity: str, frames: np.ndarray, compute: Callable[[], Arrays], needed: Set[str]
    ) -> Arrays:
        """One model's arrays for these frames: from memory, from the folder, or computed and stored."""
        digest = hashlib.sha256(f"{identity} {frames.shape} ".encode())
        # The shape counts too: two shapes may have the same bytes.
        digest.update(np.ascontiguousarray(frames).data)
        key = digest.hexdigest()
        # Put back at the end: the first key is of the video that was used longest ago.
        arrays = self._computed.pop(key, None) or self._from_folder(key, compute, needed)
        self._computed[key] = arrays
        if len(self._computed) > VIDEOS_IN_MEMORY:
            del self._computed[next(iter(self._computed))]
        return arrays

    def _from_folder(self, key: str, compute: Callable[[], Arrays], needed: Set[str]) -> Arrays:
        if self.folder is None:
            return compute()
        # 20 hex digits are 80 bits: no two keys of a project collide.
        path = self.folder / f"{key[:20]}.safetensors"
        try:
            # A file of a former version has no seal, and is written again.
            content = read_sealed(path) if path.exists() else None
            if content is not None:
                stored = dict(load(content))
                if not stored.keys() >= needed:
                    raise ValueError(f"it has no {', '.join(sorted(needed - stored.keys()))}")
                return stored
        except (ValueError, SafetensorError) as error:
            raise InputError(f"{path}: damaged ({error}); delete it, and it is made again") from error
        arrays = compute()
        # Whole or not at all, since several jobs may share the folder.
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_whole(path, seal(save(whole, {"seal": BLANK_SEAL})))
        return arrays


def _embedded(model: ImageTextModel | Dino, frames: np.ndarray) -> Arrays:
    return {"features": model.embed_frames(frames).numpy()}
