"""The models behind metrics: an open_clip CLIP, and a preference model of PickScore's form.

Both models map images and texts to one space, and both keep the logarithm of a learned temperature; every
score reads that from the model, never from its config (whose value is only where training began).
"""

import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPProcessor

from motionexp.config.schema import BUNDLED
from motionexp.errors import InputError
from motionexp.hub import fetch_command, is_hub_id, no_loading_bars

FRAMES_AT_ONCE = 64


class ImageTextModel(Protocol):
    """A model with one space for images and texts; features are of unit length, in float32, on the CPU."""

    @property
    def logit_scale(self) -> float: ...

    @property
    def identity(self) -> str:
        """What the features depend on beside the frames: the weights' hash, and the resizing."""
        ...

    def embed_frames(self, frames: np.ndarray) -> Tensor: ...

    def embed_captions(self, captions: list[str]) -> Tensor: ...

    def to(self, device: torch.device) -> None: ...


class OpenClip:
    """A CLIP behind open_clip's own classes: the bundled one, one of open_clip's names, or one on a hub.

    Args:
        model: open_clip's network in eval mode.
        preprocess: open_clip's transform from a PIL image to (3, S, S).
        tokenizer: open_clip's tokenizer of that model.
        resize: side of the square that frames become first, in pixels; 0: they stay as they are.
    """

    def __init__(
        self,
        model: open_clip.CLIP,
        preprocess: nn.Module,
        tokenizer: open_clip.SimpleTokenizer,
        resize: int = 0,
    ) -> None:
        self.model, self.preprocess, self.tokenizer, self.resize = model, preprocess, tokenizer, resize
        self.device = next(model.parameters()).device
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.identity = _hash(model) + (f" {resize}" if resize else "")

    @classmethod
    def load(cls, name: str | Path = BUNDLED / "clip", device: str = "cpu", resize: int = 0) -> "OpenClip":
        """Load a CLIP in float32.

        Args:
            name: a folder in open_clip's local-dir layout (`open_clip_config.json`,
                `open_clip_model.safetensors`), `hf-hub:OWNER/NAME`, or `ARCHITECTURE/TAG` of
                `open_clip.list_pretrained()`, as `ViT-L-14/openai`. Only the last two use the network.
            device: a torch device.
            resize: see the class.

        Raises:
            InputError: there is no such folder or name, or its weights do not fit its config.
        """
        source, tag, quick_gelu = _open_clip_source(str(name))
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                source, tag, device=device, force_quick_gelu=quick_gelu, require_pretrained=True
            )
            tokenizer = open_clip.get_tokenizer(source)
        except (RuntimeError, ValueError, OSError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(
                f"clip={name}: open_clip cannot load it: {error}{_to_fetch(_hub_id(str(name)))}"
            ) from error
        return cls(model.float().eval(), preprocess, tokenizer, resize)

    @torch.inference_mode()
    def embed_frames(self, frames: np.ndarray) -> Tensor:
        """Map (F, H, W, 3) uint8 RGB to (F, D)."""
        images = torch.stack([self.preprocess(image) for image in as_images(frames, self.resize)])
        parts = [self.model.encode_image(part.to(self.device)) for part in images.split(FRAMES_AT_ONCE)]
        return normalize(torch.cat(parts), dim=-1).cpu()

    @torch.inference_mode()
    def embed_captions(self, captions: list[str]) -> Tensor:
        """Map N captions to (N, D). Raises `InputError` on a caption that the text tower would cut."""
        length = int(self.model.context_length)
        tokens = self.tokenizer(captions, context_length=length + 1)
        padding = self.tokenizer([""], context_length=length + 1)[0, length]
        _check_uncut(captions, tokens[:, length] != padding, length)
        return normalize(self.model.encode_text(tokens[:, :length].to(self.device)), dim=-1).cpu()

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        self.model.to(device)
        self.device = device


class PreferenceModel:
    """A preference model of PickScore's form: a transformers `CLIPModel` tuned on people's choices.

    From transformers 5 on a `CLIPModel` wraps its projected features in an output, as `pooler_output`.

    Args:
        model: the network in eval mode.
        processor: its image processor and tokenizer.
        resize: side of the square that frames become first, in pixels; 0: they stay as they are.
    """

    def __init__(self, model: CLIPModel, processor: CLIPProcessor, resize: int = 0) -> None:
        self.model, self.processor, self.resize = model, processor, resize
        self.device = next(model.parameters()).device
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.identity = _hash(model) + (f" {resize}" if resize else "")

    @classmethod
    def load(
        cls,
        name: str | Path = BUNDLED / "scorer",
        processor: str | Path | None = None,
        revision: str | None = None,
        device: str = "cpu",
        resize: int = 0,
    ) -> "PreferenceModel":
        """Load a preference model in float32.

        Args:
            name: a folder or a hub's id in the layout of transformers' `CLIPModel`, as
                `yuvalkirstain/PickScore_v1`.
            processor: where the processor lies, if elsewhere: PickScore's is
                `laion/CLIP-ViT-H-14-laion2B-s32B-b79K`.
            revision: of `name`, on a hub.
            device: a torch device.
            resize: see the class.

        Raises:
            InputError: there is no such folder or id, or its weights do not fit its config.
        """
        if not Path(name).is_dir() and (isinstance(name, Path) or _looks_local(name)):
            raise InputError(
                f"scorer={name}: no such folder; give a folder in CLIPModel's layout or a hub's id"
            )
        try:
            with no_loading_bars() if Path(name).is_dir() else nullcontext():
                model, report = CLIPModel.from_pretrained(
                    name,
                    revision=revision,
                    use_safetensors=True,
                    dtype=torch.float32,
                    output_loading_info=True,
                )
            # As transformers 4 did, and so TGVE; from 5 on torchvision resizes, up to five grey levels apart.
            loaded = CLIPProcessor.from_pretrained(processor or name, backend="pil")
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            fetch = "".join(_to_fetch(str(source)) for source in (name, processor) if source is not None)
            raise InputError(f"scorer={name}: transformers cannot load it: {error}{fetch}") from error
        wrong = sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])])
        if wrong:
            raise InputError(f"scorer={name}: its weights lack or misfit {', '.join(wrong[:5])}")
        return cls(model.to(device).eval(), loaded, resize)

    @torch.inference_mode()
    def embed_frames(self, frames: np.ndarray) -> Tensor:
        """Map (F, H, W, 3) uint8 RGB to (F, D)."""
        images = as_images(frames, self.resize)
        pixels = self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
        parts = [
            self.model.get_image_features(part.to(self.device)).pooler_output
            for part in pixels.split(FRAMES_AT_ONCE)
        ]
        return normalize(torch.cat(parts), dim=-1).cpu()

    @torch.inference_mode()
    def embed_captions(self, captions: list[str]) -> Tensor:
        """Map N captions to (N, D). Raises `InputError` on a caption that the text tower would cut."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.processor.tokenizer(captions, padding=True, return_tensors="pt")
        _check_uncut(captions, tokens["attention_mask"].sum(1) > length, length)
        features = self.model.get_text_features(**tokens.to(self.device)).pooler_output
        return normalize(features, dim=-1).cpu()

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        self.model.to(device)
        self.device = device


def as_images(frames: np.ndarray, resize: int = 0) -> list[Image.Image]:
    """(F, H, W, 3) uint8 RGB frames as PIL images, made squares of `resize` pixels unless that is 0.

    TGVE's scorer makes all frames 480 x 480 first, by PIL's default filter (bicubic), aspect not kept.
    """
    images = [Image.fromarray(frame) for frame in frames]
    return [image.resize((resize, resize)) for image in images] if resize else images


def _looks_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") != 1


def _open_clip_source(name: str) -> tuple[str, str | None, bool]:
    """Split a `clip=` setting into open_clip's model name, its tag, and whether that tag needs QuickGELU."""
    if name.startswith("hf-hub:"):
        return name, None, False
    architecture, _, tag = name.partition("/")
    if tag in open_clip.list_pretrained_tags_by_model(architecture):
        quick = bool((open_clip.get_pretrained_cfg(architecture, tag) or {}).get("quick_gelu", False))
        if architecture.endswith("-quickgelu") and not quick:
            raise InputError(
                f"clip={name}: the weights {tag} were not trained with QuickGELU: name the other model"
            )
        return architecture, tag, quick
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"clip={name}: neither a folder nor open_clip's ARCHITECTURE/TAG; give a folder in open_clip's "
            "local-dir layout, hf-hub:OWNER/NAME, or one of open_clip.list_pretrained(), as ViT-L-14/openai"
        )
    for file in ("open_clip_config.json", "open_clip_model.safetensors"):
        if not (folder / file).is_file():
            raise InputError(f"clip={name}: the folder has no {file}")
    return f"local-dir:{folder}", None, False


def _hub_id(clip: str) -> str:
    """Where on the hub the weights of a `clip=` setting are; empty where they are elsewhere."""
    if clip.startswith("hf-hub:"):
        return clip.removeprefix("hf-hub:")
    architecture, _, tag = clip.partition("/")
    return str((open_clip.get_pretrained_cfg(architecture, tag) or {}).get("hf_hub", "")).rstrip("/")


def _to_fetch(source: str) -> str:
    """For an error: how a hub id is fetched where there is a network; nothing for a folder."""
    if Path(source).expanduser().is_dir() or not is_hub_id(source):
        return ""
    return f"; fetched where there is a network by `{fetch_command(source, None)}`"


def _check_uncut(captions: list[str], too_long: Tensor, length: int) -> None:
    for caption, cut in zip(captions, too_long.tolist(), strict=True):
        if cut:
            raise InputError(
                f"caption {caption[:40]!r}... has more than the {length} tokens that the metrics' text tower "
                "reads: shorten it, or leave the metrics that read captions out of `metrics`"
            )


def _hash(model: nn.Module) -> str:
    """sha256 of the weights, their names and types."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
