"""What the backbones share that are loaded from the folder of a diffusers pipeline."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from accelerate.hooks import UserCpuOffloadHook
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import BatchEncoding

from motionexp.backbones import image_vae
from motionexp.backbones.checkpoint import (
    NetworkPrecision,
    Offload,
    TextPrecision,
    Unsupported,
    check_folder,
    check_shapes,
    has_weights,
    read_scheduler,
    shape_of,
    weights_hash,
)
from motionexp.backbones.codec import VideoCodec
from motionexp.backbones.parts import PipelineParts
from motionexp.backbones.text import Tokenizer, caption_problems, load_tokenizer, longest_caption, unchanged
from motionexp.config.memory import bits_problems
from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.flow_matching import Schedule
from motionexp.errors import InputError
from motionexp.hub import find_folder, find_shapes, name_of, naming_the_model

Family = TypeVar("Family", bound="PipelineBackbone")


class PipelineBackbone(PipelineParts):
    """A network, a text encoder, a tokenizer, a scheduler, and all but once a VAE, as a pipeline is saved.

    A family sets the attributes below and implements `predict`, `predict_bytes` and `_trained_video`.

    Attributes:
        pipeline: the pipeline's class name.
        hub_names: the class names in the hub's files, where they differ from those of `classes`.
        unsupported: settings in the checkpoint's files with which the family cannot be used.
        codec: how frames become latents.
        caption_tokens: the longest caption, end token included; None: the tokenizer's `model_max_length`.
        encoder_masks_padding: whether the text encoder attends to a caption's own tokens alone.
        network_masks_padding: whether the network does.
        scheduler: settings that replace those of the folder's scheduler.
        spacing: spacing of the timesteps that the pipeline hands to its scheduler; None: the scheduler's own.
        decoding_note: why the pipeline cannot decode the model's latents, as a sentence; empty: it can.
        embedded_guidance: the strength of guidance that the network takes as an input; 0: it takes none.
        config: the network's configuration.
        pixels_per_latent, frames_per_latent: see `VideoCodec.compression`.
    """

    pipeline: ClassVar[str]
    hub_names: ClassVar[dict[str, str]] = {}
    unsupported: ClassVar[tuple[Unsupported, ...]] = ()
    codec: ClassVar[VideoCodec] = image_vae
    caption_tokens: ClassVar[int | None] = None
    encoder_masks_padding: ClassVar[bool] = False
    network_masks_padding: ClassVar[bool] = False
    shardable = True
    scheduler: ClassVar[Mapping[str, Any]] = {}
    spacing: ClassVar[str | None] = None
    decoding_note: ClassVar[str] = ""
    embedded_guidance: ClassVar[float] = 0.0
    config: Any
    pixels_per_latent: int
    frames_per_latent: int

    def __init_subclass__(cls) -> None:
        if "classes" not in vars(cls):
            return
        cls.component = next(iter(cls.classes))
        if "key_prefix" not in vars(cls):
            cls.key_prefix = f"{cls.component}."
        if "parts" not in vars(cls):
            cls.parts = (*cls.classes, "tokenizer", "scheduler")

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        fps: float = 8.0,
        source: str = "",
        revision: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        checkpointing: bool = False,
        offload: Offload = "none",
        tiling: bool = False,
        text_precision: TextPrecision = "auto",
        network_precision: NetworkPrecision = "auto",
    ) -> None:
        self.device, self.dtype, self._folder = torch.device(device), dtype, folder
        self.checkpointing, self.offload, self.tiling = checkpointing, offload, tiling
        self.text_precision, self.network_precision = text_precision, network_precision
        self.tokenizer, self.schedule = load_tokenizer(folder), self.schedule_of(folder)
        self.name, self.source, self.revision, self.fps = name, source, revision, fps
        self.weights_hash = weights_hash(folder, self.parts) if has_weights(folder) else ""
        self._encodes = self._embeds = True
        self._offloaded: list[UserCpuOffloadHook] = []
        # Shapes alone: a wrong file is refused before any weight is read.
        self._shapes = {part: shape_of(kind, folder / part) for part, kind in self.classes.items()}
        for part, shape in self._shapes.items() if self.weights_hash else ():
            check_shapes(shape, folder / part, all_named=part in self._parts_of_network())
        self.config = self.without_weights().config
        self.frames_per_latent, self.pixels_per_latent = self.codec.compression(self._shapes.get("vae"))
        self.max_caption_tokens = self._longest_caption(folder, self.tokenizer)
        self.frames, self.height, self.width = self._trained_video()

    @staticmethod
    def caption_form(tokenizer: Tokenizer, captions: Sequence[str], /) -> list[str]:
        """Captions as they are handed to the tokenizer."""
        return unchanged(tokenizer, captions)

    @abstractmethod
    def _trained_video(self) -> tuple[int, int, int]:
        """Frames, height and width (pixels) of the videos that the network was trained for."""

    @classmethod
    def from_pretrained(
        cls: type[Family],
        path: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
        fps: float = 8.0,
        checkpointing: bool = False,
        offload: Offload = "none",
        tiling: bool = False,
        text_precision: TextPrecision = "auto",
        network_precision: NetworkPrecision = "auto",
        local_files_only: bool = False,
    ) -> Family:
        """The backbone of such a pipeline's folder; weights are loaded when they are needed.

        Args:
            path: `bundled:NAME`, a folder, or a hub id, which is downloaded once.
            revision: the hub repository's commit, branch or tag.
            device: where to compute; `meta` for shapes alone, which the configuration has.
            dtype: of the network and the text encoder.
            name: in rows and paths; the path's last part unless given.
            fps: frames a second of the videos that it makes.
            checkpointing: compute activations again in the backward pass in place of keeping them.
            offload: what is in main memory while it does not compute: `none`; `model`: network and VAE;
                `group`: the VAE and each block of the network; `group_stream`: so too, and the next block is
                copied while one computes.
            tiling: run the VAE in tiles whose seams are blended, where a video is larger than a tile.
            text_precision: of the text encoder's weights: `auto` is `dtype`, else `8bit` or `4bit`.
            network_precision: of the weights in the network's blocks: `auto` is `dtype`, else `fp8`, `8bit`
                or `4bit`. Gradients through `fp8`, or blocks in main memory, need `checkpointing`.
            local_files_only: never ask the hub.

        Raises:
            InputError: no such folder, or a file of it is missing, damaged or of a model that cannot be used,
                or a precision needs a missing package; what only weights tell is raised in loading.
        """
        kind = torch.device(device).type
        on_meta = kind == "meta"
        # On a GPU that this machine lacks there is a plan at most.
        computes = not on_meta and (kind != "cuda" or torch.cuda.is_available())
        for problem in (
            *bits_problems("text_precision", text_precision, computes=computes),
            *bits_problems("network_precision", network_precision, computes=computes),
        ):
            raise InputError(problem)
        find = find_shapes if on_meta else partial(find_folder, local_files_only=local_files_only)
        folder = find(path, revision, parts=cls.parts)
        with naming_the_model(path, revision, cls.parts):
            cls._check(folder, without_weights=on_meta and not has_weights(folder))
            return cls(
                folder,
                name=name or name_of(path),
                fps=fps,
                source=str(path),
                revision=revision,
                device=device,
                dtype=dtype,
                checkpointing=checkpointing,
                offload=offload,
                tiling=tiling,
                text_precision=text_precision,
                network_precision=network_precision,
            )

    @classmethod
    def _check(cls, folder: Path, *, without_weights: bool = False) -> None:
        """Raise InputError for a folder that cannot be used, before any weight of it is read."""
        expected = {part: cls.hub_names.get(part, kind.__name__) for part, kind in cls.classes.items()}
        expected["_class_name"] = cls.pipeline
        check_folder(folder, expected, weighted=tuple(cls.classes), without_weights=without_weights)
        for setting in cls.unsupported:
            setting.check(folder)

    @classmethod
    def schedule_of(cls, folder: Path) -> Schedule:
        """The noise schedule of the pipeline in a folder, with the steps that the pipeline takes."""
        return read_scheduler(folder / "scheduler" / "scheduler_config.json", cls.scheduler, cls.spacing)

    @classmethod
    def caption_problems(
        cls,
        path: str | Path,
        captions: Sequence[str],
        *,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> list[str]:
        """See `Backbone.caption_problems`."""
        folder = find_folder(path, revision, local_files_only, cls.parts)
        with naming_the_model(path, revision, cls.parts):
            tokenizer = load_tokenizer(folder)
            longest = cls._longest_caption(folder, tokenizer)
        return caption_problems(tokenizer, cls.caption_form(tokenizer, captions), longest)

    @classmethod
    def _longest_caption(cls, folder: Path, tokenizer: Tokenizer) -> int:
        """`max_caption_tokens` of the pipeline in a folder."""
        return cls.caption_tokens or longest_caption(folder, tokenizer)

    def check_captions(self, captions: Sequence[str]) -> list[str]:
        """See `Backbone.check_captions`."""
        formed = self.caption_form(self.tokenizer, captions)
        return caption_problems(self.tokenizer, formed, self.max_caption_tokens)

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> Conditioning:
        """See `Backbone.embed`."""
        self._ready_to_embed(captions)
        return self._embed(self._tokens(captions))

    def _tokens(self, captions: Sequence[str]) -> BatchEncoding:
        """Ids and mask (B, L) of captions, padded to the longest caption that the model takes."""
        return self.tokenizer(
            self.caption_form(self.tokenizer, captions),
            padding="max_length",
            max_length=self.max_caption_tokens,
            return_tensors="pt",
        )

    def _ready_to_embed(self, captions: Sequence[str]) -> None:
        """Raise as `Backbone.embed` does."""
        if self.text_encoder is None:
            raise RuntimeError(
                "release_text_encoder() was called: embed before it, or load the backbone again"
            )
        problems = self.check_captions(captions)
        if problems:
            raise InputError("; ".join(problems))

    def _embed(self, tokens: BatchEncoding) -> Conditioning:
        """The text encoder's last hidden state (B, L, D), and the mask where the network takes one."""
        mask = tokens.attention_mask
        hidden = self.text_encoder(
            tokens.input_ids.to(self.device),
            attention_mask=mask.to(self.device) if self.encoder_masks_padding else None,
        ).last_hidden_state
        return Conditioning(hidden, mask.bool() if self.network_masks_padding else None)

    def guidance_pair(
        self, conditioning: Conditioning, negative: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        """See `Backbone.guidance_pair`: all captions are of one length, and nothing is laid out anew."""
        negative = negative.repeat(len(conditioning)) if len(negative) == 1 else negative
        return negative.with_image(conditioning.image), conditioning

    def encode(self, frames: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b c l y x"]:
        """See `Backbone.encode`."""
        self.latent_shape(*frames.shape[1:4])
        return self._vae_back(self.codec.encode(self.vae, frames, self.device))

    def decode(self, latents: Float[Tensor, "b c l y x"]) -> UInt8[Tensor, "b f h w 3"]:
        """See `Backbone.decode`."""
        return self._vae_back(self.codec.decode(self.vae, latents, self.device))

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """See `Backbone.latent_shape`: whole latent frames after the first, sides in whole patches."""
        count, multiple = self._latent_frames(frames), self.pixels_per_latent * self._patch()
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise InputError(f"size {height} x {width}: {self.name} needs multiples of {multiple} pixels")
        channels = self.config.out_channels if self.takes_image else self.config.in_channels
        return channels, count, height // self.pixels_per_latent, width // self.pixels_per_latent

    def _latent_frames(self, frames: int) -> int:
        """Latent frames of a video. Raises InputError for a number that the network cannot take."""
        ratio = self.frames_per_latent
        if frames < 1 or (frames - 1) % ratio:
            raise InputError(f"frames={frames}: {self.name} needs 1 frame and a multiple of {ratio}")
        return (frames - 1) // ratio + 1

    def _patch(self) -> int:
        """Latents of a side that become one token; 1 where the network has no patches."""
        patch: int | Sequence[int] = self.config.get("patch_size", 1)
        return patch if isinstance(patch, int) else patch[-1]

    def video_tokens(self, shape: Sequence[int]) -> int:
        """How many tokens a video's latents (C, F, h, w) become."""
        _, frames, height, width = shape
        return frames * height * width // self._patch() ** 2
