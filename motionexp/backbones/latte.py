"""Latte (Ma et al. 2024, arXiv 2401.03048) in diffusers' layout: spatial and temporal attention in turns.

The text is laid out as `diffusers.LattePipeline` does it for a single prompt with `clean_caption=False`:
lower case, padded to 120 tokens for the encoder, and only the caption's own tokens go to the network. (Given
a list of prompts, that pipeline keeps all 120, with zeros for padding, so that a video depends on how many
are made at once; that is not followed here.)
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, LatteTransformer3DModel
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from motionexp.backbones import image_vae
from motionexp.backbones.base import Backbone, Conditioning, ProjectionKind
from motionexp.backbones.checkpoint import (
    check_folder,
    find_folder,
    load_part,
    name_of,
    read_json,
    weights_hash,
)
from motionexp.backbones.precision import attention_kernels, plain_attention
from motionexp.backbones.text import caption_problems, load_tokenizer
from motionexp.config import InputError
from motionexp.schedule import NoiseSchedule

MAX_CAPTION_TOKENS = 120
CLASSES = {
    "_class_name": "LattePipeline",
    "transformer": "LatteTransformer3DModel",
    "vae": "AutoencoderKL",
    "text_encoder": "T5EncoderModel",
}
ATTENTIONS: dict[ProjectionKind, tuple[str, str]] = {
    "motion": ("temporal_transformer_blocks", "attn1"),
    "spatial": ("transformer_blocks", "attn1"),
    "cross": ("transformer_blocks", "attn2"),
}
LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}


def attention_projections(network: LatteTransformer3DModel, kind: ProjectionKind) -> dict[str, list[str]]:
    """See `Backbone.projections`; for Latte-1 each list has 28 names. The network may be on `meta`."""
    blocks, attention = ATTENTIONS[kind]
    count = len(network.get_submodule(blocks))
    return {
        letter: [f"{blocks}.{block}.{attention}.{layer}" for block in range(count)]
        for letter, layer in LAYERS.items()
    }


class LatteBackbone(Backbone):
    """Latte: `motion` attention is the temporal blocks' `attn1`, one block after each spatial one.

    Videos have the number of frames that the network was trained for, or one. On a single frame the temporal
    blocks are skipped, as in Latte's joint training on images and videos: what is
    learnt in them, an adapter in the motion attention too, changes no single frame.

    `from_pretrained` leaves the VAE in fp32: it runs once a video, and rounding shows in its pictures.
    """

    parts = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")

    def __init__(
        self,
        *,
        network: LatteTransformer3DModel,
        vae: AutoencoderKL,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: T5EncoderModel,
        schedule: NoiseSchedule,
        name: str,
        fps: float = 8.0,
        source: str = "",
        revision: str | None = None,
        weights_hash: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        self.device, self.dtype = torch.device(device), network.dtype
        self.network = network.to(self.device).requires_grad_(False).eval()
        self.vae = vae.to(self.device).requires_grad_(False).eval()
        self.text_encoder: T5EncoderModel | None = text_encoder.to(self.device).requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.schedule = schedule
        self.name, self.source, self.revision, self.weights_hash = name, source, revision, weights_hash
        self.fps = fps
        self._config = network.config
        self.frames = network.config.video_length
        self.max_caption_tokens = MAX_CAPTION_TOKENS
        self._vae_factor = image_vae.downsampling(vae)
        self.height = self.width = network.config.sample_size * self._vae_factor

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
        fps: float = 8.0,
        local_files_only: bool = False,
    ) -> "LatteBackbone":
        """Load the folder of a LattePipeline.

        Args:
            path: `bundled:NAME`, a folder, or a hub id, which is downloaded once.
            revision: the hub repository's commit, branch or tag.
            device: where to compute.
            dtype: of the network and the text encoder.
            name: in rows and paths; the path's last part unless given.
            fps: frames a second of the videos that it makes.
            local_files_only: never ask the hub.

        Raises:
            InputError: no such folder, or a file of it is missing, damaged or of another model.
        """
        folder = find_folder(path, revision, local_files_only)
        check_folder(folder, CLASSES, weighted=("transformer", "vae", "text_encoder"))
        return cls(
            network=load_part(LatteTransformer3DModel, folder / "transformer", dtype),
            vae=load_part(AutoencoderKL, folder / "vae", torch.float32),
            text_encoder=load_part(T5EncoderModel, folder / "text_encoder", dtype),
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
    def caption_problems(
        cls,
        path: str | Path,
        captions: Sequence[str],
        *,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> list[str]:
        """See `Backbone.caption_problems`."""
        return _caption_problems(load_tokenizer(find_folder(path, revision, local_files_only)), captions)

    def encode(self, frames: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.encode`."""
        self.latent_shape(*frames.shape[1:4])
        return image_vae.encode(self.vae, frames)

    def decode(self, latents: Float[Tensor, "b c f y x"]) -> UInt8[Tensor, "b f h w 3"]:
        """See `Backbone.decode`."""
        return image_vae.decode(self.vae, latents)

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> Conditioning:
        """See `Backbone.embed`. All 120 columns are kept; the mask tells the caption's own."""
        if self.text_encoder is None:
            raise RuntimeError(
                "release_text_encoder() was called: embed before it, or load the backbone again"
            )
        problems = self.check_captions(captions)
        if problems:
            raise InputError("; ".join(problems))
        tokens = self.tokenizer(
            [_as_tokenized(caption) for caption in captions],
            padding="max_length",
            max_length=MAX_CAPTION_TOKENS,
            return_tensors="pt",
        )
        embeds = self.text_encoder(
            tokens.input_ids.to(self.device), attention_mask=tokens.attention_mask.to(self.device)
        ).last_hidden_state
        return Conditioning(embeds, tokens.attention_mask.bool())

    def guidance_pair(
        self, conditioning: Conditioning, negative: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        """See `Backbone.guidance_pair`.

        As in the stock pipeline, a negative caption fills as many columns as its row's caption has: it is cut
        where it is longer, and keeps embedded padding where it is shorter.
        """
        conditioning = conditioning.trimmed()
        length = conditioning.embeds.shape[1]
        if negative.embeds.shape[1] < length:
            raise ValueError(
                f"the negative caption has {negative.embeds.shape[1]} columns of {length}: do not trim it"
            )
        if len(negative) == 1:
            negative = negative.repeat(len(conditioning))
        return Conditioning(negative.embeds[:, :length], conditioning.mask), conditioning

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        conditioning = conditioning.trimmed()
        videos, channels, frames, height, width = x_t.shape
        tokens = height * width // self._config.patch_size**2
        with attention_kernels(self.device, self.dtype, tokens):
            output = self.network(
                hidden_states=x_t.to(self.device, self.dtype),
                timestep=torch.as_tensor(t, device=self.device).expand(videos),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                encoder_attention_mask=self._attention_bias(conditioning, frames),
                enable_temporal_attentions=frames > 1,
                return_dict=False,
            )[0]
        return output[:, :channels].to(x_t.dtype)

    def _attention_bias(self, conditioning: Conditioning, frames: int) -> Tensor | None:
        """The mask as what is added to the scores of every frame: diffusers' Latte does not convert it."""
        if conditioning.mask is None:
            return None
        bias = torch.zeros(conditioning.mask.shape, dtype=self.dtype)
        bias = bias.masked_fill(~conditioning.mask, torch.finfo(self.dtype).min)
        return bias.to(self.device)[:, None].repeat_interleave(frames, dim=0)

    def projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        """See `Backbone.projections` and `attention_projections`."""
        return attention_projections(self.network, kind)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """See `Backbone.latent_shape`: the trained number of frames or 1, sides in whole patches."""
        if frames not in (1, self.frames):
            raise InputError(f"frames={frames}: {self.name} makes videos of {self.frames} frames, or of 1")
        multiple = self._vae_factor * self._config.patch_size
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise InputError(f"size {height} x {width}: {self.name} needs multiples of {multiple} pixels")
        return (
            self._config.in_channels,
            frames,
            height // self._vae_factor,
            width // self._vae_factor,
        )

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`: an upper estimate, for captions of the greatest length."""
        config = self._config
        heads, text = config.num_attention_heads, self.max_caption_tokens
        width = heads * config.attention_head_dim
        frames, tokens = shape[1], shape[2] * shape[3] // config.patch_size**2
        # The factors are measured peaks of one block, in activations of the network's width.
        held = frames * width * (14 * tokens + 3 * text) * self.dtype.itemsize
        if not plain_attention(self.device, self.dtype, tokens):
            return held
        return held + 4 * frames * (4 * width * (tokens + text) + 2 * heads * tokens * max(tokens, text))

    def check_captions(self, captions: Sequence[str]) -> list[str]:
        """See `Backbone.check_captions`."""
        return _caption_problems(self.tokenizer, captions)

    def release_text_encoder(self) -> None:
        """See `Backbone.release_text_encoder`."""
        self.text_encoder = None

    def release_vae_encoder(self) -> None:
        """See `Backbone.release_vae_encoder`."""
        image_vae.release_encoder(self.vae)


def _as_tokenized(caption: str) -> str:
    return caption.lower().strip()


def _caption_problems(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> list[str]:
    return caption_problems(tokenizer, [_as_tokenized(caption) for caption in captions], MAX_CAPTION_TOKENS)
