"""Time-to-Move: a coarse video that moves as the reference is forced into the noisiest steps."""

import torch
from torch import Tensor
from torch.nn import functional as F

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.correspondence import displacements, places
from motionexp.diffusion.sampling import Guide, SamplerSettings
from motionexp.diffusion.schedule import TIMESTEPS, Window
from motionexp.errors import InputError
from motionexp.methods.guidance import GuidanceMethod, Guiding, StepCost


class TimeToMove(GuidanceMethod):
    """Time-to-Move (Singer et al. 2025, arXiv 2511.08633): denoising with two clocks, region by region.

    A coarse video is the reference's first latent frame, warped to every other frame: each latent of a frame
    comes from its nearest neighbour in the first, by the cosine of channels. The region that moves is where
    that neighbour is elsewhere. At each guided step the latents at t_prev are those of the coarse video,
    noised to t_prev with the noise that the sample started from: everywhere while t_prev >= `background_t`,
    and below only where it moves. The lower end of the window is the clock of the moving region.

    The paper has images to animate, warps that a user draws, and a model of images to video. Here the
    reference gives the warp, and the model has the caption alone; both clocks' defaults are ours. The
    reference's first frame is in the coarse video, with its appearance.

    Cost: none; `scale` s mixes: own + s (coarse - own).

    Args:
        backbone, window: as of `GuidanceMethod`.
        background_t: the background is free below this timestep, where the window reaches below it.

    Raises:
        InputError: `background_t` is no timestep, or `scale` is above 1 when the sampling starts.
    """

    mixes = True

    def __init__(self, backbone: Backbone, window: Window, *, background_t: float = 920.0) -> None:
        if not 0 <= background_t <= TIMESTEPS:
            raise InputError(f"method.background_t={background_t:g}: a timestep from 0 to 1000")
        super().__init__(backbone, window)
        self.background_t = background_t

    @property
    def cost(self) -> StepCost:
        """See `GuidanceMethod.cost`."""
        return StepCost()

    def watch(self, reference: Guiding) -> None:
        """See `GuidanceMethod.watch`."""
        super().watch(reference)
        self.coarse, self.moves = coarse_video(reference.latents)

    def start(self, noise: Tensor, guide: Guide, settings: SamplerSettings) -> Tensor:
        """See `GuidanceMethod.start`."""
        super().start(noise, guide, settings)
        first = self.backbone.schedule.timesteps(settings.steps)[0]
        return self._forced(noise, first, first) if self.is_on(first) else noise

    def correct(self, x_prev: Tensor, t: float, t_prev: float) -> Tensor:
        """See `GuidanceMethod.correct`."""
        return self._forced(x_prev, t, t_prev) if self.is_on(t_prev) else x_prev

    def _forced(self, x: Tensor, t: float, at: float) -> Tensor:
        """Latents x at timestep `at`, in the step of t, with the coarse video where its clock still runs."""
        forced = self.backbone.schedule.add_noise(self.coarse, self.noise, at)
        region = torch.ones_like(self.moves) if at >= self.background_t else self.moves
        return torch.lerp(x, forced, self.strength(t) * region)


def coarse_video(latents: Tensor) -> tuple[Tensor, Tensor]:
    """The first frame of latents (1, C, F, h, w), warped to all frames, and where it moves.

    Returns:
        The warped latents, and a mask (1, 1, F, h, w) of 0 and 1.
    """
    height, width = latents.shape[3:]
    units = F.normalize(latents.float(), dim=1).flatten(3).permute(0, 2, 3, 1)  # (1, F, P, C)
    # (F, P, 2): from each latent of a frame to its neighbour in the first frame.
    flow = displacements(units, units[:, :1], (height, width), factor=1.0, soft=False)[0, :, 0]
    sources = (places((height, width), units) + flow).long()
    first = latents[0, :, 0]  # (C, h, w)
    warped = first[:, sources[..., 0], sources[..., 1]]  # (C, F, P)
    moves = (flow != 0).any(dim=-1).float()
    return warped.unflatten(2, (height, width))[None], moves.unflatten(1, (height, width))[None, None]
