"""MotionDirector: two LoRAs, of which the one within frames learns the appearance and is thrown away."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import EVERYWHERE, Window, generator
from motionexp.errors import InputError
from motionexp.methods.dual_lora import DualLoRA, layers_of_both
from motionexp.methods.lora import ADAPTER
from motionexp.methods.step import Step

Variant = Literal["paper", "authors_code"]
BETA = 1.0
SKIPPED = 0.2
"""Share of steps in which the authors' code leaves the appearance out."""
DROPOUT = 0.1


class MotionDirector(DualLoRA):
    """MotionDirector (Zhao et al. 2023, arXiv 2310.08465, section 4): two paths of training, one at sampling.

    Each step has two terms, at the same noise and timestep. The spatial path sees one random frame, with the
    LoRA within frames alone, and only that LoRA gets its gradient. The temporal path sees the video with both
    LoRAs, and only the LoRA along time gets its gradient:

        |p - e|^2 + |d(p) - d(e)|^2,    d(x)_f = sqrt(b^2 + 1) x_f - b x_a,    b = 1

    as means over numbers, where p is the network's output, e its target and a a random frame: d takes out
    what all frames share. While sampling, the LoRA along time acts alone. It starts from
    `inverted_noise` = 0.5, the authors' value for one video; 0 is noise alone.

    Differences from the authors' code, which is the variant `authors_code` (MotionDirector_train.py): there a
    fifth of the steps has no spatial path and no spatial LoRA, LoRA's outputs have a dropout of 0.1 in
    training, and A starts with the standard deviation 1 / rank. In both variants the authors' network leaves
    its layers along time out on a single frame, as Latte does here. A U-Net here runs them: tiny_unet3d has
    learnt single frames with them, and without them its squared error in their noise is 12 times as large at
    t = 200. On ModelScope this differs from the authors' code. Their dropout ends with the first preview,
    which is not followed. Their rank is 32 with a scale of 1, which is `rank=32 alpha=32`; rank, learning
    rate and steps here are those of `lora`.

    Cost of a step: one of `lora` and one of a single frame.

    Args:
        backbone, window, rank, alpha: as of `LoRA`; the network has attention within frames.
        projections: of both attentions.
        feed_forward: whether the feed-forward layers of the attentions' blocks are tuned too.
        variant: the paper's method, or that of the authors' code.

    Raises:
        InputError: as of `LoRA`, or another variant, or a network without attention within frames.
    """

    is_single = True

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        rank: int = 4,
        alpha: float = 4.0,
        projections: Sequence[str] = ("q", "k", "v", "o"),
        feed_forward: bool = True,
        variant: Variant = "paper",
    ) -> None:
        if variant not in get_args(Variant):
            raise InputError(f"method.variant={variant}: one of {', '.join(get_args(Variant))}")
        self.refuse_missing_attention(backbone)
        settings = {
            "rank": rank,
            "alpha": alpha,
            "projections": list(projections),
            "feed_forward": feed_forward,
            "variant": variant,
        }
        temporal, spatial = self.chosen(backbone, window, projections=projections, feed_forward=feed_forward)
        self._follows_code = variant == "authors_code"
        self._dropped: tuple[str, Step] | None = None  # the path and the step whose outputs are dropped
        super().__init__(backbone, window, temporal, spatial, rank=rank, alpha=alpha, settings=settings)
        for name, layer in self.layers.items() if self._follows_code else ():
            layer.lora_B[ADAPTER].register_forward_hook(self._dropout(name))

    @classmethod
    def chosen(
        cls,
        backbone: Backbone,
        window: Window = EVERYWHERE,
        *,
        projections: Sequence[str] = ("q", "k", "v", "o"),
        feed_forward: bool = True,
        **settings: Any,
    ) -> tuple[dict[str, nn.Linear], dict[str, nn.Linear]]:
        """See `DualLoRA.chosen`."""
        return layers_of_both(backbone, window, projections, feed_forward)

    def reset(self, seed: int) -> None:
        """See `LoRA.reset`; of the authors' code A has the standard deviation 1 / rank."""
        super().reset(seed)
        for name, layer in self.layers.items() if self._follows_code else ():
            down = layer.lora_A[ADAPTER].weight
            start = torch.randn(down.shape, generator=generator("motion director", seed, name))
            down.detach().copy_(start / len(down))

    def losses(self, step: Step) -> Iterator[Tensor]:
        """Yield the loss of the spatial path, then that of the temporal path."""
        step.check_frames(self.name)
        has_appearance = not (self._follows_code and self._skips(step))
        try:
            if has_appearance:
                self._dropped = ("spatial", step)
                yield self.appearance_loss(step, "motion director frame")
            self._dropped = ("temporal", step)
            self.turn(temporal=True, spatial=has_appearance)
            output = self.backbone.predict(step.noisy, step.t, step.conditioning)  # (B, C, F, h, w)
            yield temporal_loss(output.float(), step.target, step.random_frames("motion director anchor"))
        finally:
            self._dropped = None

    def _skips(self, step: Step) -> bool:
        """Whether the authors' code leaves the appearance out: of a step as a whole, whatever its batches."""
        key = step.keys[0]
        stream = generator("motion director path", key.seed, key.step)
        return bool(torch.rand((), generator=stream) < SKIPPED)

    def _dropout(self, name: str) -> Any:
        """A hook that drops numbers of a LoRA's output in training, by the draws' keys."""

        def hook(layer: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor:
            if self._dropped is None:
                return output
            path, step = self._dropped
            # The network keeps a batch's rows in the outermost place: (R, ..., out) with R a multiple of B.
            shape = (len(output) // len(step.keys), *output.shape[1:])
            streams = [generator("motion director dropout", path, name, *key) for key in step.keys]
            mask = torch.cat([torch.rand(shape, generator=stream) >= DROPOUT for stream in streams])
            return output * mask.to(output.device) / (1 - DROPOUT)

        return hook


def temporal_loss(output: Tensor, target: Tensor, anchors: Sequence[int]) -> Tensor:
    """The two terms of the temporal path, for outputs and targets (B, C, F, h, w) and anchor frames (B)."""
    debiased = F.mse_loss(without_anchor(output, anchors), without_anchor(target, anchors))
    return F.mse_loss(output, target) + debiased


def without_anchor(video: Tensor, anchors: Sequence[int], beta: float = BETA) -> Tensor:
    """sqrt(b^2 + 1) x_f - b x_a of a video (B, C, F, h, w), with the anchor frame a of each row."""
    anchor = video[list(range(len(anchors))), :, list(anchors)].unsqueeze(2)  # (B, C, 1, h, w)
    return math.sqrt(beta**2 + 1) * video - beta * anchor
