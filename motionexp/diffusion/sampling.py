"""The sampling loop: classifier-free guidance, and an adapter that is on only in its window."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.diffusion.hooks import Hooks, Place, activation_hooks, self_attentions
from motionexp.diffusion.schedule import generator
from motionexp.diffusion.solvers import SAMPLERS, solver_of
from motionexp.errors import InputError, one_of

MOST_AT_ONCE = 16  # a larger batch is not faster, and an interrupt would lose more

Gate = Callable[[float | None], bool]
"""Turns an adapter on if its window holds timestep t, else or with None off; returns whether it is on."""


GuidanceScale = float | tuple[tuple[float, float], ...]
"""A scale, or pairs (t, scale) in ascending t from 0: each scale from its t on."""


class StepGuidance(ABC):
    """Guides a sampling at the timesteps of its gate; see `motionexp.methods.guidance.GuidanceMethod`."""

    @abstractmethod
    def start(self, noise: Tensor, guide: "Guide", settings: "SamplerSettings") -> Tensor:
        """The latents (B, C, F, h, w) from which the sampling starts, of its unit noise."""

    @abstractmethod
    def is_on(self, t: float) -> bool:
        """Whether it guides at timestep t."""

    @abstractmethod
    def move(self, x_t: Tensor, t: float, guide: "Guide") -> Tensor:
        """The latents that the network gets at a guided timestep, in place of x_t."""

    @abstractmethod
    def correct(self, x_prev: Tensor, t: float, t_prev: float) -> Tensor:
        """The latents at t_prev after a guided step, in place of x_prev."""


@dataclass(frozen=True)
class SamplerSettings:
    """Settings of the sampling loop. Raises InputError for values outside these ranges.

    Attributes:
        steps: network evaluations along the trajectory, 1 to 1000.
        guidance_scale: from 1 (no guidance, one branch); output = unconditional + scale x difference
            (Ho and Salimans 2022, arXiv 2207.12598; the scale counts as in LattePipeline). Or pairs
            (t, scale) in ascending t from 0: each scale from its t on.
        eta: 0 (deterministic) to 1 (as random as DDPM); above 0 with DDIM's steps alone.
        sampler: of `SAMPLERS`; with flow matching the steps of `ddim` are Euler's.
        dynamic_guidance: the scale at t is that of CogVideoX's authors; see `scale_at`.
        stg_scale: of spatio-temporal guidance, from 0 (none); see `Guide`.
        stg_blocks: numbers of the blocks that it perturbs.
        guidance_rescale: share to which a guided output is rescaled, 0 (none) to 1; see `rescaled`.
    """

    steps: int = 50
    guidance_scale: GuidanceScale = 7.5
    eta: float = 0.0
    sampler: str = "ddim"
    dynamic_guidance: bool = False
    stg_scale: float = 0.0
    stg_blocks: tuple[int, ...] = ()
    guidance_rescale: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise InputError(f"steps={self.steps}: a whole number from 1 to 1000")
        if not all(1 <= scale < float("inf") for scale in self._scales):
            raise InputError(f"guidance_scale={self.guidance_scale}: a number from 1 (no guidance)")
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta={self.eta}: a number from 0 (deterministic) to 1")
        if self.sampler not in SAMPLERS:
            raise InputError(f"sampler={self.sampler}: {one_of(self.sampler, SAMPLERS)}")
        if self.eta > 0 and self.sampler != "ddim":
            raise InputError(f"eta={self.eta}: needs sampler=ddim; {self.sampler} adds no noise")
        if not 0 <= self.stg_scale < float("inf"):
            raise InputError(f"stg_scale={self.stg_scale}: a number from 0 (none)")
        if self.stg_scale and not self.stg_blocks:
            raise InputError(f"stg_scale={self.stg_scale}: needs stg_blocks, the blocks that are perturbed")
        if not 0 <= self.guidance_rescale <= 1:
            raise InputError(f"guidance_rescale={self.guidance_rescale}: a number from 0 (none) to 1")

    @property
    def evaluations(self) -> int:
        """Network evaluations of one video along the trajectory."""
        return self.steps * self.branches

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional branch."""
        return max(self._scales) > 1

    @property
    def _scales(self) -> list[float]:
        return scales_of(self.guidance_scale)

    def scale_at(self, t: float) -> float:
        """The guidance scale at timestep t.

        Of `dynamic_guidance` it is 1 + scale (1 - cos(pi ((steps - t) / steps)^5)) / 2, between 1 and
        1 + scale: the formula of CogVideoX's authors, in which t is the timestep and not the step's number
        (as in diffusers' `CogVideoXPipeline` with `use_dynamic_cfg`).
        """
        if not self.dynamic_guidance or isinstance(self.guidance_scale, tuple):
            return scale_at(self.guidance_scale, t)
        share = ((self.steps - t) / self.steps) ** 5.0
        return 1 + self.guidance_scale * (1 - math.cos(math.pi * share)) / 2

    @property
    def rows(self) -> int:
        """Rows of a video in the largest batch of a step: 2 with classifier-free guidance."""
        return 2 if self.guided else 1

    @property
    def branches(self) -> int:
        """Evaluations of the network in a step: `rows`, and with spatio-temporal guidance one more."""
        return self.rows + (self.stg_scale > 0)

    @property
    def batches(self) -> float:
        """The evaluations of a step, in batches of `rows`."""
        return self.branches / self.rows


def scales_of(guidance_scale: GuidanceScale) -> list[float]:
    """All scales of a guidance scale."""
    if not isinstance(guidance_scale, tuple):
        return [guidance_scale]
    return [scale for _, scale in guidance_scale]


def scale_at(guidance_scale: GuidanceScale, t: float) -> float:
    """The scale that holds at timestep t."""
    if not isinstance(guidance_scale, tuple):
        return guidance_scale
    return [scale for low, scale in guidance_scale if low <= t][-1]


def in_pairs(guidance_scale: Any) -> Any:
    """A guidance scale of settings, whose pairs are lists, as `SamplerSettings` takes it."""
    return tuple(map(tuple, guidance_scale)) if isinstance(guidance_scale, list) else guidance_scale


def initial_noise(seed: int, index: int, shape: Sequence[int]) -> Tensor:
    """Unit noise of a shape from which sampling starts, fp32 on the CPU.

    It depends only on the seed and the sample's index: edits and methods share their initial noise.
    """
    return torch.randn(tuple(shape), generator=generator("initial noise", seed, index))


def step_generator(seed: int, index: int) -> torch.Generator:
    """Generator of the noise that eta > 0 adds to the sample of an index; see `sample_latents`."""
    return generator("sampling noise", seed, index)


def videos_per_batch(
    backbone: Backbone, shape: tuple[int, int, int, int], settings: SamplerSettings, memory: float | None
) -> int:
    """Number of videos of latent shape (C, F, h, w) whose batch fits into `memory` bytes: 1 to MOST_AT_ONCE.

    Uses the backbone's estimate of a prediction's memory, `Backbone.predict_bytes`, and never the memory that
    happens to be free: the videos that share a batch change the last bits of a sample. None: 1.
    """
    if memory is None:
        return 1
    return min(MOST_AT_ONCE, max(1, int(memory // (settings.rows * backbone.predict_bytes(shape)))))


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
    guidance: StepGuidance | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "b c f h w"]:
    """Denoise a batch of videos, one caption per video.

    Without a gate, the result equals the backbone's stock pipeline on equal noise. Both branches of guidance
    are one batch of 2B rows if the adapter is on in both, or off in both. Spatio-temporal guidance takes a
    further batch of B rows, in which the adapter is on in its window too. Afterwards the adapter is off.

    Args:
        backbone: predicts.
        conditioning: B captions.
        negative: captions of the unconditional branch, B or 1; unused without guidance.
        noise: initial latents of unit variance.
        settings: steps, guidance and eta.
        gate: called with t before each step, and with None to switch the adapter off.
        adapter_in_unconditional: False keeps it out of the unconditional branch, at two calls a step.
        guidance: moves the latents by a reference; None: nothing does.
        generator: for eta > 0: one per video, which makes a video independent of its batch, or one for all.
        progress: called with (steps done, all steps) after each step.

    Returns:
        Clean latents, in fp32.

    Raises:
        InputError: eta above 0 with flow matching, or a block to perturb that the network has not.
        ValueError: no negative caption or no generator where one is needed, or the numbers of videos,
            captions and generators differ.
    """
    # 1. Guidance: the captions of one or two branches, checked before the first evaluation.
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
    # 2. The loop from noise to clean latents, in fp32 whatever the network's precision.
    solver = solver_of(backbone.schedule, settings.sampler, settings.steps)
    latents = solver.start(noise.to(backbone.device, torch.float32))  # (B, C, F, h, w)
    try:
        if guidance is not None:
            latents = guidance.start(latents, guide, settings)
        for number, (t, t_prev) in enumerate(solver.pairs):
            guided = guidance if guidance is not None and guidance.is_on(t) else None
            if guided is not None:
                latents = guided.move(latents, t, guide)
            output = guide.predict(latents, t)
            if guided is not None and gate is not None:
                gate(None)  # the next step's `move` reads the network as it is
            step_noise = _unit_noise(latents, generator) if settings.eta > 0 else None
            latents = solver.step(latents, output, number, settings.eta, step_noise)
            if guided is not None:
                latents = guided.correct(latents, t, t_prev)
            if progress is not None:
                progress(number + 1, len(solver.pairs))
    finally:
        # An adapter that stayed on after an error would change the next base sample.
        if gate is not None:
            gate(None)
    return latents


@dataclass(frozen=True)
class Guide:
    """The backbone's output with classifier-free and with spatio-temporal guidance.

    The latter (Hyung et al. 2024, arXiv 2411.18664) adds stg_scale x (conditional - perturbed), where in the
    perturbed evaluation each token of the self-attention in `stg_blocks` attends to itself alone: the
    attention's output is its values. So it is in the code of LTX-Video's owners since 2025-02-16 (stg_mode
    attention_values; their configs/ltxv-2b-0.9.yaml), and in diffusers' `PerturbedAttentionGuidance`.

    Attributes:
        conditional: B captions.
        unconditional: B negative captions; None without classifier-free guidance.
        settings: scales and blocks.
        gate, adapter_in_unconditional: as in `sample_latents`.
    """

    backbone: Backbone
    conditional: Conditioning
    unconditional: Conditioning | None
    settings: SamplerSettings
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
        """Guidance for a batch of `videos`, with the arguments of `sample_latents`.

        Raises:
            ValueError: the negative caption is missing, or the numbers of captions and videos differ.
        """
        if len(conditioning) != videos:
            raise ValueError(f"{videos} videos and {len(conditioning)} captions: the numbers must be equal")
        unconditional: Conditioning | None = None
        if settings.guided:
            if negative is None:
                raise ValueError(f"guidance_scale={settings.guidance_scale} needs a negative caption")
            if len(negative) not in (1, videos):
                raise ValueError(f"{len(negative)} negative captions for {videos} videos: give 1 or {videos}")
            # Pipelines lay both captions out together: padding and masks depend on the pair.
            unconditional, conditioning = backbone.guidance_pair(conditioning, negative)
        return cls(backbone, conditioning, unconditional, settings, gate, adapter_in_unconditional)

    def predict(self, latents: Float[Tensor, "b c f h w"], t: float) -> Float[Tensor, "b c f h w"]:
        """The guided output at timestep t, in the schedule's prediction type; the gate is called with t."""
        active, settings = self.gate is not None and self.gate(t), self.settings
        scale = settings.scale_at(t)
        # First, while the adapter is as in the conditional branch.
        perturbed = self._perturbed(latents, t) if settings.stg_scale else None
        if self.unconditional is None or scale == 1:
            output = conditional = self.backbone.predict(latents, t, self.conditional)
            if perturbed is None:
                return output
        else:
            conditional, unconditional = self._branches(latents, t, self.unconditional, active=active)
            # Ho and Salimans, eq. 6, with scale = 1 + w.
            output = unconditional + scale * (conditional - unconditional)
        if perturbed is not None:
            output = output + settings.stg_scale * (conditional - perturbed)
        share = settings.guidance_rescale
        return rescaled(output, conditional, share) if share else output

    def _branches(
        self, latents: Tensor, t: float, negative: Conditioning, *, active: bool
    ) -> tuple[Tensor, Tensor]:
        """The outputs (B, C, F, h, w) of the conditional and of the unconditional branch."""
        if self.gate is not None and active and not self.adapter_in_unconditional:
            # Two calls of B rows: the adapter is on in the first and off in the second.
            conditional = self.backbone.predict(latents, t, self.conditional)
            self.gate(None)
            return conditional, self.backbone.predict(latents, t, negative)
        captions = Conditioning.cat([negative, self.conditional])  # 2B rows
        both = self.backbone.predict(torch.cat([latents, latents]), t, captions)
        unconditional, conditional = both.chunk(2)
        return conditional, unconditional

    def _perturbed(self, latents: Tensor, t: float) -> Tensor:
        """The output (B, C, F, h, w) of the conditional branch without attention in `stg_blocks`."""
        _, channels, frames, height, width = latents.shape
        hooks = Hooks(identity=perturbed_places(self.backbone, self.settings.stg_blocks))
        with activation_hooks(self.backbone, (channels, frames, height, width), hooks) as predict:
            output = predict(latents, t, self.conditional)
        assert output is not None  # no hook stops the forward pass
        return output


def perturbed_places(backbone: Backbone, blocks: Sequence[int]) -> list[Place]:
    """The self-attentions in blocks, which spatio-temporal guidance perturbs.

    Raises:
        InputError: there is no such block, or no self-attention in it.
    """
    return [(kind, block) for block in blocks for kind in self_attentions(backbone, block)]


def rescaled(
    output: Float[Tensor, "b c f h w"], conditional: Float[Tensor, "b c f h w"], share: float
) -> Float[Tensor, "b c f h w"]:
    """A guided output with the standard deviation of the conditional one, to a share of 0 to 1, by video.

    Lin et al. 2024 (arXiv 2305.08891), section 3.4: share x std(conditional) / std(output) + 1 - share times
    the output.
    """
    deviations = [tensor.flatten(1).std(dim=1) for tensor in (conditional, output)]
    factor = share * deviations[0] / deviations[1] + 1 - share  # (B,)
    return output * factor.view(-1, 1, 1, 1, 1)


def _unit_noise(like: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    """Noise of like's shape: row i from the i-th generator, drawn on that generator's device."""
    if generator is None or isinstance(generator, torch.Generator):
        device = "cpu" if generator is None else generator.device
        return torch.randn(like.shape, generator=generator, device=device).to(like.device)
    # Row by row: a video's noise does not depend on its batch.
    rows = [torch.randn(like.shape[1:], generator=stream, device=stream.device) for stream in generator]
    return torch.stack(rows).to(like.device)


def _check_eta(
    backbone: Backbone,
    videos: int,
    settings: SamplerSettings,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> None:
    if settings.eta > 0 and isinstance(backbone.schedule, FlowSchedule):
        raise InputError(f"eta={settings.eta}: must be 0 for {backbone.name}, a flow matching model")
    if settings.eta > 0 and generator is None:
        raise ValueError(f"eta={settings.eta} adds noise and needs a generator")
    if isinstance(generator, Sequence) and len(generator) != videos:
        raise ValueError(f"{len(generator)} generators for {videos} videos: give {videos}")
