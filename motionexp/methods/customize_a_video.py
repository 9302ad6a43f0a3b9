"""Customize-A-Video: an appearance absorber is trained first, then a LoRA along time beside it."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import EVERYWHERE, Window
from motionexp.errors import InputError
from motionexp.methods.base import prediction_loss, projection_layers
from motionexp.methods.dual_lora import DualLoRA
from motionexp.methods.step import Step


class CustomizeAVideo(DualLoRA):
    """Customize-A-Video (Ren et al. 2024, arXiv 2402.14780): two phases of training, one LoRA at sampling.

    In the first `absorber_steps` of the training's steps a LoRA on the attention within frames and to the
    caption, the appearance absorber, learns single random frames, without attention along time where the
    network can leave it out. In the other steps the absorber is fixed and on, and a LoRA on the motion
    attention learns the video: what the absorber shows already, it need not learn. Both minimize the
    diffusion loss. While sampling, the absorber is off.

    The authors have published no code. Of the paper's absorbers this is the spatial LoRA; that by textual
    inversion is left out. Rank, learning rate and steps are those of `lora`.

    Cost of a step: in the first phase that of a single frame, then one of `lora`.

    Args:
        backbone, window, rank, alpha: as of `LoRA`; the network has attention within frames.
        projections: of all three attentions.
        absorber_steps: of the first phase, from 0; a training needs more steps than that.

    Raises:
        InputError: as of `LoRA`, or a negative number of steps, or a network without attention within frames.
    """

    is_single = True
    needs = ("motion", "spatial", "cross")

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        rank: int = 4,
        alpha: float = 4.0,
        projections: Sequence[str] = ("v", "o"),
        absorber_steps: int = 50,
    ) -> None:
        if absorber_steps < 0:
            raise InputError(f"method.absorber_steps={absorber_steps}: a whole number from 0")
        self.refuse_missing_attention(backbone)
        temporal, spatial = self.chosen(backbone, window, projections=projections)
        self.absorber_steps = absorber_steps
        settings = {
            "rank": rank,
            "alpha": alpha,
            "projections": list(projections),
            "absorber_steps": absorber_steps,
        }
        super().__init__(backbone, window, temporal, spatial, rank=rank, alpha=alpha, settings=settings)

    @classmethod
    def chosen(
        cls,
        backbone: Backbone,
        window: Window = EVERYWHERE,
        *,
        projections: Sequence[str] = ("v", "o"),
        **settings: Any,
    ) -> tuple[dict[str, nn.Linear], dict[str, nn.Linear]]:
        """See `DualLoRA.chosen`."""
        temporal = projection_layers(backbone, projections, window, "motion")
        spatial = projection_layers(backbone, projections, window, "spatial")
        return temporal, spatial | projection_layers(backbone, projections, window, "cross")

    def losses(self, step: Step) -> Iterator[Tensor]:
        """Yield the loss of the phase that the step belongs to."""
        step.check_frames(self.name)
        if step.keys[0].step < self.absorber_steps:
            yield self.appearance_loss(step, "customize a video frame")
        else:
            self.turn(temporal=True, spatial=True)
            yield prediction_loss(self.backbone, step)
