"""MOFT: the channels of a block's output in which frames differ from their mean follow the reference's."""

from typing import Literal, get_args

import torch
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.hooks import find_block
from motionexp.diffusion.reading import Reader
from motionexp.diffusion.sampling import Guide, SamplerSettings
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.bounds import check_positive
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
Average = Literal["none", "frame"]


class MotionFeatures(OptimizedGuidance):
    """MOFT (Xiao et al. 2024, arXiv 2405.14864): motion channels of features without their mean over frames.

    Of a block's output the mean over frames is removed, which has most of the appearance. The channels with
    the largest weights in the first principal component of what is left are the motion channels. At each
    guided step the mean squared difference of the sample's to the reference's is lowered by gradient descent
    on the latents. The reference is inverted, and read after 5 of 25 steps, at t = 200.

    Differences from the authors' code: there 50 of 1,280 channels are chosen once, on four synthetic pans,
    and here a share of 4% on the reference itself, as in DiTFlow's port; there a user's mask limits the
    guidance and the features are means over a crop of the frame (`average=frame` is the mean over the whole
    frame), and here every place follows its own; keys and values are not shared with an unguided sample.

    Cost of a guided step: `optimization_steps` passes up to the block, forward and backward; of a reference
    the inversion.

    Args:
        backbone, window: as of `GuidanceMethod`.
        block: number of the read block; null: `published_block`.
        share: of the channels, that are motion channels; above 0 to 1, at least one channel.
        average: none, or frame: of features over the places of a frame.
        weight: multiplies the loss.
        source: inverted, or clean: read at t = 0.
        reference_t: timestep of the inverted reference, or the nearest one of the sampling.
        optimization_steps, first_rate, last_rate, optimizer: see `Optimization`.
        injection, injection_blocks: see `Injection`.

    Raises:
        InputError: the network has no such block, a number is out of bounds, or another word.
    """

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        block: int | None = None,
        share: float = 0.04,
        average: Average = "none",
        weight: float = 7.0,
        source: Source = "inverted",
        reference_t: float = 200.0,
        optimization_steps: int = 2,
        first_rate: float = 0.5,
        last_rate: float = 0.5,
        optimizer: OptimizerName = "sgd",
        injection: bool = False,
        injection_blocks: list[int] | None = None,
    ) -> None:
        for name, value, kind in (("source", source, Source), ("average", average, Average)):
            if value not in get_args(kind):
                raise InputError(f"method.{name}={value}: one of {', '.join(get_args(kind))}")
        if not 0 < share <= 1:
            raise InputError(f"method.share={share:g}: a number above 0 to 1")
        check_positive(weight=weight)
        if not 0 <= reference_t <= 1000:
            raise InputError(f"method.reference_t={reference_t:g}: a timestep from 0 to 1000")
        injected = Injection(backbone, injection_blocks) if injection else None
        optimization = Optimization(optimization_steps, first_rate, last_rate, optimizer)
        super().__init__(backbone, window, optimization, injected)
        self.block = published_block(backbone) if block is None else block
        find_block(backbone, self.block)
        self.share, self.averages, self.weight = share, average == "frame", weight
        self.source, self.reference_t = source, reference_t
        self._target: tuple[Tensor, Tensor] | None = None

    @property
    def cost(self) -> StepCost:
        """See `GuidanceMethod.cost`."""
        return super().cost._replace(once=50 if self.source == "inverted" else 1)

    def watch(self, reference: Guiding) -> None:
        """See `GuidanceMethod.watch`."""
        super().watch(reference)
        self._target = None

    def start(self, noise: Tensor, guide: Guide, settings: SamplerSettings) -> Tensor:
        """See `GuidanceMethod.start`."""
        super().start(noise, guide, settings)
        if self._target is None and self.timesteps:
            reference = self.reference
            latents, t, captions = reference.latents, 0.0, reference.empty
            if self.source == "inverted":
                captions = reference.conditioning
                inverted = inverted_latents(self.backbone, reference, captions, settings)
                t = min(inverted, key=lambda t: abs(t - self.reference_t))
                latents = inverted[t]
            with torch.no_grad(), Reader(self.backbone) as reader:
                (features,) = reader.features(latents, t, captions, [self.block])
            features = without_mean(self._averaged(features))
            channels = motion_channels(features, self.share)
            self._target = channels, features[:, channels]
        return noise

    def _averaged(self, features: Tensor) -> Tensor:
        return features.mean(dim=(3, 4), keepdim=True) if self.averages else features

    def batch_losses(self, reader: Reader, x_t: Tensor, t: float, captions: Conditioning) -> Tensor:
        """Weighted mean squared differences (B,) in the motion channels."""
        assert self._target is not None
        channels, reference = self._target
        (features,) = reader.features(x_t, t, captions, [self.block])
        ours = without_mean(self._averaged(features))[:, channels]
        return self.weight * (ours - reference).square().flatten(1).mean(dim=1)


def without_mean(features: Tensor) -> Tensor:
    """Features (B, D, F, rows, columns) without their mean over frames."""
    return features - features.mean(dim=2, keepdim=True)


def motion_channels(features: Tensor, share: float) -> Tensor:
    """Numbers of the channels with the largest absolute weights in the first principal component.

    Args:
        features: (1, D, F, rows, columns) without their mean over frames: an observation is one place of one
            frame.
        share: of the channels.
    """
    observations = features[0].flatten(1).T  # (F P, D)
    # The first eigenvector of (D, D): on the CPU, where its sign and last bits depend on no device.
    gram = (observations.T @ observations).double().cpu()
    weights = torch.linalg.eigh(gram).eigenvectors[:, -1].abs()
    count = max(1, round(share * len(weights)))
    return weights.topk(count).indices.sort().values.to(features.device)
