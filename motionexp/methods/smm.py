"""Space-time feature differences: how the mean features of a frame differ from those of other frames."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.hooks import find_block
from motionexp.diffusion.reading import Reader
from motionexp.diffusion.sampling import Guide, SamplerSettings
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.bounds import check_blocks
from motionexp.methods.guidance import (
    Guiding,
    Injection,
    Optimization,
    OptimizedGuidance,
    OptimizerName,
    StepCost,
    inverted_latents,
    published_block,
)

Source = Literal["inverted", "clean"]
Start = Literal["low_frequencies", "noise"]


class SpaceTimeFeatures(OptimizedGuidance):
    """Space-time features (Yatim et al. 2024, arXiv 2311.17009): differences of spatial marginal means.

    The mean of a block's output over the places of a frame is the frame's feature. For every ordered pair of
    frames the difference of the sample's features should point where the reference's does: 1 - cosine over
    channels, the mean over pairs, of which a frame with itself has none. At each guided step Adam lowers it
    by the latents. The reference is inverted, and read at the same timestep. The sampling starts from the low
    frequencies of its inverted latents, and from the high frequencies of the noise.

    The formula is that of the authors' code. Differences from the code: its mean has each frame with itself
    too, which adds a constant and makes gradients (F - 1) / F times ours; it reads three modules of a U-Net's
    second block on the way up, and this the block's output; it inverts in 999 steps, and this in at least
    50; it repeats every step after adding noise again (restart sampling), and this does not. DiTFlow's port
    to transformers is `source=clean`, `initial_latents=noise` and `injection=true`; the mistake in the port's
    loss is not followed.

    Cost of a guided step: `optimization_steps` passes up to the block, forward and backward, and one for the
    reference; of a reference the inversion.

    Args:
        backbone, window: as of `GuidanceMethod`.
        blocks: numbers of the read blocks, whose losses are added; null: `published_block`.
        source: inverted, or clean: read once, at t = 0 and with the empty caption.
        initial_latents: low_frequencies, or noise.
        downsampling: low frequencies are what is left of latents whose sides are divided by this.
        optimization_steps, first_rate, last_rate, optimizer: see `Optimization`.
        injection, injection_blocks: see `Injection`.

    Raises:
        InputError: the network lacks such a block, or another word.
    """

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        blocks: list[int] | None = None,
        source: Source = "inverted",
        initial_latents: Start = "low_frequencies",
        downsampling: int = 4,
        optimization_steps: int = 10,
        first_rate: float = 0.007,
        last_rate: float = 0.004,
        optimizer: OptimizerName = "adam",
        injection: bool = False,
        injection_blocks: list[int] | None = None,
    ) -> None:
        for name, value, kind in (("source", source, Source), ("initial_latents", initial_latents, Start)):
            if value not in get_args(kind):
                raise InputError(f"method.{name}={value}: one of {', '.join(get_args(kind))}")
        if downsampling < 1:
            raise InputError(f"method.downsampling={downsampling}: a whole number from 1")
        check_blocks("blocks", blocks)
        injected = Injection(backbone, injection_blocks) if injection else None
        optimization = Optimization(optimization_steps, first_rate, last_rate, optimizer)
        super().__init__(backbone, window, optimization, injected)
        self.blocks = [published_block(backbone)] if blocks is None else blocks
        for block in self.blocks:
            find_block(backbone, block)
        self.source, self.starts_from, self.downsampling = source, initial_latents, downsampling
        self._inverted: dict[int, dict[float, Tensor]] = {}
        self._features: dict[float, list[Tensor]] = {}

    @property
    def cost(self) -> StepCost:
        """See `GuidanceMethod.cost`."""
        inverts = self.source == "inverted" or self.starts_from == "low_frequencies"
        return super().cost._replace(once=50 if inverts else 1)

    def watch(self, reference: Guiding) -> None:
        """See `GuidanceMethod.watch`."""
        super().watch(reference)
        self._inverted, self._features = {}, {}

    def inverted(self, settings: SamplerSettings) -> dict[float, Tensor]:
        """The reference's latents at every timestep, inverted with its caption."""
        if settings.steps not in self._inverted:
            self._inverted = {
                settings.steps: inverted_latents(
                    self.backbone, self.reference, self.reference.conditioning, settings
                )
            }
        return self._inverted[settings.steps]

    def start(self, noise: Tensor, guide: Guide, settings: SamplerSettings) -> Tensor:
        """See `GuidanceMethod.start`."""
        super().start(noise, guide, settings)
        first = self.backbone.schedule.timesteps(settings.steps)[0]
        if not self.timesteps:
            return noise
        if self.source == "inverted":
            self._trajectory = self.inverted(settings)
        if self.starts_from == "noise" or not self.is_on(first):
            return noise
        return with_low_frequencies(noise, self.inverted(settings)[first], self.downsampling)

    def target(self, t: float) -> list[Tensor]:
        """The reference's features (1, D, F) at t, one tensor for each block."""
        key = t if self.source == "inverted" else 0.0
        if key not in self._features:
            reference = self.reference
            latents, captions = reference.latents, reference.empty
            if self.source == "inverted":
                latents, captions = self._trajectory[t], reference.conditioning
            with torch.no_grad(), Reader(self.backbone) as reader:
                features = reader.features(latents, key, captions, self.blocks)
            self._features[key] = [part.mean(dim=(3, 4)) for part in features]
        return self._features[key]

    def batch_losses(self, reader: Reader, x_t: Tensor, t: float, captions: Conditioning) -> Tensor:
        """1 - cosine (B,) of the differences between frames, the sum over blocks."""
        target = self.target(t)
        features = reader.features(x_t, t, captions, self.blocks)
        losses = [
            difference_loss(part.mean(dim=(3, 4)), reference)
            for part, reference in zip(features, target, strict=True)
        ]
        return torch.stack(losses).sum(dim=0)


def difference_loss(features: Tensor, reference: Tensor) -> Tensor:
    """1 - cosine (B,) of the differences of frames' features (B, D, F), the mean over pairs of two frames."""
    # (B, D, F, F): frame i minus frame j.
    ours, theirs = (part[..., :, None] - part[..., None, :] for part in (features, reference))
    cosines = F.cosine_similarity(ours, theirs.expand_as(ours), dim=1)
    frames = features.shape[-1]
    is_pair = ~torch.eye(frames, dtype=torch.bool, device=features.device)
    return 1 - cosines[:, is_pair].mean(dim=1)


def with_low_frequencies(noise: Tensor, inverted: Tensor, downsampling: int) -> Tensor:
    """Noise (B, C, F, h, w) whose low frequencies within frames are those of inverted latents."""
    return noise + _low(inverted, downsampling) - _low(noise, downsampling)


def _low(latents: Tensor, downsampling: int) -> Tensor:
    frames = latents.flatten(0, 2)[:, None]  # (B C F, 1, h, w)
    height, width = frames.shape[2:]
    size = max(1, height // downsampling), max(1, width // downsampling)
    small = F.interpolate(frames, size=size, mode="bilinear", antialias=True)
    return F.interpolate(small, size=(height, width), mode="bilinear").reshape(latents.shape)
