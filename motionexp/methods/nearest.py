"""Nearest neighbours of latents as correspondence: DiTFlow's alternative to attention."""

import torch
from torch import Tensor
from torch.nn import functional as F

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.correspondence import displacements
from motionexp.diffusion.reading import Reader
from motionexp.diffusion.sampling import Guide
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.bounds import check_positive
from motionexp.methods.guidance import Injection, Optimization, OptimizedGuidance, OptimizerName, StepCost


class NearestNeighbours(OptimizedGuidance):
    """Nearest neighbours on noisy latents (Pondaven et al. 2025, arXiv 2412.07776, appendix C).

    As DiTFlow, with another signal: where each latent of a frame is in another frame is where the cosine of
    their channels is largest. At each guided step this is read from the reference, noised to t with the noise
    that the sample started from, by the argmax, and from the sample by a soft argmax; their mean squared
    difference falls. The network is not asked. The paper shows such displacements, as noisy ones, and does
    not guide by them: the optimiser and the range of steps are those of its method.

    Cost of a guided step: no pass of the network, but for the injection.

    Args:
        backbone, window: as of `GuidanceMethod`.
        temperature: multiplies cosines before the softmax.
        frames_at_once: frames whose scores with all frames are in memory together; null: by their size.
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
        temperature: float = 10.0,
        frames_at_once: int | None = None,
        optimization_steps: int = 5,
        first_rate: float = 0.002,
        last_rate: float = 0.001,
        optimizer: OptimizerName = "adam",
        injection: bool = True,
        injection_blocks: list[int] | None = None,
    ) -> None:
        check_positive(temperature=temperature)
        if frames_at_once is not None and frames_at_once < 1:
            raise InputError(f"method.frames_at_once={frames_at_once}: a whole number from 1")
        injected = Injection(backbone, injection_blocks) if injection else None
        optimization = Optimization(optimization_steps, first_rate, last_rate, optimizer)
        super().__init__(backbone, window, optimization, injected)
        self.temperature, self.frames_at_once = temperature, frames_at_once

    @property
    def cost(self) -> StepCost:
        """See `GuidanceMethod.cost`."""
        return StepCost(float(self.injection is not None))

    def flow(self, latents: Tensor, *, soft: bool) -> Tensor:
        """Displacements (B, F, F, h w, 2) by the latents (B, C, F, h, w) themselves."""
        height, width = latents.shape[3:]
        units = F.normalize(latents.float(), dim=1).flatten(3).permute(0, 2, 3, 1)  # (B, F, P, C)
        return displacements(
            *(units, units, (height, width)),
            factor=self.temperature,
            soft=soft,
            frames_at_once=self.frames_at_once,
        )

    def move(self, x_t: Tensor, t: float, guide: Guide) -> Tensor:
        """See `GuidanceMethod.move`."""
        noised = self.backbone.schedule.add_noise(self.reference.latents, self.noise, t)
        with torch.no_grad():
            self._target = self.flow(noised, soft=False)
        return super().move(x_t, t, guide)

    def batch_losses(self, reader: Reader, x_t: Tensor, t: float, captions: Conditioning) -> Tensor:
        """Mean squared differences (B,) of the sample's displacements to the reference's."""
        return (self.flow(x_t, soft=True) - self._target).square().flatten(1).mean(dim=1)
