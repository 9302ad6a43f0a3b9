"""What the video transformers of flow matching share: a VAE that is causal in time, videos of any size."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from motionexp.backbones import video_vae
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.precision import plain_attention
from motionexp.diffusion.backbone import ProjectionKind
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.errors import InputError

LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}


def projections_of(blocks: Sequence[str], attention: str) -> dict[str, list[str]]:
    """Names of the projections of one attention of each block."""
    return {letter: [f"{block}.{attention}.{layer}" for block in blocks] for letter, layer in LAYERS.items()}


class FlowBackbone(PipelineBackbone):
    """A video transformer of one attention over all frames, trained by flow matching.

    `frames`, `height` and `width` are those of the stock pipeline's call, and may be set: neither network nor
    VAE has a size of its own.

    Attributes:
        video: these three.
        caption_tokens: the longest caption that the stock pipeline lets through, end token included.
        activations: peak of one block's forward pass, measured: how many activations of the network's width a
            token of the video holds in fp32, and how many in the weights' precision.
        caption_activations: the same of a caption's column, beside; where both are tokens of one attention,
            the same numbers.
    """

    any_size = True
    video: ClassVar[tuple[int, int, int]]
    caption_tokens: ClassVar[int]
    activations: ClassVar[tuple[float, float]]
    caption_activations: ClassVar[tuple[float, float]]
    schedule: FlowSchedule

    def _set_sizes(self) -> None:
        self.frames, self.height, self.width = self.video
        self.max_caption_tokens = self.caption_tokens

    def _pixels_per_latent(self) -> int:
        return int(self._shapes["vae"].spatial_compression_ratio)

    def _frames_per_latent(self) -> int:
        """Frames after the first that become one latent frame."""
        return int(self._shapes["vae"].temporal_compression_ratio)

    def _patch(self) -> int:
        """Latents of a side that become one token."""
        return int(self._config.patch_size)

    @classmethod
    def _longest_caption(cls, folder: Path, tokenizer: PreTrainedTokenizerBase) -> int:
        return cls.caption_tokens

    @classmethod
    def as_tokenized(cls, tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> list[str]:
        """See `PipelineBackbone.as_tokenized`; captions as they are."""
        return list(captions)

    def encode(self, frames: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b c l y x"]:
        """See `Backbone.encode`."""
        self.latent_shape(*frames.shape[1:4])
        return video_vae.encode(self.vae, frames, self.device)

    def decode(self, latents: Float[Tensor, "b c l y x"]) -> UInt8[Tensor, "b f h w 3"]:
        """See `Backbone.decode`."""
        return video_vae.decode(self.vae, latents, self.device)

    def projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        """See `Backbone.projections`.

        `motion` is the attention over all frames. Asked for an attention that is no other than that one, this
        raises InputError, since tuning "it" instead would be the same run under another name.
        """
        found = self._projections(kind)
        if not found:
            raise InputError(f"{self.name} has no {kind} attention apart from its motion attention")
        return found

    @abstractmethod
    def _projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        """As `projections`; empty where the network has no such attention by itself."""

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """See `Backbone.latent_shape`: a first frame and whole latent frames, sides in whole patches."""
        count = video_vae.latent_frames(frames, self._frames_per_latent(), self.name)
        return self._config.in_channels, count, *self._latent_sides(height, width, self._patch())

    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """See `Backbone.predict_bytes`."""
        config, tokens, columns = self._config, self._tokens(shape), self.max_caption_tokens
        width = config.num_attention_heads * config.attention_head_dim
        (full, own), (text_full, text_own) = self._activations(), self.caption_activations
        in_full, in_own = full * tokens + text_full * columns, own * tokens + text_own * columns
        held = int(width * (4 * in_full + self.dtype.itemsize * in_own))
        if not plain_attention(self.device, self.dtype, self._longest_sequence(tokens, columns)):
            return held
        return held + 9 * config.num_attention_heads * tokens * max(tokens, columns)

    def _activations(self) -> tuple[float, float]:
        """`activations`, of this network's own shape."""
        return self.activations

    def _longest_sequence(self, tokens: int, columns: int) -> int:
        """Tokens of the motion attention, for a video of so many and a caption of so many columns."""
        return tokens + columns if self.caption_activations == self.activations else tokens

    def _tokens(self, shape: Sequence[int]) -> int:
        """How many tokens a video's latents (C, F, h, w) are."""
        _, frames, height, width = shape
        return frames * height * width // self._patch() ** 2
