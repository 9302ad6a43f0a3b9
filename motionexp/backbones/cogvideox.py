"""CogVideoX (Yang et al. 2024, arXiv 2408.06072) in diffusers' layout: text and video in one attention.

The text is laid out as `diffusers.CogVideoXPipeline` does it with the network's own `max_text_seq_length`:
padded to that many tokens without a mask, so that the padding takes part in the encoder and in the attention.
Captions for a closed vocabulary, which has small letters alone, are written in these first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

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
from motionexp.backbones.text import caption_problems, closed_vocabulary, load_tokenizer
from motionexp.config import InputError
from motionexp.schedule import NoiseSchedule

CLASSES = {
    "_class_name": "CogVideoXPipeline",
    "transformer": "CogVideoXTransformer3DModel",
    "vae": "AutoencoderKLCogVideoX",
    "text_encoder": "T5EncoderModel",
}
LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}


def attention_projections(network: CogVideoXTransformer3DModel) -> dict[str, list[str]]:
    """See `Backbone.projections`; for CogVideoX-2b each list has 30 names. The network may be on `meta`."""
    return {
        letter: [f"transformer_blocks.{block}.attn1.{layer}" for block in range(network.config.num_layers)]
        for letter, layer in LAYERS.items()
    }


class CogVideoXBackbone(Backbone):
    """CogVideoX 1.0: `motion` attention is the one full 3D attention of every block.

    Its VAE puts a first frame alone and then every four frames into one latent frame, and takes the latent
    frames two at a time: videos have 8 k + 1 frames, one included. (Of 8 k + 5 frames it makes latents too,
    but decodes them to 8 k + 8.) There is no dynamic guidance, and no `ofs` embedding, as for text to video.

    `from_pretrained` leaves the VAE in fp32: it runs once a video, and rounding shows in its pictures.
    """

    parts = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")

    def __init__(
        self,
        *,
        network: CogVideoXTransformer3DModel,
        vae: AutoencoderKLCogVideoX,
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
        self._vae_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.frames = self._config.sample_frames
        self.height = self._config.sample_height * self._vae_factor
        self.width = self._config.sample_width * self._vae_factor
        self.max_caption_tokens = self._config.max_text_seq_length

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
    ) -> "CogVideoXBackbone":
        """Load the folder of a CogVideoXPipeline.

        Args:
            path: `bundled:NAME`, a folder, or a hub id, which is downloaded once.
            revision: the hub repository's commit, branch or tag.
            device: where to compute.
            dtype: of the network and the text encoder.
            name: in rows and paths; the path's last part unless given.
            fps: frames a second of the videos that it makes.
            local_files_only: never ask the hub.

        Raises:
            InputError: no such folder, a file of it is missing, damaged or of another model, or it is a
                CogVideoX 1.5.
        """
        folder = find_folder(path, revision, local_files_only)
        check_folder(folder, CLASSES, weighted=("transformer", "vae", "text_encoder"))
        if _transformer_config(folder).get("patch_size_t") is not None:
            raise InputError(
                f"{folder / 'transformer' / 'config.json'}: patch_size_t is set, as in CogVideoX 1.5, which"
                " cannot be used; take a CogVideoX 1.0"
            )
        return cls(
            network=load_part(CogVideoXTransformer3DModel, folder / "transformer", dtype),
            vae=load_part(AutoencoderKLCogVideoX, folder / "vae", torch.float32),
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
        """See `Backbone.caption_problems`; the longest caption is the network's, from its configuration."""
        folder = find_folder(path, revision, local_files_only)
        longest = _transformer_config(folder)["max_text_seq_length"]
        return _caption_problems(load_tokenizer(folder), captions, longest)

    @torch.no_grad()
    def encode(self, frames: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b c l y x"]:
        """See `Backbone.encode`. The VAE takes one video at a time, and of it eight frames."""
        if self.vae.encoder is None:
            raise RuntimeError(
                "release_vae_encoder() was called: encode before it, or load the backbone again"
            )
        self.latent_shape(*frames.shape[1:4])
        latents = [
            self.vae.encode(video.to(self.device, self.vae.dtype) / 127.5 - 1).latent_dist.mode()
            for video in frames.movedim(-1, 1).split(1)
        ]
        return torch.cat(latents).float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c l y x"]) -> UInt8[Tensor, "b f h w 3"]:
        """See `Backbone.decode`. The VAE takes one video at a time, and of it two latent frames."""
        frames = []
        for video in (latents / self.vae.config.scaling_factor).split(1):
            decoded = self.vae.decode(video.to(self.device, self.vae.dtype)).sample
            frames.append(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8))
        return torch.cat(frames).movedim(1, -1)

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> Conditioning:
        """See `Backbone.embed`. All columns are heard: there is no mask."""
        if self.text_encoder is None:
            raise RuntimeError(
                "release_text_encoder() was called: embed before it, or load the backbone again"
            )
        problems = self.check_captions(captions)
        if problems:
            raise InputError("; ".join(problems))
        tokens = self.tokenizer(
            _as_tokenized(self.tokenizer, captions),
            padding="max_length",
            max_length=self.max_caption_tokens,
            return_tensors="pt",
        )
        return Conditioning(self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state)

    def guidance_pair(
        self, conditioning: Conditioning, negative: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        """See `Backbone.guidance_pair`: all captions are of one length, and nothing is laid out anew."""
        return (negative.repeat(len(conditioning)) if len(negative) == 1 else negative), conditioning

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        if conditioning.mask is not None:
            raise ValueError("this network hears every column of a caption: a mask would do nothing")
        with attention_kernels(self.device, self.dtype, self._tokens(tuple(x_t.shape[1:]))):
            output = self.network(
                hidden_states=x_t.transpose(1, 2).to(self.device, self.dtype),
                timestep=torch.as_tensor(t, device=self.device).expand(len(x_t)),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                image_rotary_emb=self._rotary(*x_t.shape[2:]),
                return_dict=False,
            )[0]
        return output.transpose(1, 2).to(x_t.dtype)

    def _rotary(self, frames: int, height: int, width: int) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines (tokens, head width) of the video tokens' places in a latent (F, h, w).

        A grid other than the trained one is laid over that, by its centre. None where the network adds
        embeddings of its own.
        """
        config = self._config
        if not config.use_rotary_positional_embeddings:
            return None
        grid = height // config.patch_size, width // config.patch_size
        trained = config.sample_width // config.patch_size, config.sample_height // config.patch_size
        cosines, sines = get_3d_rotary_pos_embed(
            embed_dim=config.attention_head_dim,
            crops_coords=get_resize_crop_region_for_grid(grid, *trained),
            grid_size=grid,
            temporal_size=frames,
            device=self.device,
        )
        return cosines, sines

    def projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        """See `Backbone.projections` and `attention_projections`.

        One attention connects time, space and caption. It is the motion attention; asked for the others this
        raises InputError, since tuning "them" instead would be the same run under another name.
        """
        if kind != "motion":
            raise InputError(f"{self.name} has no {kind} attention apart from its motion attention")
        return attention_projections(self.network)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """See `Backbone.latent_shape`: 1 frame and whole pairs of latent frames, sides in whole patches."""
        ratio = self.vae.config.temporal_compression_ratio
        group = ratio * self.vae.num_latent_frames_batch_size
        if frames < 1 or frames % group != 1:
            raise InputError(f"frames={frames}: {self.name} needs 1 frame and a multiple of {group}")
        multiple = self._vae_factor * self._config.patch_size
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise InputError(f"size {height} x {width}: {self.name} needs multiples of {multiple} pixels")
        return (
            self._config.in_channels,
            (frames - 1) // ratio + 1,
            height // self._vae_factor,
            width // self._vae_factor,
        )

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`."""
        config, tokens = self._config, self._tokens(shape)
        width = config.num_attention_heads * config.attention_head_dim
        # The factors are measured peaks of one block, in activations of the network's width.
        held = 14 * tokens * width * self.dtype.itemsize
        if not plain_attention(self.device, self.dtype, tokens):
            return held
        return held + 9 * config.num_attention_heads * tokens**2

    def _tokens(self, shape: tuple[int, ...]) -> int:
        """How many tokens attend to each other: the caption's columns, and a video's (C, F, h, w) patches."""
        _, frames, height, width = shape
        return self.max_caption_tokens + frames * height * width // self._config.patch_size**2

    def check_captions(self, captions: Sequence[str]) -> list[str]:
        """See `Backbone.check_captions`."""
        return _caption_problems(self.tokenizer, captions, self.max_caption_tokens)

    def release_text_encoder(self) -> None:
        """See `Backbone.release_text_encoder`."""
        self.text_encoder = None

    def release_vae_encoder(self) -> None:
        """See `Backbone.release_vae_encoder`."""
        self.vae.encoder = None
        self.vae.quant_conv = None


def _transformer_config(folder: Path) -> dict[str, Any]:
    return read_json(folder / "transformer" / "config.json")


def _as_tokenized(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> list[str]:
    if closed_vocabulary(tokenizer) is None:
        return list(captions)
    return [caption.lower() for caption in captions]


def _caption_problems(
    tokenizer: PreTrainedTokenizerBase, captions: Sequence[str], max_tokens: int
) -> list[str]:
    return caption_problems(tokenizer, _as_tokenized(tokenizer, captions), max_tokens)
