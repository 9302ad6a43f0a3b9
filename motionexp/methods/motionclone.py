"""MotionClone: the strongest links of temporal attention in the reference guide the sample."""

import math

import torch
from torch import Tensor

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.hooks import Attended, AttentionHook, Hooks, Place, find_block
from motionexp.diffusion.reading import Reader
from motionexp.diffusion.sampling import Guide
from motionexp.diffusion.schedule import Window, generator
from motionexp.errors import InputError
from motionexp.methods.bounds import check_positive
from motionexp.methods.guidance import (
    GuidanceMethod,
    Guiding,
    Injection,
    KeysAndValues,
    StepCost,
    published_block,
)


class MotionClone(GuidanceMethod):
    """MotionClone (Ling et al. 2024, arXiv 2406.05338): guidance by sparse temporal attention.

    The reference is noised once, to t = 400, and passed through the network with the empty caption. Of the
    attention of a place over frames, the largest probability of each query and its place are stored. The
    loss is the mean squared difference of the sample's probabilities at these places, added over the
    attentions of a block, times a weight that rises over the first guided steps and falls over the last. Its
    gradient by the latents, of the branch with the caption, is subtracted from the predicted noise where
    DDIM's step points back to x_t: noise - sqrt(1 - alpha_bar) gradient. The predicted x_0 stays as it is.

    Where the motion attention is over all tokens, the attention of a place over the same place in other
    frames takes its part, as in DiTFlow's comparison. Published are 50 guided steps of 100, 10 of them rising
    and 10 falling: here these are shares of the guided steps. The published schedule is uneven: half of all
    steps lie in the guided range, t from 700 to 1000. This is not followed: of evenly spaced steps 30%
    lie there. Of the authors' code this follows the version
    of 2024-10; its guidance scale counts one higher than ours.

    Cost of a guided step: one pass up to the block, forward and backward.

    Args:
        backbone, window: as of `GuidanceMethod`.
        block: number of the block; null: `published_block`.
        weight: of the loss.
        reference_t: timestep that the reference is noised to.
        ramp: share of the guided steps in which the weight rises, and in which it falls; 0 to 0.5.
        injection, injection_blocks: see `Injection`.

    Raises:
        InputError: the network has no such block or no motion attention in it, or a number is out of bounds.
    """

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        block: int | None = None,
        weight: float = 2000.0,
        reference_t: float = 400.0,
        ramp: float = 0.2,
        injection: bool = False,
        injection_blocks: list[int] | None = None,
    ) -> None:
        check_positive(weight=weight)
        if not 0 <= reference_t < 1000:
            raise InputError(f"method.reference_t={reference_t:g}: a timestep from 0 to below 1000")
        if not 0 <= ramp <= 0.5:
            raise InputError(f"method.ramp={ramp:g}: a number from 0 to 0.5")
        super().__init__(backbone, window)
        self.block = published_block(backbone, "motion") if block is None else block
        find_block(backbone, self.block, "motion")
        self.weight, self.reference_t, self.ramp = weight, reference_t, ramp
        self.injection = Injection(backbone, injection_blocks) if injection else None
        self._stored: KeysAndValues = {}
        self._links: list[tuple[Tensor, Tensor]] | None = None

    @property
    def needs_no_eta(self) -> str:
        """See `GuidanceMethod`: `correct` is of DDIM's step without fresh noise, the authors' one."""
        return "method=motionclone"

    @property
    def cost(self) -> StepCost:
        """See `GuidanceMethod.cost`."""
        return StepCost(1 + (self.injection is not None), 1, 1)

    def watch(self, reference: Guiding) -> None:
        """See `GuidanceMethod.watch`."""
        super().watch(reference)
        self._links = None

    @property
    def links(self) -> list[tuple[Tensor, Tensor]]:
        """Of each attention the largest probabilities (1, heads, P, F, 1), and the frames they are of."""
        if self._links is None:
            latents, t = self.reference.latents, self.reference_t
            stream = generator("motionclone")
            noise = torch.randn(latents.shape, generator=stream).to(latents.device)
            x_t = self.backbone.schedule.add_noise(latents, noise, t)
            with torch.no_grad(), Reader(self.backbone) as reader:
                attended = reader.attention(x_t, t, self.reference.empty, [("motion", self.block)])
                largest = [frame_attention(part).max(dim=-1, keepdim=True) for part in attended]
            self._links = [(values, places) for values, places in largest]
        return self._links

    def move(self, x_t: Tensor, t: float, guide: Guide) -> Tensor:
        """See `GuidanceMethod.move`: the gradient at x_t, for `correct`."""
        if self.injection is not None:
            captions = self.reference.with_own_image(guide.conditional)
            self._stored = self.injection.read(self.reference.latents, self.noise, t, captions)
        links = self.links
        leaf = x_t.detach().clone().requires_grad_()
        with torch.enable_grad(), Reader(self.backbone, self._injected()) as reader:
            attended = reader.attention(leaf, t, guide.conditional, [("motion", self.block)])
            losses = torch.stack(
                [link_loss(frame_attention(part), *link) for part, link in zip(attended, links, strict=True)]
            ).sum(dim=0)
            (self._gradient,) = torch.autograd.grad(losses.sum(), leaf)
        self.losses[t] = [losses.detach()]
        return x_t

    def _injected(self) -> dict[Place, AttentionHook]:
        return {} if self.injection is None else self.injection.hooks(self._stored)

    def acting(self, t: float) -> Hooks | None:
        """See `GuidanceMethod.acting`."""
        return None if self.injection is None else Hooks(self._injected())

    def ramp_at(self, t: float) -> float:
        """The share of the weight at a guided step: it rises to 1 and falls again, linearly."""
        step, steps = self.timesteps.index(t), len(self.timesteps)
        rising = max(1, round(self.ramp * steps))
        return min(1.0, (step + 1) / rising, (steps - step) / rising)

    def correct(self, x_prev: Tensor, t: float, t_prev: float) -> Tensor:
        """See `GuidanceMethod.correct`: changes what points back to x_t, and not x_0."""
        weight = self.strength(t) * self.weight * self.ramp_at(t)
        scale = self._noise_scale(t_prev) * self._noise_scale(t)
        return x_prev - weight * scale * self._gradient

    def _noise_scale(self, t: float) -> float:
        """sqrt(1 - alpha_bar) at t, or sigma with flow matching."""
        return float(self.backbone.schedule.add_noise(torch.zeros(1), torch.ones(1), t))


def frame_attention(part: Attended) -> Tensor:
    """Attention (B, heads, P, F, F) of each place over the same place in all frames."""
    query, key = (tensor.float().transpose(2, 3) for tensor in (part.query, part.key))  # (B, heads, P, F, D)
    return (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(dim=-1)


def link_loss(attention: Tensor, values: Tensor, frames: Tensor) -> Tensor:
    """Mean squared difference (B,) of attention (B, heads, P, F, F) to stored values at their frames."""
    chosen = attention.gather(-1, frames.expand(len(attention), *frames.shape[1:]))
    return (chosen - values).square().flatten(1).mean(dim=1)
