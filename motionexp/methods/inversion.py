"""The sampling starts from the reference's inverted latents, and nothing else: a floor of motion transfer."""

from typing import Literal, get_args

from torch import Tensor

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.inversion import mixed_noise
from motionexp.diffusion.sampling import Guide, SamplerSettings
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.guidance import GuidanceMethod, Guiding, StepCost, inverted_latents

Prompt = Literal["caption", "empty"]


class Inversion(GuidanceMethod):
    """Inversion (Song et al. 2021, arXiv 2010.02502, section 4.3): the reference's latents as initial noise.

    It acts once, at the first timestep, if that is in the window. `scale` s mixes: sqrt(s) inverted +
    sqrt(1 - s) noise, as MotionDirector (arXiv 2310.08465) starts; 1, the default, is the inverted latents
    alone. All samples with s = 1 and one caption are equal, whatever the seed.

    Cost: of a reference one forward pass for each step of the inversion, at least 50.

    Args:
        backbone, window: as of `GuidanceMethod`.
        prompt: that the reference is inverted with: its caption, or empty.

    Raises:
        InputError: another prompt, or `scale` above 1 when the sampling starts.
    """

    mixes = True

    def __init__(self, backbone: Backbone, window: Window, *, prompt: Prompt = "caption") -> None:
        if prompt not in get_args(Prompt):
            raise InputError(f"method.prompt={prompt}: one of {', '.join(get_args(Prompt))}")
        super().__init__(backbone, window)
        self.prompt = prompt
        self._inverted: dict[tuple[int, float], Tensor] = {}

    @property
    def cost(self) -> StepCost:
        """See `GuidanceMethod.cost`."""
        return StepCost(once=50, at_start=True)

    def watch(self, reference: Guiding) -> None:
        """See `GuidanceMethod.watch`."""
        super().watch(reference)
        self._inverted = {}

    def start(self, noise: Tensor, guide: Guide, settings: SamplerSettings) -> Tensor:
        """See `GuidanceMethod.start`."""
        super().start(noise, guide, settings)
        first = self.backbone.schedule.timesteps(settings.steps)[0]
        if not self.is_on(first):
            return noise
        key = settings.steps, first
        if key not in self._inverted:
            reference = self.reference
            captions = reference.conditioning if self.prompt == "caption" else reference.empty
            self._inverted[key] = inverted_latents(self.backbone, reference, captions, settings)[first]
        return mixed_noise(self._inverted[key], noise, self.strength(first))
