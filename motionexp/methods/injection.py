"""Keys and values of the reference in the first block, and nothing else: DiTFlow's baseline."""

from torch import Tensor

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.hooks import Hooks
from motionexp.diffusion.sampling import Guide
from motionexp.diffusion.schedule import Window
from motionexp.methods.guidance import GuidanceMethod, Injection, KeysAndValues, StepCost


class KeyValueInjection(GuidanceMethod):
    """Injection (Pondaven et al. 2025, arXiv 2412.07776, section 5.1): keys and values of the reference.

    At each guided step they replace the sample's, as `motionexp.methods.guidance.Injection` says. DiTFlow's
    paper adds it to every method that it compares, but for the bare backbone. `scale` s mixes: own + s
    (reference's - own). Published, as in the authors' code: the first 20% of 50 steps, the first block.

    Cost of a guided step: one forward pass up to the last of the blocks.

    Args:
        backbone, window: as of `GuidanceMethod`.
        injection_blocks: numbers of the blocks; null: the first with self-attention.

    Raises:
        InputError: the network has no such block, or no self-attention in it, or `scale` is above 1 when the
            sampling starts.
    """

    mixes = True

    def __init__(
        self, backbone: Backbone, window: Window, *, injection_blocks: list[int] | None = None
    ) -> None:
        super().__init__(backbone, window)
        self.injection = Injection(backbone, injection_blocks)
        self._stored: KeysAndValues = {}

    @property
    def cost(self) -> StepCost:
        """See `GuidanceMethod.cost`."""
        return StepCost(forward=1)

    def move(self, x_t: Tensor, t: float, guide: Guide) -> Tensor:
        """See `GuidanceMethod.move`: reads keys and values, and leaves the latents as they are."""
        captions = self.reference.with_own_image(guide.conditional)
        self._stored = self.injection.read(self.reference.latents, self.noise, t, captions)
        return x_t

    def acting(self, t: float) -> Hooks | None:
        """See `GuidanceMethod.acting`."""
        return Hooks(self.injection.hooks(self._stored, self.strength(t)))
