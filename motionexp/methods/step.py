"""The tensors of one training step, and the source of a method's random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.schedule import generator
from motionexp.errors import InputError

LAST_STEP = 10**9
"""A step that is in the last phase of any training: what its memory and time are measured by."""


class DrawKey(NamedTuple):
    """What all randomness of a draw comes from: the training's seed, the reference, and where the draw is.

    Attributes:
        step: of the training, from 0.
        number: of the draw within the step, from 0.
    """

    seed: int
    reference: str
    step: int
    number: int


@dataclass(frozen=True)
class Step:
    """The tensors of one training step, on the backbone's device, in fp32.

    Attributes:
        latents: clean, (B, C, F, h, w).
        noise: standard normal, as `latents`.
        t: timesteps (B,), all inside the method's window; integers unless the schedule is flow matching.
        noisy: the latents at t, as `latents`.
        target: what the backbone should predict, in its prediction type, as `latents`.
        conditioning: the training captions, B rows.
        keys: of the draws, B; a method that draws random numbers needs them.
    """

    latents: Tensor
    noise: Tensor
    t: Tensor
    noisy: Tensor
    target: Tensor
    conditioning: Conditioning
    keys: Sequence[DrawKey] = ()

    @classmethod
    def noised(
        cls,
        schedule: Schedule,
        latents: Tensor,
        noise: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        keys: Sequence[DrawKey] = (),
    ) -> Self:
        """Return the step that mixes clean `latents` with `noise` at `t`, under the backbone's schedule."""
        noisy, target = schedule.add_noise(latents, noise, t), schedule.target(latents, noise, t)
        return cls(latents, noise, t, noisy, target, conditioning, keys)

    def rows(self, order: list[int]) -> Self:
        """The step with these rows, in this order."""
        latents, noise, t, noisy, target = (
            tensor[order] for tensor in (self.latents, self.noise, self.t, self.noisy, self.target)
        )
        keys = [self.keys[row] for row in order] if self.keys else ()
        return type(self)(latents, noise, t, noisy, target, self.conditioning[order], keys)

    def frames(self, numbers: Sequence[int]) -> Self:
        """The step on videos of one frame: of row b the latent frame numbers[b]."""
        rows = list(range(len(self.t)))
        latents, noise, noisy, target = (
            tensor[rows, :, numbers].unsqueeze(2)  # (B, C, 1, h, w)
            for tensor in (self.latents, self.noise, self.noisy, self.target)
        )
        conditioning = self.conditioning
        if conditioning.image is not None:
            conditioning = replace(conditioning, image=conditioning.image.frames(numbers))
        return type(self)(latents, noise, self.t, noisy, target, conditioning, self.keys)

    def check_frames(self, method: str) -> None:
        """Raise InputError for videos of one latent frame, in which nothing moves."""
        if self.latents.shape[2] < 2:
            raise InputError(f"method={method}: the clip has one latent frame, and nothing moves in it")

    def random_frames(self, purpose: str) -> list[int]:
        """A latent frame's number for each row, drawn evenly; it depends on the purpose and the row's key."""
        count = self.latents.shape[2]
        streams = [generator(purpose, *key) for key in self.keys]
        return [int(torch.randint(count, (), generator=stream)) for stream in streams]
