"""The U-Net of Show-1's base model (Zhang et al. 2023, arXiv 2309.15818), which diffusers has no class for.

DeepFloyd IF's image U-Net in pixels, of diffusers' own blocks, in which every residual layer is followed by a
convolution along time and every attention by one along time. The names are those of the hub's weights.
"""

from collections.abc import Mapping
from functools import partial, wraps
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_2d_blocks import (
    SimpleCrossAttnDownBlock2D,
    SimpleCrossAttnUpBlock2D,
    UNetMidBlock2DSimpleCrossAttn,
)
from jaxtyping import Float
from torch import Tensor, nn

WITH_ATTENTION = (SimpleCrossAttnDownBlock2D, SimpleCrossAttnUpBlock2D, UNetMidBlock2DSimpleCrossAttn)


class ShowOneUNet(UNet2DConditionModel):
    """See the module. Its configuration is IF's, with the hub's names that end in 3D or diffusers' in 2D.

    In the attention along time, `attention_head_dim` is the number of heads, as the hub's weights have it.
    """

    @wraps(UNet2DConditionModel.__init__)  # type: ignore[misc]  # diffusers reads the signature
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._frames = 1
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            self._add_time(block)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **more: Any) -> "ShowOneUNet":
        """See diffusers; the hub's `unet/config.json` is taken as it is.

        Raises:
            ValueError: it asks for `transformer_in`, which the base model does not have.
        """
        settings = dict(config)
        if settings.pop("transfromer_in_opt", False):  # the authors' spelling
            raise ValueError("transfromer_in_opt=true: only Show-1's base model can be used, which has none")
        network: ShowOneUNet = super().from_config(
            {key: _of_images(value) for key, value in settings.items()}, **more
        )
        return network

    def _add_time(self, block: Any) -> None:
        """Put a convolution along time after each residual layer of a block, attention after attention."""
        groups, heads = self.config.norm_num_groups, self.config.attention_head_dim
        widths = [layer.out_channels for layer in block.resnets]
        block.temp_convs = nn.ModuleList(
            TemporalConvLayer(width, width, dropout=0.1, norm_num_groups=groups) for width in widths
        )
        pairs = list(zip(block.resnets, block.temp_convs, strict=True))
        if isinstance(block, WITH_ATTENTION):
            block.temp_attentions = nn.ModuleList(
                TransformerTemporalModel(
                    heads,
                    layer.out_dim // heads,
                    in_channels=layer.out_dim,
                    norm_num_groups=groups,
                    cross_attention_dim=self.config.cross_attention_dim,
                )
                for layer in block.attentions
            )
            # The order of a block: residual layer, time, attention, time.
            pairs += zip(block.attentions, block.temp_attentions, strict=True)
        for layer, along_time in pairs:
            # Hooks leave diffusers' own forward pass of the block as it is.
            self._follow(layer, along_time)

    def _follow(self, layer: nn.Module, along_time: nn.Module) -> None:
        layer.register_forward_hook(partial(self._mix_frames, along_time))

    def _mix_frames(self, along_time: nn.Module, layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        mixed = along_time(output, num_frames=self._frames)
        return mixed if isinstance(mixed, Tensor) else mixed.sample

    def forward(
        self, video: Float[Tensor, "b c f h w"], t: Tensor, captions: Float[Tensor, "b l d"]
    ) -> Float[Tensor, "b c2 f h w"]:
        """Noise, and a variance in as many channels again, at the timesteps t (B,)."""
        self._frames = video.shape[2]
        # The image network takes frames as a batch: (B, ...) to (B F, ...).
        rows = [tensor.repeat_interleave(self._frames, dim=0) for tensor in (t, captions)]
        pictures = video.transpose(1, 2).flatten(0, 1)
        output: Tensor = super().forward(pictures, *rows, return_dict=False)[0]
        # (B F, C, H, W) to (B, C, F, H, W).
        return output.unflatten(0, (-1, self._frames)).transpose(1, 2)


def _of_images(value: Any) -> Any:
    """The name of IF's block for one of Show-1's; anything else as it is."""
    if isinstance(value, str):
        return value.replace("3D", "2D")
    return [_of_images(item) for item in value] if isinstance(value, list | tuple) else value


def attention_layers(network: nn.Module, kind: str) -> list[str]:
    """Names of the modules of one kind of attention; within a frame there is one for space and caption."""
    if kind == "motion":
        return [
            f"{name}.transformer_blocks.{block}.{attention}"
            for name, module in network.named_modules()
            if isinstance(module, TransformerTemporalModel)
            for block in range(len(module.transformer_blocks))
            # Both attend along time: TransformerTemporalModel has no caption in attn2.
            for attention in ("attn1", "attn2")
        ]
    return [
        f"{outer}.attentions.{index}"
        for outer, module in network.named_modules()
        if isinstance(module, WITH_ATTENTION)
        for index in range(len(module.attentions))
    ]
