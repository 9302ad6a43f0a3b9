"""Latents and embedded captions, computed once and stored under a hash of what they are computed from."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from motionexp.data.base import Reference, image_hash
from motionexp.diffusion.backbone import Backbone, Conditioning, ImageCondition
from motionexp.errors import InputError
from motionexp.files import BLANK_SEAL, read_sealed, seal, write_whole

CACHE_VERSION = 1  # raise it when the same content is encoded in another way


class EncodingCache:
    """Latents, captions and images, read from a folder or encoded by the backbone.

    Args:
        folder: of the files; made when the first file is written.
        backbone: encodes.
        precision: of the backbone. Another precision gives other files.
    """

    def __init__(self, folder: Path, backbone: Backbone, precision: str) -> None:
        self.folder, self.backbone, self.precision = folder, backbone, precision
        self._captions: dict[str, Conditioning] = {}
        self._last_image: tuple[str, ImageCondition] | None = None  # its hash, and the image

    def latents(self, reference: Reference) -> Tensor:
        """(1, C, F, h, w) latents of a reference, on the backbone's device."""
        path = self._path("latents", reference.content_hash)
        if (parts := read_tensors(path, self.backbone.device, "latents")) is None:
            frames = torch.from_numpy(reference.frames.copy())[None]
            parts = write_tensors(path, {"latents": self.backbone.encode(frames)}, self.backbone.device)
        return parts["latents"]

    def conditioning(self, caption: str, image: np.ndarray | None = None) -> Conditioning:
        """An embedded caption, and an image (H, W, 3), one row, on the backbone's device."""
        return self.caption(caption).with_image(None if image is None else self.image(image))

    def of_reference(self, reference: Reference, caption: str | None = None) -> Conditioning:
        """A reference's caption, or another one, with its first frame if the network takes an image."""
        image = reference.frames[0] if self.backbone.takes_image else None
        return self.conditioning(reference.caption if caption is None else caption, image)

    def image(self, image: np.ndarray) -> ImageCondition:
        """An encoded image (H, W, 3) as the condition of videos that begin with it, one row."""
        key = image_hash(image)
        if self._last_image is None or self._last_image[0] != key:
            path = self._image_path(image)
            if (parts := read_tensors(path, self.backbone.device, "channels")) is None:
                encoded = self.backbone.encode_image(torch.from_numpy(image.copy()))
                tensors = {"channels": encoded.channels, "embeds": encoded.embeds}
                present = {name: part for name, part in tensors.items() if part is not None}
                parts = write_tensors(path, present, self.backbone.device)
            self._last_image = key, ImageCondition(parts["channels"], parts.get("embeds"))
        return self._last_image[1]

    def caption(self, caption: str) -> Conditioning:
        """An embedded caption, one row, on the backbone's device."""
        if caption not in self._captions:
            path = self._caption_path(caption)
            if (parts := read_tensors(path, self.backbone.device, "embeds")) is None:
                embedded = self.backbone.embed([caption])
                tensors = {"embeds": embedded.embeds, "mask": embedded.mask, "pooled": embedded.pooled}
                present = {name: part for name, part in tensors.items() if part is not None}
                parts = write_tensors(path, present, self.backbone.device)
            # The mask stays on the CPU, where lengths of captions are compared without a synchronisation.
            mask = parts["mask"].cpu() if "mask" in parts else None
            self._captions[caption] = Conditioning(parts["embeds"], mask, parts.get("pooled"))
        return self._captions[caption]

    def inverted(self, reference: Reference, steps: int) -> Tensor | None:
        """The (1, C, F, h, w) latents that the base model inverted a reference to; None: not stored."""
        path = self._inverted_path(reference, steps)
        return (read_tensors(path, self.backbone.device, "latents") or {}).get("latents")

    def store_inverted(self, reference: Reference, steps: int, latents: Tensor) -> None:
        """Store what `inverted` reads."""
        path = self._inverted_path(reference, steps)
        write_tensors(path, {"latents": latents}, self.backbone.device)

    def _inverted_path(self, reference: Reference, steps: int) -> Path:
        precision = self.backbone.network_precision
        differs = "" if precision == "auto" else f", {precision}"
        differs += ", zeros for the empty prompt" * self.backbone.force_zeros_for_empty_prompt
        content = f"{reference.content_hash} in {steps} steps{self.backbone.respacing}{differs}"
        return self._path("inverted", content)

    def fill(
        self, references: Iterable[Reference], captions: Iterable[str], images: Iterable[np.ndarray] = ()
    ) -> None:
        """Encode what has no file yet. Each encoder is freed before the next part of the model is loaded.

        Of a network that takes an image the first frames of the references are encoded too.
        """
        references, captions, images = list(references), list(captions), list(images)
        if self.backbone.takes_image:
            images += [reference.frames[0] for reference in references]
        paths = [self._caption_path(caption) for caption in captions]
        paths += [self._path("latents", reference.content_hash) for reference in references]
        paths += [self._image_path(image) for image in images]
        if any(not path.exists() or read_sealed(path) is None for path in paths):
            self.backbone.unload()  # it may be that of an earlier job, without encoders and with a network
        for caption in captions:
            self.caption(caption)
        self.backbone.release_text_encoder()
        for reference in references:
            self.latents(reference)
        for image in images:
            self.image(image)
        self.backbone.release_vae_encoder()

    def _caption_path(self, caption: str) -> Path:
        is_zeroed = not caption and self.backbone.force_zeros_for_empty_prompt
        return self._path("zeroed caption" if is_zeroed else "caption", caption)

    def _image_path(self, image: np.ndarray) -> Path:
        return self._path("image", f"{image_hash(image)} in {self.backbone.frames} frames")

    def _path(self, kind: str, content: str) -> Path:
        parts = [CACHE_VERSION, self.backbone.weights_hash, self.precision, kind, content]
        return (
            self.folder / f"{kind}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]}.safetensors"
        )


def write_tensors(path: Path, tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Store tensors whole or not at all, with a seal; returns them as every later run will read them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, seal(save(on_cpu, {"seal": BLANK_SEAL})))
    return {name: tensor.to(device) for name, tensor in on_cpu.items()}


def read_tensors(path: Path, device: torch.device, needed: str = "") -> dict[str, Tensor] | None:
    """The stored tensors; None if they must be made, also in place of a file without a seal.

    `needed` is the name of a tensor without which the file is of no use.

    Raises:
        InputError: the file is damaged.
    """
    try:
        content = read_sealed(path) if path.exists() else None
        tensors = {} if content is None else load(content)
        if tensors and needed and needed not in tensors:
            raise ValueError(f"it has no {needed}")
    except (ValueError, SafetensorError) as error:
        raise InputError(
            f"{path}: damaged ({error}); delete it, and the same command makes it again"
        ) from error
    return {name: tensor.to(device) for name, tensor in tensors.items()} or None
