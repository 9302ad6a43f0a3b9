"""CogVideoX (Yang et al. 2024, arXiv 2408.06072) in diffusers' layout: text and video in one attention.

The text is laid out as `diffusers.CogVideoXPipeline` does it with the network's own `max_text_seq_length`:
padded to that many tokens without a mask, so that the padding takes part in the encoder and in the attention.
Captions for a closed vocabulary, which has small letters alone, are written in these first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from motionexp.backbones.checkpoint import read_json
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import attention_kernels, plain_attention
from motionexp.backbones.text import closed_vocabulary
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.errors import InputError

LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}


def attention_projections(network: CogVideoXTransformer3DModel) -> dict[str, list[str]]:
    """See `Backbone.projections`; for CogVideoX-2b each list has 30 names. The network may be on `meta`."""
    return {
        letter: [f"transformer_blocks.{block}.attn1.{layer}" for block in range(network.config.num_layers)]
        for letter, layer in LAYERS.items()
    }


class CogVideoXBackbone(PipelineBackbone):
    """CogVideoX 1.0: `motion` attention is the one full 3D attention of every block.

    Its VAE puts a first frame alone and then every four frames into one latent frame, and takes the latent
    frames two at a time: videos have 8 k + 1 frames, one included. (Of 8 k + 5 frames it makes latents too,
    but decodes them to 8 k + 8.) There is no dynamic guidance, and no `ofs` embedding, as for text to video.
    """

    attentions = ("motion",)
    pipeline = "CogVideoXPipeline"
    classes: ClassVar = {
        "transformer": CogVideoXTransformer3DModel,
        "vae": AutoencoderKLCogVideoX,
        "text_encoder": T5EncoderModel,
    }

    def _set_sizes(self) -> None:
        self.frames = self._config.sample_frames
        self.height = self._config.sample_height * self._vae_factor
        self.width = self._config.sample_width * self._vae_factor
        self.max_caption_tokens = self._config.max_text_seq_length

    @classmethod
    def _check(cls, folder: Path) -> None:
        super()._check(folder)
        config = folder / cls.component / "config.json"
        if read_json(config).get("patch_size_t") is not None:
            raise InputError(
                f"{config}: patch_size_t is set, as in CogVideoX 1.5, which cannot be used; take a"
                " CogVideoX 1.0"
            )

    @classmethod
    def _longest_caption(cls, folder: Path, tokenizer: PreTrainedTokenizerBase) -> int:
        longest: int = read_json(folder / cls.component / "config.json")["max_text_seq_length"]
        return longest

    @classmethod
    def as_tokenized(cls, tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> list[str]:
        """See `PipelineBackbone.as_tokenized`; captions as they are unless the vocabulary is closed."""
        if closed_vocabulary(tokenizer) is None:
            return list(captions)
        return super().as_tokenized(tokenizer, captions)

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

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        self._refuse_mask(conditioning)
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
        vae = self._shapes["vae"]
        ratio = vae.config.temporal_compression_ratio
        group = ratio * vae.num_latent_frames_batch_size
        if frames < 1 or frames % group != 1:
            raise InputError(f"frames={frames}: {self.name} needs 1 frame and a multiple of {group}")
        sides = self._latent_sides(height, width, self._config.patch_size)
        return self._config.in_channels, (frames - 1) // ratio + 1, *sides

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
