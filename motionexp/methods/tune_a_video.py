"""Tune-A-Video: frames attend to the first and the previous one; queries and motion attention are tuned."""

from typing import Any

import torch
from torch import Tensor, nn

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import EVERYWHERE, Window
from motionexp.methods.base import TuningMethod, projection_layers
from motionexp.methods.full_rank import FullRank, TunedLinear


class TuneAVideo(FullRank):
    """Tune-A-Video (Wu et al. 2022, arXiv 2212.11565, section 4), on a network that has attention along time.

    The attention within a frame becomes sparse-causal where the method is on: the queries of frame i attend
    to the keys and values of the first frame and of frame i - 1, the first frame to itself. Tuned at full
    rank are the queries of that attention and of the attention to the caption, and the attention along time.
    The loss is the diffusion loss. Switched on, the untrained method is not the base model. Sampling starts
    from the reference's latents as the tuned network inverts them, `inverted_noise` = 1.

    The authors inflate an image model, whose attention along time is new and starts at zero; the networks
    here have a trained one. They clip gradients to a norm of 1; here nothing is clipped. Read in their code
    and not run: activation checkpoints without a trained input leave the queries on the way down untrained.
    That is not followed. Their rate is 3e-5 for 500 steps; rate and steps here are those of `full_rank`.

    Cost of a step: one of `full_rank`, with twice the keys within frames; and the inversion of each adapter.

    Args:
        backbone: with attention within frames, to the caption and along time.
        window: timesteps at which the method is trained and applied.

    Raises:
        InputError: the backbone lacks one of these attentions.
    """

    needs = ("motion", "spatial", "cross")
    starts_as_base = False
    inverts_tuned = True
    layers: dict[str, Any]

    def __init__(self, backbone: Backbone, window: Window) -> None:
        self.refuse_missing_attention(backbone)
        frames = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)[1]
        sparse = projection_layers(backbone, ("k", "v"), window, "spatial")
        layers: dict[str, nn.Module] = {
            name: SparseCausalLinear(layer, frames) for name, layer in sparse.items()
        }
        layers |= {
            name: TunedLinear(layer, backbone.device)
            for name, layer in tuned_layers(backbone, window).items()
        }
        TuningMethod.__init__(self, backbone, window, layers, {})

    @classmethod
    def trainable_parameters(cls, backbone: Backbone, window: Window = EVERYWHERE, **settings: Any) -> int:
        """See `TuningMethod.trainable_parameters`."""
        layers = tuned_layers(backbone, window).values()
        return sum(cls.layer_parameters(layer) for layer in layers)


def tuned_layers(backbone: Backbone, window: Window) -> dict[str, nn.Linear]:
    """The layers that are trained, by name."""
    queries = projection_layers(backbone, ("q",), window, "spatial")
    queries |= projection_layers(backbone, ("q",), window, "cross")
    return queries | projection_layers(backbone, ("q", "k", "v", "o"), window, "motion")


class SparseCausalLinear(nn.Module):
    """A layer of keys or values within frames, which gives a frame those of the first and the previous one.

    Args:
        base_layer: its weights stay.
        frames: of a video, F.
    """

    def __init__(self, base_layer: nn.Linear, frames: int) -> None:
        super().__init__()
        self.base_layer, self.frames = base_layer, frames
        self.is_on, self.scale = False, 1.0
        self.tuned = nn.ParameterDict()  # as a tuned layer has it: nothing is trained here
        self.train(base_layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B F, 2 P, out) of x (B F, P, D), the frames of one video one after the other."""
        output: Tensor = self.base_layer(x)
        if not self.is_on or self.scale == 0:
            return output
        by_frame = output.unflatten(0, (-1, self.frames))  # (B, F, P, out)
        first = by_frame[:, :1].expand_as(by_frame)
        previous = torch.cat([by_frame[:, :1], by_frame[:, :-1]], dim=1)
        return torch.cat([first, previous], dim=2).flatten(0, 1)
