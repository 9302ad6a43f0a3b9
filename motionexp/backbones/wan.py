"""Wan 2.1 and 2.2 (Wan team 2025, arXiv 2503.20314) in diffusers' layout: flow matching, one 3D attention.

The text is laid out as `diffusers.WanPipeline` does it: padded to 512 tokens for UMT5, whose outputs beyond
the caption's own tokens are set to zero; the network hears all 512 columns, without a mask.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from jaxtyping import Float
from torch import Tensor, nn
from transformers import BatchEncoding, PreTrainedTokenizerBase, UMT5EncoderModel

from motionexp.backbones.checkpoint import read_json
from motionexp.backbones.flow import FlowBackbone, projections_of
from motionexp.backbones.precision import attention_kernels
from motionexp.diffusion.backbone import Conditioning, ProjectionKind
from motionexp.diffusion.schedule import TIMESTEPS, Window
from motionexp.errors import InputError

ATTENTIONS: dict[ProjectionKind, str] = {"motion": "attn1", "cross": "attn2"}


def attention_projections(network: WanTransformer3DModel, kind: ProjectionKind) -> dict[str, list[str]]:
    """See `Backbone.projections`; for Wan 2.1 1.3B each list has 30 names. The network may be on `meta`."""
    if kind not in ATTENTIONS:
        return {}
    return projections_of([f"blocks.{block}" for block in range(network.config.num_layers)], ATTENTIONS[kind])


class WanBackbone(FlowBackbone):
    """Wan with one network: `motion` attention is the self-attention over all frames of every block.

    Its VAE puts a first frame alone and then every four frames into one latent frame: 4 k + 1 frames.
    """

    attentions = ("motion", "cross")
    pipeline = "WanPipeline"
    classes: ClassVar = {
        "transformer": WanTransformer3DModel,
        "vae": AutoencoderKLWan,
        "text_encoder": UMT5EncoderModel,
    }
    video = (81, 480, 832)
    caption_tokens = 512
    activations = (6, 4)
    caption_activations = (5.5, 0)

    def _frames_per_latent(self) -> int:
        return int(self._shapes["vae"].config.scale_factor_temporal)

    def _activations(self) -> tuple[float, float]:
        full, own = self.activations
        width = self._config.num_attention_heads * self._config.attention_head_dim
        return full, max(own, 2 * self._config.ffn_dim / width)

    def _patch(self) -> int:
        return int(self._config.patch_size[1])

    @classmethod
    def _check(cls, folder: Path) -> None:
        super()._check(folder)
        index = folder / "model_index.json"
        about = read_json(index)
        if about.get("expand_timesteps"):
            raise InputError(
                f"{index}: expand_timesteps is set, as in Wan 2.2's TI2V-5B, which cannot be used; take a"
                " Wan 2.1, or Wan 2.2's T2V-A14B"
            )
        if (about.get("boundary_ratio") is None) == issubclass(cls, WanExpertsBackbone):
            raise InputError(
                f"{index}: boundary_ratio is {about.get('boundary_ratio')}: Wan 2.2's two experts have one"
                " and are read by WanExpertsBackbone, Wan 2.1 has none and is read by WanBackbone"
            )

    @classmethod
    def as_tokenized(cls, tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> list[str]:
        """See `PipelineBackbone.as_tokenized`; captions as they are, but for odd characters and blanks."""
        return [prompt_clean(caption) for caption in captions]

    def _embed(self, tokens: BatchEncoding) -> Conditioning:
        """The caption's own columns, and zeros beyond; no mask."""
        mask = tokens.attention_mask.to(self.device)
        embeds = self.text_encoder(tokens.input_ids.to(self.device), mask).last_hidden_state
        return Conditioning(embeds * mask[..., None].to(embeds.dtype))

    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """See `Backbone.predict`."""
        self._refuse_mask(conditioning)
        with attention_kernels(self.device, self.dtype, self._tokens(x_t.shape[1:])):
            output = self.network(
                hidden_states=x_t.to(self.device, self.dtype),
                timestep=self.schedule.label(t).to(self.device).expand(len(x_t)),
                encoder_hidden_states=conditioning.embeds.to(self.device, self.dtype),
                return_dict=False,
            )[0]
        return output.to(x_t.dtype)

    def _projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        return attention_projections(self.network, kind)


class WanExperts(nn.Module):
    """Two networks of one shape, each for its own range of timesteps; called as each of them is.

    Attributes:
        transformer: for t >= boundary, where noise prevails.
        transformer_2: below.
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
        """Return the outputs (B, C, F, y, x), each row from the expert of its timestep."""
        if hidden_states.is_meta:  # where no timestep has a value, one expert has the shapes of both
            output: tuple[Tensor] = self.transformer(
                hidden_states, timestep, encoder_hidden_states, return_dict=False
            )
            return output
        first = timestep >= self.boundary
        joined = torch.empty_like(hidden_states)
        for rows, expert in ((first, self.transformer), (~first, self.transformer_2)):
            if bool(rows.any()):
                part = expert(
                    hidden_states[rows], timestep[rows], encoder_hidden_states[rows], return_dict=False
                )
                joined = joined.index_put((rows,), part[0].to(joined.dtype))
        return (joined,)


class WanExpertsBackbone(WanBackbone):
    """Wan 2.2 A14B: two networks, split where the folder's `boundary_ratio` says, at sigma 0.875.

    `network` holds both, as `transformer` for sigma at or above it and `transformer_2` below. A window may
    lie in one or reach into both; what is tuned in it are layers of those that it reaches.
    """

    classes: ClassVar = {"transformer": WanTransformer3DModel, "transformer_2": WanTransformer3DModel,
                         "vae": AutoencoderKLWan, "text_encoder": UMT5EncoderModel}  # fmt: skip
    key_prefix = ""

    @classmethod
    def _assemble(cls, folder: Path, parts: Mapping[str, Any]) -> WanExperts:
        ratio: float = read_json(folder / "model_index.json")["boundary_ratio"]
        return WanExperts(parts["transformer"], parts["transformer_2"], ratio * TIMESTEPS)

    def _projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        return self._of(kind, ["transformer", "transformer_2"])

    def motion_projections(self, window: Window) -> dict[str, list[str]]:
        """See `Backbone.motion_projections`: those of the experts whose timesteps the window reaches."""
        reached = {
            "transformer": window.high >= self.network.boundary,
            "transformer_2": window.low < self.network.boundary,
        }
        return self._of("motion", [expert for expert, reaches in reached.items() if reaches])

    def _of(self, kind: ProjectionKind, experts: Sequence[str]) -> dict[str, list[str]]:
        names = attention_projections(self.network.transformer, kind)
        return {
            letter: [f"{expert}.{name}" for expert in experts for name in of_one]
            for letter, of_one in names.items()
        }
