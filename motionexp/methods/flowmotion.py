"""FlowMotion: the predicted clean video follows that of the reference, without gradients of the network."""

import math

import torch
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.hooks import Hooks, Predict, activation_hooks
from motionexp.diffusion.reading import Reader
from motionexp.diffusion.sampling import Guide
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.guidance import Injection, Optimization, OptimizedGuidance, OptimizerName, StepCost


class FlowMotion(OptimizedGuidance):
    """FlowMotion (2026, arXiv 2603.06289): guidance on the prediction of x_0.

    At each guided step the reference is noised to t with the noise that the sample started from. What the
    network predicts as its x_0, with its caption, is followed by the x_0 that is predicted for the sample:
    `weight` times their mean squared difference, plus `weight_of_changes` times that of their absolute
    changes from frame to frame. The network's output counts as a constant: gradients reach x_t through x_0 =
    x_t - sigma output alone, so that no activations are kept. Adam lowers the loss by the latents.

    Published for flow matching, Wan at a shift of 3: its first 10 of 50 steps are t >= 930, the default of
    `tau`. On evenly spaced timesteps the same share of steps is t >= 800. With other schedules x_0 is what
    their outputs imply. Differences from the authors' code: both predictions are of
    the branch with the caption, without classifier-free guidance, and the velocity is not regularised.

    Cost of a guided step: `optimization_steps` + 1 forward passes; no backward pass.

    Args:
        backbone, window: as of `GuidanceMethod`.
        weight, weight_of_changes: of the two terms; not both 0.
        optimization_steps, first_rate, last_rate, optimizer: see `Optimization`.
        injection, injection_blocks: see `Injection`.

    Raises:
        InputError: a number is out of bounds, or the network has no block for the injection.
    """

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        weight: float = 20.0,
        weight_of_changes: float = 5.0,
        optimization_steps: int = 3,
        first_rate: float = 0.003,
        last_rate: float = 0.003,
        optimizer: OptimizerName = "adam",
        injection: bool = False,
        injection_blocks: list[int] | None = None,
    ) -> None:
        weights = weight, weight_of_changes
        if not all(0 <= value < math.inf for value in weights) or not any(weights):
            raise InputError(
                f"method.weight={weight:g}, method.weight_of_changes={weight_of_changes:g}: finite numbers"
                " from 0, and not both 0"
            )
        injected = Injection(backbone, injection_blocks) if injection else None
        optimization = Optimization(optimization_steps, first_rate, last_rate, optimizer)
        super().__init__(backbone, window, optimization, injected)
        self.weight, self.weight_of_changes = weight, weight_of_changes

    @property
    def cost(self) -> StepCost:
        """See `GuidanceMethod.cost`."""
        return StepCost(self.optimization.steps + 1 + (self.injection is not None))

    def move(self, x_t: Tensor, t: float, guide: Guide) -> Tensor:
        """See `GuidanceMethod.move`."""
        noised = self.backbone.schedule.add_noise(self.reference.latents, self.noise, t)
        captions = self.reference.conditioning.repeat(len(x_t))
        self._target = self.predicted(self.backbone.predict, noised, t, captions)
        return super().move(x_t, t, guide)

    def predicted(self, predict: Predict, x_t: Tensor, t: float, captions: Conditioning) -> Tensor:
        """The x_0 (B, C, F, h, w) that is predicted at x_t; gradients pass through x_t alone."""
        with torch.no_grad():
            output = predict(x_t, t, captions)
        assert output is not None  # no hook stops the pass
        return self.backbone.schedule.to_x0(x_t, output.float(), t)

    def batch_losses(self, reader: Reader, x_t: Tensor, t: float, captions: Conditioning) -> Tensor:
        """Weighted squared differences (B,) of x_0, and of its absolute changes from frame to frame."""
        with activation_hooks(self.backbone, self.shape, Hooks(self.injected)) as predict:
            ours, theirs = self.predicted(predict, x_t, t, captions), self._target
        losses = self.weight * _mean_square(ours, theirs)
        if ours.shape[2] > 1:
            changes = _mean_square(ours.diff(dim=2).abs(), theirs.diff(dim=2).abs())
            losses = losses + self.weight_of_changes * changes
        return losses


def _mean_square(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).square().flatten(1).mean(dim=1)
