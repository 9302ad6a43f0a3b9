"""What the backbones share that are loaded from the folder of a diffusers pipeline."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from diffusers import ModelMixin
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from motionexp.backbones.base import Backbone, Conditioning
from motionexp.backbones.checkpoint import (
    check_folder,
    find_folder,
    load_part,
    name_of,
    read_json,
    weights_hash,
)
from motionexp.backbones.text import caption_problems, load_tokenizer
from motionexp.config import InputError
from motionexp.schedule import NoiseSchedule

Family = TypeVar("Family", bound="PipelineBackbone")


class PipelineBackbone(Backbone):
    """A network, a VAE, a text encoder, a tokenizer and a scheduler, as a pipeline of diffusers saves them.

    `from_pretrained` leaves the VAE in fp32: it runs once a video, and rounding shows in its pictures.

    Attributes:
        pipeline: the pipeline's class name.
        classes: of the parts that have weights, the network's first.
    """

    pipeline: ClassVar[str]
    classes: ClassVar[dict[str, type[ModelMixin] | type[PreTrainedModel]]]
    tokenizer: PreTrainedTokenizerBase
    text_encoder: Any
    vae: Any
    _config: Any
    _vae_factor: int

    def __init_subclass__(cls) -> None:
        cls.component = next(iter(cls.classes))
        cls.parts = (*cls.classes, "tokenizer", "scheduler")

    def __init__(
        self,
        *,
        network: ModelMixin,
        vae: ModelMixin,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel,
        schedule: NoiseSchedule,
        name: str,
        fps: float = 8.0,
        source: str = "",
        revision: str | None = None,
        weights_hash: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        for part in (network, vae, text_encoder):
            part.to(self.device).requires_grad_(False).eval()
        self.network, self.vae, self.text_encoder, self.dtype = network, vae, text_encoder, network.dtype
        self.tokenizer, self.schedule = tokenizer, schedule
        self.name, self.source, self.revision, self.weights_hash = name, source, revision, weights_hash
        self.fps = fps
        self._config = network.config
        self._vae_factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self._set_sizes()

    @abstractmethod
    def _set_sizes(self) -> None:
        """Set `frames`, `height`, `width` and `max_caption_tokens` from the parts."""

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
        local_files_only: bool = False,
    ) -> Family:
        """Load the folder of such a pipeline.

        Args:
            path: `bundled:NAME`, a folder, or a hub id, which is downloaded once.
            revision: the hub repository's commit, branch or tag.
            device: where to compute.
            dtype: of the network and the text encoder.
            name: in rows and paths; the path's last part unless given.
            fps: frames a second of the videos that it makes.
            local_files_only: never ask the hub.

        Raises:
            InputError: no such folder, or a file of it is missing, damaged or of a model that cannot be used.
        """
        folder = find_folder(path, revision, local_files_only)
        expected = {part: kind.__name__ for part, kind in cls.classes.items()}
        check_folder(folder, {"_class_name": cls.pipeline, **expected}, weighted=tuple(cls.classes))
        cls._check_network(folder / cls.component / "config.json")
        network, vae, text_encoder = (
            load_part(kind, folder / part, torch.float32 if part == "vae" else dtype)
            for part, kind in cls.classes.items()
        )
        return cls(
            network=network,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=load_tokenizer(folder),
            schedule=NoiseSchedule.from_config(read_json(folder / "scheduler" / "scheduler_config.json")),
            name=name or name_of(path),
            fps=fps,
            source=str(path),
            revision=revision,
            weights_hash=weights_hash(folder, cls.parts),
            device=device,
        )

    @classmethod
    def _check_network(cls, config: Path) -> None:
        """Raise InputError for a network of the right class that cannot be used all the same."""

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
        folder = find_folder(path, revision, local_files_only)
        tokenizer = load_tokenizer(folder)
        written = cls.as_tokenized(tokenizer, captions)
        return caption_problems(tokenizer, written, cls._longest_caption(folder, tokenizer))

    @classmethod
    @abstractmethod
    def _longest_caption(cls, folder: Path, tokenizer: PreTrainedTokenizerBase) -> int:
        """`max_caption_tokens` of the pipeline in a folder."""

    @classmethod
    def as_tokenized(cls, tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> list[str]:
        """Captions as they are handed to the tokenizer: in small letters."""
        return [caption.lower() for caption in captions]

    def check_captions(self, captions: Sequence[str]) -> list[str]:
        """See `Backbone.check_captions`."""
        written = self.as_tokenized(self.tokenizer, captions)
        return caption_problems(self.tokenizer, written, self.max_caption_tokens)

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> Conditioning:
        """See `Backbone.embed`."""
        if self.text_encoder is None:
            raise RuntimeError(
                "release_text_encoder() was called: embed before it, or load the backbone again"
            )
        problems = self.check_captions(captions)
        if problems:
            raise InputError("; ".join(problems))
        tokens = self.tokenizer(
            self.as_tokenized(self.tokenizer, captions),
            padding="max_length",
            max_length=self.max_caption_tokens,
            return_tensors="pt",
        )
        return self._embed(tokens)

    def _embed(self, tokens: BatchEncoding) -> Conditioning:
        """The text encoder's last hidden state; the padding is heard as any token, there is no mask."""
        return Conditioning(self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state)

    def guidance_pair(
        self, conditioning: Conditioning, negative: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        """See `Backbone.guidance_pair`: all captions are of one length, and nothing is laid out anew."""
        return (negative.repeat(len(conditioning)) if len(negative) == 1 else negative), conditioning

    def _refuse_mask(self, conditioning: Conditioning) -> None:
        if conditioning.mask is not None:
            raise ValueError("this network hears every column of a caption: a mask would do nothing")

    def _latent_sides(self, height: int, width: int, patch: int = 1) -> tuple[int, int]:
        """Sides of the latents of `height` x `width` pixels. Raises InputError unless in whole patches."""
        multiple = self._vae_factor * patch
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise InputError(f"size {height} x {width}: {self.name} needs multiples of {multiple} pixels")
        return height // self._vae_factor, width // self._vae_factor

    def release_text_encoder(self) -> None:
        """See `Backbone.release_text_encoder`."""
        self.text_encoder = None

    def release_vae_encoder(self) -> None:
        """See `Backbone.release_vae_encoder`."""
        self.vae.encoder = None
        self.vae.quant_conv = None
