"""Wan 2.1 and 2.2 (Wan team 2025, arXiv 2503.20314) in diffusers' layout: flow matching, one 3D attention.

The text is laid out as `diffusers.WanPipeline` does it: padded to 512 tokens for UMT5, whose outputs beyond
the caption's own tokens are set to zero; the network attends to all 512 columns, without a mask.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from jaxtyping import Float
from torch import Tensor, nn
from transformers import BatchEncoding, T5EncoderModel, UMT5EncoderModel

from motionexp.backbones import image_vae, original_names, video_vae
from motionexp.backbones.blocks import numbered
from motionexp.backbones.checkpoint import Unsupported, read_json
from motionexp.backbones.flow import block_bytes, network_input, projections_of
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import attention_kernels
from motionexp.backbones.text import Tokenizer, lower_case_if_closed, refuse_mask
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.schedule import TIMESTEPS, Window
from motionexp.diffusion.window_in_steps import reached
from motionexp.errors import InputError

ATTENTIONS: dict[ProjectionKind, str] = {"motion": "attn1", "cross": "attn2"}
# Their folders in the pipeline, the one for the noisy timesteps first.
EXPERTS = ("transformer", "transformer_2")


class WanExperts(nn.Module):
    """Two networks of one shape, each for its own range of timesteps; called as each of them is.

    Attributes:
        transformer: for t >= boundary, where noise prevails.
        transformer_2: for t < boundary.
        boundary: a timestep, 0 to 1000.
    """

    def __init__(
        self, transformer: WanTransformer3DModel, transformer_2: WanTransformer3DModel, boundary: float
    ) -> None:
        super().__init__()
        self.transformer, self.transformer_2, self.boundary = transformer, transformer_2, boundary

    @property
    def config(self) -> Any:
        """That of both."""
        return self.transformer.config

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights of both."""
        return self.transformer.dtype

    def forward(
        self,
        hidden_states: Float[Tensor, "b c f y x"],
        timestep: Float[Tensor, " b"],
        encoder_hidden_states: Float[Tensor, "b l d"],
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Return the outputs (B, C', F, y, x), each row from the expert of its timestep."""
        if hidden_states.is_meta:  # where no timestep has a value, one expert has the shapes of both
            output: tuple[Tensor] = self.transformer(
                hidden_states, timestep, encoder_hidden_states, return_dict=False
            )
            return output
        # (B,): a batch may hold timesteps of both experts.
        first = timestep >= self.boundary
        joined = hidden_states.new_empty(
            len(first), self.config.out_channels, *hidden_states.shape[2:]
        )  # (B, C', F, y, x)
        for rows, expert in ((first, self.transformer), (~first, self.transformer_2)):
            if bool(rows.any()):
                part = expert(
                    hidden_states[rows], timestep[rows], encoder_hidden_states[rows], return_dict=False
                )
                joined = joined.index_put((rows,), part[0].to(joined.dtype))
        return (joined,)


def attention_projections(
    network: WanTransformer3DModel | WanExperts, kind: ProjectionKind
) -> dict[str, list[str]]:
    """See `Backbone.projections`; for Wan 2.1 1.3B each list has 30 names. The network may be on `meta`."""
    experts = [f"{expert}." for expert in EXPERTS] if isinstance(network, WanExperts) else [""]
    blocks = range(network.config.num_layers)
    return projections_of(
        [f"{expert}blocks.{block}.{ATTENTIONS[kind]}" for expert in experts for block in blocks]
    )


def clean(tokenizer: Tokenizer, captions: Sequence[str]) -> list[str]:
    """Captions for the tokenizer, as they are, but for odd characters and blanks."""
    return [prompt_clean(caption) for caption in captions]


class WanBackbone(PipelineBackbone):
    """Wan with one network: `motion` attention is the self-attention over all frames of every block.

    Its VAE puts a first frame alone and then every four frames into one latent frame: 4 k + 1 frames.
    """

    any_size = True
    flow_matching = True
    attentions = ("motion", "cross")
    pipeline = "WanPipeline"
    classes: ClassVar = {
        "transformer": WanTransformer3DModel,
        "vae": AutoencoderKLWan,
        "text_encoder": UMT5EncoderModel,
    }
    unsupported: ClassVar[tuple[Unsupported, ...]] = (
        Unsupported(
            "model_index.json",
            "expand_timesteps",
            (None, False),
            "Wan 2.2's TI2V-5B has it; take a Wan 2.1, or Wan 2.2's T2V-A14B",
        ),
        Unsupported(
            "model_index.json",
            "transformer_2",
            # A Wan 2.1 may carry a boundary_ratio all the same: diffusers' conversion writes one.
            (None, [None, None]),
            "Wan 2.2's two experts have it; they are read by WanExpertsBackbone",
        ),
    )
    codec: ClassVar = video_vae
    find_projections = staticmethod(attention_projections)
    find_originals = staticmethod(original_names.wan)
    caption_form = staticmethod(clean)
    caption_tokens: ClassVar[int | None] = 512
    schedule: FlowSchedule

    @staticmethod
    def find_blocks(network: WanTransformer3DModel | WanExperts) -> list[tuple[str, ...]]:
        """The blocks of the one network, or those of both experts side by side."""
        if not isinstance(network, WanExperts):
            return numbered(network, "blocks")
        return [
            tuple(f"{expert}.{name}" for expert in EXPERTS)
            for (name,) in numbered(network.transformer, "blocks")
        ]

    @property
    def positions(self) -> tuple[str, ...]:
        """See `Backbone.positions`."""
        return ("rope",)

    def _trained_video(self) -> tuple[int, int, int]:
        return 81, 480, 832

    def _embed(self, tokens: BatchEncoding) -> Conditioning:
        """The caption's own columns, and zeros beyond; no mask."""
        mask = tokens.attention_mask.to(self.device)
        embeds = self.text_encoder(tokens.input_ids.to(self.device), mask).last_hidden_state
        # (B, 512, D): the network attends to the zeros too.
        return Conditioning(embeds * mask[..., None].to(embeds.dtype))

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        refuse_mask(conditioning)
        image = conditioning.image
        embeds = None if image is None else image.embeds  # the experts' forward pass has no argument for them
        more = {} if embeds is None else {"encoder_hidden_states_image": embeds.to(self.device, self.dtype)}
        with attention_kernels(self.device, self.dtype, self.video_tokens(x_t.shape[1:])):
            output = self.network(
                hidden_states=network_input(self, x_t, image),
                timestep=self.schedule.label(t).to(self.device).expand(len(x_t)),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                return_dict=False,
                **more,
            )[0]
        return output.to(x_t.dtype)

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`."""
        width = self.config.num_attention_heads * self.config.attention_head_dim
        # In the feed-forward layers a token holds two activations of their width.
        return block_bytes(self, shape, video=(6, max(4, 2 * self.config.ffn_dim / width)), caption=(5.5, 0))


class WanFramesBackbone(WanBackbone):
    """Wan on latents of single frames, as the bundled small model has it: any number of frames.

    Its text encoder is a T5, for captions as long as the tokenizer's `model_max_length`.
    """

    classes: ClassVar = {
        "transformer": WanTransformer3DModel,
        "vae": AutoencoderKL,
        "text_encoder": T5EncoderModel,
    }
    codec: ClassVar = image_vae
    decoding_note = "WanPipeline decodes with a video VAE alone, and this model's VAE is of single frames."
    caption_form = staticmethod(lower_case_if_closed)
    caption_tokens = None

    def _trained_video(self) -> tuple[int, int, int]:
        return 16, 64, 64


class WanExpertsBackbone(WanBackbone):
    """Wan 2.2 A14B: two networks, split where the folder's `boundary_ratio` says, at sigma 0.875.

    `network` holds both, as `transformer` for sigma at or above it and `transformer_2` below. A window may
    lie in one or reach into both; what is tuned in it are layers of those that it reaches.
    """

    classes: ClassVar = {
        "transformer": WanTransformer3DModel,
        "transformer_2": WanTransformer3DModel,
        "vae": AutoencoderKLWan,
        "text_encoder": UMT5EncoderModel,
    }
    unsupported: ClassVar = WanBackbone.unsupported[:1]
    key_prefix = ""
    shardable = False  # a rank may draw a timestep of one expert, while another rank computes with the other

    @staticmethod
    def outputs_of(modules: tuple[str, ...]) -> tuple[str, ...]:
        """See `NamedLayers`: the block of one expert runs."""
        return modules

    @classmethod
    def find_runs(cls, network: WanExperts) -> list[list[str]]:
        """See `NamedLayers`: the blocks of each expert."""
        return [[*names] for names in zip(*cls.find_blocks(network), strict=True)]

    @property
    def positions(self) -> tuple[str, ...]:
        """See `Backbone.positions`: the experts have one each, and a replacement would be for both."""
        return ()

    @classmethod
    def _assemble(cls, folder: Path, parts: Mapping[str, Any]) -> WanExperts:
        return WanExperts(parts["transformer"], parts["transformer_2"], _boundary(folder))

    @property
    def spans(self) -> dict[str, Window]:
        """See `Backbone.spans`: the first expert acts at t >= boundary, the second below it."""
        boundary = _boundary(self._folder)
        return dict(zip(EXPERTS, (Window(boundary), Window(0, math.nextafter(boundary, 0))), strict=True))

    def motion_projections(self, window: Window) -> dict[str, list[str]]:
        """See `Backbone.motion_projections`: those of the experts whose timesteps the window reaches."""
        experts = reached(self.spans, window)
        return {
            letter: [name for name in names if name.split(".")[0] in experts]
            for letter, names in self.projections("motion").items()
        }


def _boundary(folder: Path) -> float:
    """The timestep where the experts take turns. Raises InputError where the folder names none."""
    index = folder / "model_index.json"
    ratio: float | None = read_json(index).get("boundary_ratio")
    if ratio is None:
        raise InputError(f"{index}: boundary_ratio is missing: the timestep where the experts take turns")
    return ratio * TIMESTEPS
