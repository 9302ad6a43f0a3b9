"""Motion Inversion: learnt embeddings on the attention along time, in place of changed weights."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from motionexp.diffusion.backbone import Backbone, VideoShape
from motionexp.diffusion.schedule import EVERYWHERE, Window
from motionexp.methods.base import TuningMethod, prediction_loss, projection_layers
from motionexp.methods.step import Step


class MotionInversion(TuningMethod):
    """Motion Inversion (Wang et al. 2024, arXiv 2403.20193): the weights stay, and two embeddings are learnt.

    Of an attention along time with features x (frame f, place p), queries, keys and values are computed from

        q, k: x[f, p] + m_qk[f],    v: x[f, p] + m_v[f, p]

    Both embeddings start at zero and minimize the diffusion loss. m_qk has no place, so that it holds no
    layout. While sampling, m_v[f] - m_v[f - 1] takes the place of m_v[f], and 0 that of the first frame's:
    what all frames share, much of the appearance, is in no difference.

    As in the authors' code, embeddings are in the widest blocks on the way down and up alone (1280 channels
    in ModelScope); in Latte all blocks are equal. The formulas are those of the paper's abstract and the
    authors' code, and the difference of consecutive frames is our reading of its "differential operation".
    In the code the first frame keeps m_v; this takes 0, because m_v of a frame has its appearance.
    The code has 32 rows of frames whatever the video. Its learning rate is 0.02, and it takes 400 steps. Rate
    and steps here are those of `lora`; on the real models that rate is 67 times smaller, so that
    `learning_rate=0.02 train_steps=400` is the authors' training. Sampling starts from `inverted_noise` =
    0.5, the code's value.

    Cost: that of `lora`, without its products. An adapter fits one number of frames and one size.

    Args:
        backbone: with attention along time apart from that within frames.
        window: timesteps at which the embeddings are trained and applied.

    Raises:
        InputError: the backbone has no such attention.
    """

    needs = ("motion", "spatial")
    layers: dict[str, "EmbeddedLinear"]

    def __init__(self, backbone: Backbone, window: Window) -> None:
        self.refuse_missing_attention(backbone)
        base_layers = projection_layers(backbone, ("q", "k", "v"), window)
        shapes = embedding_shapes(backbone, window)
        device = backbone.device
        self.query_key = {
            name: nn.Parameter(torch.zeros(frames, width, device=device))
            for name, (_, frames, width) in shapes.items()
        }
        self.value = {name: nn.Parameter(torch.zeros(shape, device=device)) for name, shape in shapes.items()}
        layers = {}
        for name, layer in base_layers.items():
            attention, _, projection = name.rpartition(".")
            if attention in shapes:
                embedding = (self.value if projection == "to_v" else self.query_key)[attention]
                layers[name] = EmbeddedLinear(layer, embedding)
        super().__init__(backbone, window, layers, {})

    @classmethod
    def trainable_parameters(cls, backbone: Backbone, window: Window = EVERYWHERE, **settings: Any) -> int:
        """See `TuningMethod.trainable_parameters`."""
        shapes = embedding_shapes(backbone, window).values()
        return sum((places + 1) * frames * width for places, frames, width in shapes)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """m_qk (F, D) and m_v (P, F, D) of each attention: frames, places and channels."""
        return {f"{name}.motion_query_key": tensor for name, tensor in self.query_key.items()} | {
            f"{name}.motion_value": tensor for name, tensor in self.value.items()
        }

    def reset(self, seed: int) -> None:
        """Set the embeddings to zero; nothing is random here."""
        for parameter in self.parameters.values():
            parameter.detach().zero_()

    def losses(self, step: Step) -> Iterator[Tensor]:
        """Yield the diffusion loss, with the value embedding as it is."""
        self._set_debiased(False)
        try:
            yield prediction_loss(self.backbone, step)
        finally:
            self._set_debiased(True)

    def switch(self, on: bool) -> None:
        for parameter in self.parameters.values():
            parameter.requires_grad_(on)
        for layer in self.layers.values():
            layer.is_on = on

    def _set_debiased(self, debiased: bool) -> None:
        for layer in self.layers.values():
            layer.is_debiased = debiased

    def _set_scale(self, value: float) -> None:
        for layer in self.layers.values():
            layer.scale = value


class EmbeddedLinear(nn.Module):
    """A linear layer of an attention along time, with an embedding added to its input.

    Args:
        base_layer: of queries, keys or values.
        embedding: (F, D) for all places, or (P, F, D), of which sampling takes the differences over frames.
    """

    def __init__(self, base_layer: nn.Linear, embedding: nn.Parameter) -> None:
        super().__init__()
        self.base_layer, self.embedding = base_layer, embedding
        self.is_on, self.is_debiased, self.scale = False, True, 1.0
        self.train(base_layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B P, F, out) of x (B P, F, D)."""
        if not self.is_on:
            output: Tensor = self.base_layer(x)
            return output
        embedding: Tensor = self.embedding
        if embedding.ndim == 3:
            embedding = frame_differences(embedding) if self.is_debiased else embedding
            # The places of one video follow each other.
            embedding = embedding.repeat(len(x) // len(embedding), 1, 1)  # (B P, F, D)
        changed: Tensor = self.base_layer(x + (self.scale * embedding).to(x.dtype))
        return changed


def frame_differences(embedding: Tensor) -> Tensor:
    """m[f] - m[f - 1] of an embedding (P, F, D), with 0 for the first frame."""
    return torch.cat([torch.zeros_like(embedding[:, :1]), embedding.diff(dim=1)], dim=1)


def embedding_shapes(backbone: Backbone, window: Window = EVERYWHERE) -> Mapping[str, tuple[int, int, int]]:
    """Places, frames and channels (P, F, D) of the attentions that get embeddings, by name."""
    layers = projection_layers(backbone, ("q",), window)
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    outer = {name: layer for name, layer in layers.items() if not name.startswith("mid_block.")}
    widest = max(layer.in_features for layer in outer.values())
    return {
        name.rpartition(".")[0]: (places_of(backbone, name, shape), shape[1], layer.in_features)
        for name, layer in outer.items()
        if layer.in_features == widest
    }


def places_of(backbone: Backbone, name: str, shape: VideoShape) -> int:
    """The places of a frame of latents (C, F, h, w) at which a layer along time runs, by its name."""
    _, frames, height, width = shape
    part, number, *_ = name.split(".")
    levels = sum(block.outputs[0].startswith("down_blocks.") for block in backbone.blocks)
    if part not in ("down_blocks", "up_blocks"):
        return backbone.video_tokens(shape) // frames
    # A level of a U-Net has half the rows and columns of the one above, rounded up.
    halvings = int(number) if part == "down_blocks" else levels - 1 - int(number)
    return math.ceil(height / 2**halvings) * math.ceil(width / 2**halvings)
