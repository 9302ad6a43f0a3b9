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
from jaxtyping import Float
from torch import Tensor
from transformers import T5EncoderModel

from motionexp.backbones import video_vae
from motionexp.backbones.checkpoint import Unsupported, read_json
from motionexp.backbones.flow import network_input, projections_of
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import attention_kernels, plain_attention
from motionexp.backbones.text import Tokenizer, lower_case_if_closed, refuse_mask
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.errors import InputError


def attention_projections(
    network: CogVideoXTransformer3DModel, kind: ProjectionKind = "motion"
) -> dict[str, list[str]]:
    """See `Backbone.projections`; for CogVideoX-2b each list has 30 names. The network may be on `meta`."""
    return projections_of([f"transformer_blocks.{i}.attn1" for i in range(network.config.num_layers)])


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
    unsupported: ClassVar[tuple[Unsupported, ...]] = (
        Unsupported(
            "transformer/config.json", "patch_size_t", (None,), "CogVideoX 1.5 has it; take a CogVideoX 1.0"
        ),
    )
    codec: ClassVar = video_vae
    find_projections = staticmethod(attention_projections)
    caption_first = True
    caption_form = staticmethod(lower_case_if_closed)

    def _trained_video(self) -> tuple[int, int, int]:
        factor = self.pixels_per_latent
        return (
            self.config.sample_frames,
            self.config.sample_height * factor,
            self.config.sample_width * factor,
        )

    @classmethod
    def _longest_caption(cls, folder: Path, tokenizer: Tokenizer) -> int:
        longest: int = read_json(folder / cls.component / "config.json")["max_text_seq_length"]
        return longest

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        refuse_mask(conditioning)
        with attention_kernels(self.device, self.dtype, self._attended(x_t.shape[1:])):
            output = self.network(
                # (B, C, F, h, w) to (B, F, C, h, w), as this network takes videos.
                hidden_states=network_input(self, x_t, conditioning.image).transpose(1, 2),
                timestep=torch.as_tensor(t, device=self.device).expand(len(x_t)),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                image_rotary_emb=self._rotary(*x_t.shape[2:]),
                return_dict=False,
            )[0]
        return output.transpose(1, 2).to(x_t.dtype)

    @property
    def positions(self) -> tuple[str, ...]:
        """See `Backbone.positions`: the 2B model adds its embedding, the 5B model rotates."""
        rotates = self.config.use_rotary_positional_embeddings
        return ("image_rotary_emb",) if rotates else ("patch_embed.pos_embedding",)

    def position_argument(self, name: str, shape: Sequence[int]) -> Sequence[Tensor] | None:
        """See `Backbone.position_argument`."""
        return self._rotary(*shape[1:]) if name == "image_rotary_emb" else None

    def _rotary(self, frames: int, height: int, width: int) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines (tokens, head width) of the video tokens' places in a latent (F, h, w).

        A grid other than the trained one is laid over that, by its centre. None where the network adds
        embeddings of its own.
        """
        config = self.config
        if not config.use_rotary_positional_embeddings:
            return None
        # In patches, the tokens of a frame.
        grid = height // config.patch_size, width // config.patch_size
        trained = config.sample_width // config.patch_size, config.sample_height // config.patch_size
        # Places are scaled into the grid of the training, as CogVideoXPipeline does.
        cosines, sines = get_3d_rotary_pos_embed(
            embed_dim=config.attention_head_dim,
            crops_coords=get_resize_crop_region_for_grid(grid, *trained),
            grid_size=grid,
            temporal_size=frames,
            device=self.device,
        )
        return cosines, sines

    def _latent_frames(self, frames: int) -> int:
        """1 frame and whole pairs of latent frames: the VAE decodes them two at a time."""
        ratio = self.frames_per_latent
        group = ratio * self._shapes["vae"].num_latent_frames_batch_size
        if frames < 1 or frames % group != 1:
            raise InputError(f"frames={frames}: {self.name} needs 1 frame and a multiple of {group}")
        # The first frame is a latent frame alone, as the VAE is causal.
        return (frames - 1) // ratio + 1

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`."""
        config, tokens = self.config, self._attended(shape)
        width = config.num_attention_heads * config.attention_head_dim
        # The factors are measured peaks of one block, in activations of the network's width.
        held: int = 14 * tokens * width * self.dtype.itemsize
        if not plain_attention(self.device, self.dtype, tokens):
            return held
        return held + 9 * config.num_attention_heads * tokens**2

    def _attended(self, shape: Sequence[int]) -> int:
        """How many tokens attend to each other: the caption's columns, and those of a video (C, F, h, w)."""
        return self.max_caption_tokens + self.video_tokens(shape)
