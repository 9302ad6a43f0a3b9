"""The sampling loop: classifier-free guidance, and an adapter that is on in its window alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.schedule import generator
from motionexp.errors import InputError

Gate = Callable[[float | None], bool]
"""Switches an adapter for timestep t as its window says, or off for None; True if it is on afterwards."""


@dataclass(frozen=True)
class SamplerSettings:
    """How to sample. Raises InputError for values outside what is said here.

    Attributes:
        steps: network evaluations along the trajectory, 1 to 1000.
        guidance_scale: from 1 (no guidance, one branch); output = unconditional + scale x difference
            (Ho and Salimans 2022, arXiv 2207.12598; the scale counts as in LattePipeline).
        eta: 0 (deterministic) to 1 (as random as DDPM); flow matching has no other than 0.
        sampler: `ddim` is the only one; with flow matching its steps are Euler's.
    """

    steps: int = 50
    guidance_scale: float = 7.5
    eta: float = 0.0
    sampler: str = "ddim"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise InputError(f"steps={self.steps}: a whole number from 1 to 1000")
        if not 1 <= self.guidance_scale < float("inf"):
            raise InputError(f"guidance_scale={self.guidance_scale}: a number from 1 (no guidance)")
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta={self.eta}: a number from 0 (deterministic) to 1")
        if self.sampler != "ddim":
            raise InputError(f"sampler={self.sampler}: ddim is the only one")

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional branch."""
        return self.guidance_scale > 1


def initial_noise(seed: int, index: int, shape: Sequence[int]) -> Tensor:
    """Unit noise that a sample starts from, fp32 on the CPU.

    The index-th sample of a cell's seed starts from the same noise whatever the edit and the method.
    """
    return torch.randn(tuple(shape), generator=generator("initial noise", seed, index))


def step_generator(seed: int, index: int) -> torch.Generator:
    """Where the noise that eta > 0 adds to the index-th sample comes from; see `sample_latents`."""
    return generator("sampling noise", seed, index)


def videos_per_batch(
    backbone: Backbone, shape: tuple[int, int, int, int], settings: SamplerSettings, memory: float
) -> int:
    """How many videos of latent shape (C, F, h, w) one batch may hold in `memory` bytes; at least 1.

    From the backbone's estimate of what a prediction needs beyond the weights.
    """
    branches = 2 if settings.guided else 1
    return max(1, int(memory // (branches * backbone.predict_bytes(shape))))


@torch.no_grad()
def sample_latents(
    backbone: Backbone,
    conditioning: Conditioning,
    negative: Conditioning | None,
    noise: Float[Tensor, "b c f h w"],
    settings: SamplerSettings,
    *,
    gate: Gate | None = None,
    adapter_in_unconditional: bool = True,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "b c f h w"]:
    """Denoise a batch of videos, each with its own caption.

    Without a gate and on the same noise this is the backbone's stock pipeline. Both branches of guidance are
    one batch of 2B wherever the adapter is on, or off, in both. Afterwards the adapter is off.

    Args:
        backbone: predicts.
        conditioning: B captions.
        negative: captions of the unconditional branch, B or 1; unused without guidance.
        noise: where the videos start, unit variance.
        settings: steps, guidance and eta.
        gate: called with t before each step, and with None to switch the adapter off.
        adapter_in_unconditional: False keeps it out of the unconditional branch, at two calls a step.
        generator: for eta > 0: one for each video, so that a video does not depend on its batch, or one.
        progress: called with (steps done, all steps) after each step.

    Returns:
        Clean latents, in fp32.

    Raises:
        InputError: eta above 0 with flow matching.
        ValueError: what the settings need is missing, or B differs.
    """
    _check_eta(backbone, len(noise), settings, generator)
    guide = Guide.of(
        backbone,
        len(noise),
        conditioning,
        negative,
        settings,
        gate=gate,
        adapter_in_unconditional=adapter_in_unconditional,
    )
    latents = noise.to(backbone.device, torch.float32)
    pairs = backbone.schedule.step_pairs(settings.steps)
    try:
        for done, (t, t_prev) in enumerate(pairs, start=1):
            output = guide.predict(latents, t)
            step_noise = _unit_noise(latents, generator) if settings.eta > 0 else None
            latents = backbone.schedule.step(latents, output, t, t_prev, settings.eta, step_noise)
            if progress is not None:
                progress(done, len(pairs))
    finally:
        if gate is not None:
            gate(None)
    return latents


@dataclass(frozen=True)
class Guide:
    """The backbone's output with guidance; `unconditional` is None where there is none."""

    backbone: Backbone
    conditional: Conditioning
    unconditional: Conditioning | None
    scale: float
    gate: Gate | None
    adapter_in_unconditional: bool

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        videos: int,
        conditioning: Conditioning,
        negative: Conditioning | None,
        settings: SamplerSettings,
        *,
        gate: Gate | None = None,
        adapter_in_unconditional: bool = True,
    ) -> "Guide":
        """Guidance as the settings say, for a batch of so many videos; arguments as of `sample_latents`.

        Raises:
            ValueError: the negative caption is missing, or there are not as many captions as videos.
        """
        if len(conditioning) != videos:
            raise ValueError(f"{videos} videos and {len(conditioning)} captions: as many of each are needed")
        unconditional: Conditioning | None = None
        if settings.guided:
            if negative is None:
                raise ValueError(f"guidance_scale={settings.guidance_scale} needs a negative caption")
            if len(negative) not in (1, videos):
                raise ValueError(
                    f"{len(negative)} negative captions for {videos} videos: one, or one for each"
                )
            unconditional, conditioning = backbone.guidance_pair(conditioning, negative)
        scale = settings.guidance_scale
        return cls(backbone, conditioning, unconditional, scale, gate, adapter_in_unconditional)

    def predict(self, latents: Float[Tensor, "b c f h w"], t: float) -> Float[Tensor, "b c f h w"]:
        """The guided output at timestep t, in the schedule's prediction type; switches the adapter for t."""
        active = self.gate is not None and self.gate(t)
        if self.unconditional is None:
            return self.backbone.predict(latents, t, self.conditional)
        if self.gate is not None and active and not self.adapter_in_unconditional:
            conditional = self.backbone.predict(latents, t, self.conditional)
            self.gate(None)
            unconditional = self.backbone.predict(latents, t, self.unconditional)
        else:
            captions = Conditioning.cat([self.unconditional, self.conditional])
            both = self.backbone.predict(torch.cat([latents, latents]), t, captions)
            unconditional, conditional = both.chunk(2)
        return unconditional + self.scale * (conditional - unconditional)


def _unit_noise(like: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    """Noise of like's shape: row i from the i-th generator, drawn where that generator lives."""
    if generator is None or isinstance(generator, torch.Generator):
        device = "cpu" if generator is None else generator.device
        return torch.randn(like.shape, generator=generator, device=device).to(like.device)
    rows = [torch.randn(like.shape[1:], generator=one, device=one.device) for one in generator]
    return torch.stack(rows).to(like.device)


def _check_eta(
    backbone: Backbone,
    videos: int,
    settings: SamplerSettings,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> None:
    if settings.eta > 0 and isinstance(backbone.schedule, FlowSchedule):
        raise InputError(f"eta={settings.eta}: {backbone.name} is sampled by flow matching, without noise: 0")
    if settings.eta > 0 and generator is None:
        raise ValueError(f"eta={settings.eta} adds noise and needs a generator")
    if isinstance(generator, Sequence) and len(generator) != videos:
        raise ValueError(f"{len(generator)} generators for {videos} videos: one for each")
