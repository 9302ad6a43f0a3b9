"""The models behind metrics: an open_clip CLIP, and a preference model of PickScore's form.

Both models map images and texts to one space, and both keep the logarithm of a learned temperature; every
score reads that from the model, never from its config (whose value is only where training began).
"""

import hashlib
import importlib
import logging
import os
from abc import ABC, abstractmethod
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPProcessor

from motionexp.config.imports import without
from motionexp.config.schema import BUNDLED
from motionexp.errors import InputError
from motionexp.files import user_path
from motionexp.hub import fetch_command, is_hub_id, no_loading_bars

if TYPE_CHECKING:
    import open_clip

FRAMES_AT_ONCE = 64


def weights_hash(model: nn.Module) -> str:
    """The sha256 of names and values: two checkpoints of one architecture differ in values alone."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class ImageTextModel(ABC):
    """A model with one space for images and texts; features are of unit length, in float32, on the CPU.

    Args:
        model: the network in eval mode.
        resize: side of the square that frames become first, in pixels; 0: they stay as they are.

    Attributes:
        logit_scale: exp of the learned temperature's logarithm.
        identity: what the features depend on beside the frames: the weights' hash, and the resizing.
    """

    def __init__(self, model: "CLIPModel | open_clip.CLIP", resize: int) -> None:
        self.model, self.resize = model, resize
        self.device = next(model.parameters()).device
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.identity = weights_hash(model) + (f" {resize}" if resize else "")

    @torch.inference_mode()
    def embed_frames(self, frames: np.ndarray) -> Tensor:
        """Map (F, H, W, 3) uint8 RGB to (F, D)."""
        images = [Image.fromarray(frame) for frame in frames]
        if self.resize:
            # As TGVE's scorer does: by PIL's default filter (bicubic), aspect not kept.
            images = [image.resize((self.resize, self.resize)) for image in images]
        pixels = self._pixels(images)  # (F, 3, S, S), S is the side that the network reads
        parts = [self._encode_pixels(part.to(self.device)) for part in pixels.split(FRAMES_AT_ONCE)]
        return normalize(torch.cat(parts), dim=-1).cpu()

    @abstractmethod
    def _pixels(self, images: list[Image.Image]) -> Tensor: ...

    @abstractmethod
    def _encode_pixels(self, pixels: Tensor) -> Tensor: ...

    @abstractmethod
    def embed_captions(self, captions: list[str]) -> Tensor:
        """Map N captions to (N, D). Raises `InputError` on a caption that the text tower would cut."""

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        self.model.to(device)
        self.device = device


class OpenClip(ImageTextModel):
    """A CLIP behind open_clip's own classes: the bundled one, one of open_clip's names, or one on a hub.

    Args:
        model: open_clip's network in eval mode.
        preprocess: open_clip's transform from a PIL image to (3, S, S).
        tokenizer: open_clip's tokenizer of that model.
        resize: see `ImageTextModel`.
    """

    def __init__(
        self,
        model: "open_clip.CLIP",
        preprocess: nn.Module,
        tokenizer: "open_clip.SimpleTokenizer",
        resize: int = 0,
    ) -> None:
        super().__init__(model, resize)
        self.preprocess, self.tokenizer = preprocess, tokenizer

    @classmethod
    def load(cls, name: str | Path = BUNDLED / "clip", device: str = "cpu", resize: int = 0) -> "OpenClip":
        """Load a CLIP in float32.

        Args:
            name: a folder in open_clip's local-dir layout (`open_clip_config.json`,
                `open_clip_model.safetensors`), `hf-hub:OWNER/NAME`, or `ARCHITECTURE/TAG` of
                `open_clip.list_pretrained()`, as `ViT-L-14/openai`. Only the last two use the network.
            device: a torch device.
            resize: see `ImageTextModel`.

        Raises:
            InputError: there is no such folder or name, or its weights do not fit its config.
        """
        source, tag, quick_gelu, hub_id = _open_clip_source(str(name))
        # `disable` is global: the former level is set again whatever happens.
        before = logging.root.manager.disable
        # open_clip logs every file that it reads.
        logging.disable(logging.INFO)
        try:
            model, preprocess = _created(source, tag, device, quick_gelu)
            tokenizer = _library().get_tokenizer(source)
        except (RuntimeError, ValueError, OSError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"clip={name}: open_clip cannot load it: {error}{_to_fetch(hub_id)}") from error
        finally:
            logging.disable(before)
        return cls(model.float().eval(), preprocess, tokenizer, resize)

    def _pixels(self, images: list[Image.Image]) -> Tensor:
        return torch.stack([self.preprocess(image) for image in images])

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)

    @torch.inference_mode()
    def embed_captions(self, captions: list[str]) -> Tensor:
        """See `ImageTextModel`."""
        length = int(self.model.context_length)
        # open_clip cuts in silence: one place more shows whether anything would be cut.
        tokens = self.tokenizer(captions, context_length=length + 1)  # (N, length + 1)
        padding = self.tokenizer([""], context_length=length + 1)[0, length]
        _check_uncut(captions, tokens[:, length] != padding, length)
        return normalize(self.model.encode_text(tokens[:, :length].to(self.device)), dim=-1).cpu()


class PreferenceModel(ImageTextModel):
    """A preference model of PickScore's form: a transformers `CLIPModel` tuned on people's choices.

    From transformers 5 on a `CLIPModel` wraps its projected features in an output, as `pooler_output`.

    Args:
        model: the network in eval mode.
        processor: its image processor and tokenizer.
        resize: see `ImageTextModel`.
    """

    def __init__(self, model: CLIPModel, processor: CLIPProcessor, resize: int = 0) -> None:
        super().__init__(model, resize)
        self.processor = processor

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
            resize: see `ImageTextModel`.

        Raises:
            InputError: there is no such folder or id, or its weights do not fit its config.
        """
        local = isinstance(name, Path) or name.startswith((".", "/", "~")) or name.count("/") != 1
        if local and not Path(name).is_dir():
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

    def _pixels(self, images: list[Image.Image]) -> Tensor:
        return self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixels).pooler_output

    @torch.inference_mode()
    def embed_captions(self, captions: list[str]) -> Tensor:
        """See `ImageTextModel`."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.processor.tokenizer(captions, padding=True, return_tensors="pt")
        _check_uncut(captions, tokens["attention_mask"].sum(1) > length, length)
        # One row a caption, (B, E).
        features = self.model.get_text_features(**tokens.to(self.device)).pooler_output
        return normalize(features, dim=-1).cpu()


def _library() -> Any:
    """open_clip, imported without timm (and W&B, which timm imports): only some of its models need that."""
    with without("timm"):
        import open_clip
    return open_clip


def _created(source: str, tag: str | None, device: str, quick_gelu: bool) -> tuple[Any, Any]:
    """One of open_clip's models, and its transform of images."""
    settings: dict[str, Any] = {"device": device, "force_quick_gelu": quick_gelu, "require_pretrained": True}
    try:
        model, _, preprocess = _library().create_model_and_transforms(source, tag, **settings)
    except RuntimeError as error:
        if "timm" not in str(error):
            raise
        # This model's image tower is timm's.
        importlib.reload(importlib.import_module("open_clip.timm_model"))
        model, _, preprocess = _library().create_model_and_transforms(source, tag, **settings)
    return model, preprocess


def _open_clip_source(name: str) -> tuple[str, str | None, bool, str]:
    """Read a `clip=` setting.

    Returns:
        open_clip's model name, its tag, whether that tag needs QuickGELU, and the weights' id on the hub,
        empty where they are elsewhere.
    """
    # 1. A name of the hub, or architecture and tag of open_clip.
    if name.startswith("hf-hub:"):
        return name, None, False, name.removeprefix("hf-hub:")
    architecture, _, tag = name.partition("/")
    open_clip = _library()
    if tag in open_clip.list_pretrained_tags_by_model(architecture):
        pretrained = open_clip.get_pretrained_cfg(architecture, tag) or {}
        # open_clip builds GELU unless it is told, and weights trained with QuickGELU then score wrongly.
        quick = bool(pretrained.get("quick_gelu", False))
        if architecture.endswith("-quickgelu") and not quick:
            raise InputError(
                f"clip={name}: the weights {tag} were not trained with QuickGELU: name the other model"
            )
        return architecture, tag, quick, str(pretrained.get("hf_hub", "")).rstrip("/")
    # 2. A folder: what open_clip would read of it is checked here, for open_clip's own errors name no file.
    folder = user_path(name)
    if not os.path.isdir(folder):
        raise InputError(
            f"clip={name}: neither a folder nor open_clip's ARCHITECTURE/TAG; give a folder in open_clip's "
            "local-dir layout, hf-hub:OWNER/NAME, or one of open_clip.list_pretrained(), as ViT-L-14/openai"
        )
    for file in ("open_clip_config.json", "open_clip_model.safetensors"):
        if not (folder / file).is_file():
            raise InputError(f"clip={name}: the folder has no {file}")
    return f"local-dir:{folder}", None, False, ""


def _to_fetch(source: str) -> str:
    """For an error: how a hub id is fetched where there is a network; nothing for a folder."""
    if os.path.isdir(user_path(source)) or not is_hub_id(source):
        return ""
    return f"; fetched where there is a network by `{fetch_command(source, None)}`"


def _check_uncut(captions: list[str], too_long: Tensor, length: int) -> None:
    for caption, cut in zip(captions, too_long.tolist(), strict=True):
        if cut:
            raise InputError(
                f"caption {caption[:40]!r}... has more than the {length} tokens that the text tower reads:"
                " shorten it, or leave these metrics out"
            )
