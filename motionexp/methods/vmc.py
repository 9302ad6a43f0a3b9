"""Full-rank tuning that matches the change from frame to frame in place of the frames themselves."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional as F

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.base import TunedAttention
from motionexp.methods.full_rank import FullRank
from motionexp.methods.step import Step

Residuals = Literal["noise", "frames"]
Distance = Literal["cosine", "l2", "authors_code"]


class VMC(FullRank):
    """Video Motion Customization (arXiv 2312.00845, section 4): tuned q, k and v, and a loss of their own.

    With d x_n = x_(n+1) - x_n of latent frames n, it minimizes 1 - cos(d noise_n, d prediction_n), the mean
    over n, where a frame's channels and positions are one vector. What every frame has in common, much of its
    appearance, is in no difference. The authors tune the keyframe network of Show-1 for 400 steps, on a
    caption without appearance: give such a one with `caption=`. Sampling starts from the reference's latents
    as the tuned network inverts them, with the empty caption: `inverted_noise` = 1.

    Differences from the authors' code, which is the variant `authors_code`: there the differences are
    absolute values, and each cosine is of the vector over frames at one channel and position. They clip
    gradients to a norm of 1; here nothing is clipped. Their rate is 1e-4; rate and steps here are those of
    `full_rank`.

    Cost of a step: one of `full_rank`; and the inversion of each adapter.

    Args:
        backbone, window, projections, attention: as of `FullRank`.
        residuals: of the predicted noise, or of the predicted clean frames (the paper's ablation).
        distance: cosine, mean squared difference (the paper's ablation), or authors_code.

    Raises:
        InputError: as of `FullRank`, or another name, or a backbone with one latent frame.
    """

    inverts_tuned = True

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        projections: Sequence[str] = ("q", "k", "v"),
        attention: TunedAttention = "motion",
        residuals: Residuals = "noise",
        distance: Distance = "cosine",
    ) -> None:
        for name, value, kind in (("residuals", residuals, Residuals), ("distance", distance, Distance)):
            if value not in get_args(kind):
                raise InputError(f"method.{name}={value}: one of {', '.join(get_args(kind))}")
        super().__init__(backbone, window, projections=projections, attention=attention)
        self.settings |= {"residuals": residuals, "distance": distance}
        self.residuals, self.distance = residuals, distance

    def loss(self, step: Step) -> Tensor:
        """Return the distance of the predicted from the true changes between frames, a scalar.

        Raises:
            InputError: the video has one latent frame, which nothing follows.
        """
        step.check_frames(self.name)
        output = self.backbone.predict(step.noisy, step.t, step.conditioning)  # (B, C, F, h, w)
        schedule = self.backbone.schedule
        convert = schedule.to_epsilon if self.residuals == "noise" else schedule.to_x0
        true = step.noise if self.residuals == "noise" else step.latents
        predicted = convert(step.noisy, output.float(), step.t)
        return residual_distance(predicted, true, self.distance)


def residual_distance(predicted: Tensor, true: Tensor, distance: Distance) -> Tensor:
    """The distance between the changes from frame to frame of two latents (B, C, F, h, w), a scalar."""
    ours, theirs = predicted.diff(dim=2), true.diff(dim=2)  # (B, C, F - 1, h, w)
    if distance == "l2":
        return F.mse_loss(ours, theirs)
    if distance == "authors_code":
        return 1 - F.cosine_similarity(ours.abs(), theirs.abs(), dim=2).mean()
    # A vector for each frame: (B, F - 1, C h w).
    ours, theirs = ours.transpose(1, 2).flatten(2), theirs.transpose(1, 2).flatten(2)
    return 1 - F.cosine_similarity(ours, theirs, dim=2).mean()
