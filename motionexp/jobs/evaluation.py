"""Sampling a reference's edits, with a method or without, and scoring the samples."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch
from tokenizers import Tokenizer

from motionexp.config.schema import BUNDLED
from motionexp.data.base import Edit, Reference
from motionexp.diffusion import ranks
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.inversion import mixed_noise
from motionexp.diffusion.progress import Progress
from motionexp.diffusion.sampling import (
    Gate,
    SamplerSettings,
    initial_noise,
    sample_latents,
    step_generator,
)
from motionexp.diffusion.schedule import EVERYWHERE
from motionexp.diffusion.solvers import AdapterSteps
from motionexp.errors import InputError
from motionexp.jobs.cell import Sample
from motionexp.methods.base import TuningMethod
from motionexp.methods.guidance import GuidanceMethod
from motionexp.metrics.base import Measurement

if TYPE_CHECKING:
    from motionexp.metrics.scorer import Scorer

Embed = Callable[[str, np.ndarray | None], Conditioning]
"""A caption and the image (H, W, 3) of its video, if it has one, embedded: one row."""


@dataclass(frozen=True)
class SampleSettings:
    """What determines a sample, beside backbone, method, caption and the index of its initial noise.

    Attributes:
        sampler: steps, guidance and eta.
        seed: of the initial noise, and of the noise that eta > 0 adds.
        negative_prompt: caption of the unconditional branch.
        adapter_scale: strength of the method; 1 as trained.
        adapter_in_unconditional: whether the method acts in the unconditional branch too.
        inverted_noise: share of inverted latents in the initial noise, 0 to 1; see `mixed_noise`.
    """

    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    seed: int = 0
    negative_prompt: str = ""
    adapter_scale: float = 1.0
    adapter_in_unconditional: bool = True
    inverted_noise: float = 0.0


def sample(
    backbone: Backbone,
    method: TuningMethod | GuidanceMethod | None,
    edits: Sequence[Edit],
    settings: SampleSettings | None = None,
    *,
    indices: Sequence[int] | None = None,
    at_once: int = 1,
    embed: Embed | None = None,
    inverted: torch.Tensor | None = None,
    progress: Progress | None = None,
) -> Iterator[Sample]:
    """Generate one video for each edit, in batches of `at_once` videos.

    Several ranks call it with equal arguments. They take the batches in turn, and rank 0 gets all samples.

    Args:
        backbone: generates.
        method: attached to the backbone, on only within its window; a guidance method has been handed its
            reference (`watch`). None samples the base model.
        edits: the captions to sample, and the images that the videos begin with. An edit may occur several
            times, with several indices.
        settings: of sampler and adapter; None: the defaults.
        indices: of the initial noise, one for each edit; None: 0 for all. Samples of one index start from the
            same noise, whatever the edit and the method.
        at_once: videos of a batch. The videos that share a batch change the last bits of a sample.
        embed: maps a caption and an image to their conditioning; None: the backbone does.
        inverted: (1, C, F, h, w) latents of the reference at the noisiest timestep of the sampling, which
            `settings.inverted_noise` above 0 needs.
        progress: called with the sampling steps that are done and all steps, over all batches of this rank.

    Yields:
        Samples in the order of `edits`, as soon as their batch is done; on other ranks than 0 nothing.

    Raises:
        FloatingPointError: a sample is not finite; names its caption.
        InputError: an edit has an image and the network takes none.
        ValueError: the network takes an image, and an edit has none.
    """
    settings = settings or SampleSettings()
    if settings.inverted_noise and inverted is None:
        raise ValueError(f"inverted_noise={settings.inverted_noise:g} needs inverted latents")
    embed = embed or backbone.condition
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    indices = [0] * len(edits) if indices is None else indices
    requests = list(zip(edits, indices, strict=True))
    batches = [requests[start : start + at_once] for start in range(0, len(requests), at_once)]
    gate = None
    if method is not None:
        method.scale = settings.adapter_scale
        gate = gate_of(method, settings.adapter_scale)
    rounds = range(0, len(batches), ranks.size())
    for number, first in enumerate(rounds):
        # In the last round there may be fewer batches than ranks. If each rank holds a part of the network,
        # all have to compute: the others then repeat a batch, and drop it.
        is_idle, videos = first + ranks.number() >= len(batches), list[Sample]()
        if not is_idle or backbone.sharded:
            start = time.perf_counter()
            batch = batches[first if is_idle else first + ranks.number()]
            latents = _sample_batch(
                *(backbone, gate, batch, shape, settings, embed, inverted),
                _offset(progress, number, len(rounds)),
                method if isinstance(method, GuidanceMethod) else None,
            )
        if not is_idle:
            # One video at a time, (F, H, W, 3) each: decoding takes more memory than denoising.
            frames = [backbone.decode(video[None])[0].numpy() for video in latents]
            seconds = (time.perf_counter() - start) / len(batch)
            steps = count_adapter_steps(backbone, method, settings)
            videos += [
                Sample(edit, index, video, steps, seconds, peak_memory(backbone.device))
                for (edit, index), video in zip(batch, frames, strict=True)
            ]
        for of_rank in ranks.gathered(videos):
            yield from of_rank


def _sample_batch(
    backbone: Backbone,
    gate: Gate | None,
    batch: Sequence[tuple[Edit, int]],
    shape: tuple[int, int, int, int],
    settings: SampleSettings,
    embed: Embed,
    inverted: torch.Tensor | None,
    progress: Progress | None,
    guidance: GuidanceMethod | None,
) -> torch.Tensor:
    """Denoise one batch of B edits; returns (B, C, F, h, w) latents. `shape` is (C, F, h, w)."""
    indices = [index for _, index in batch]
    # Noise by seed and index alone: how edits are put into batches does not change a sample.
    noise = torch.stack([initial_noise(settings.seed, index, shape) for index in indices])
    if settings.inverted_noise and inverted is not None:
        noise = mixed_noise(inverted.cpu(), noise, settings.inverted_noise)
    latents = sample_latents(
        backbone,
        Conditioning.cat([embed(edit.caption, edit.pixels) for edit, _ in batch]),
        embed(settings.negative_prompt, None) if settings.sampler.guided else None,
        noise,
        settings.sampler,
        gate=gate,
        adapter_in_unconditional=settings.adapter_in_unconditional,
        guidance=guidance,
        generator=[step_generator(settings.seed, index) for index in indices]
        if settings.sampler.eta
        else None,
        progress=progress,
    )
    # Decoding would turn numbers that are not finite into frames without an error.
    if not torch.isfinite(latents).all():
        raise FloatingPointError(
            f"sampling {batch[0][0].caption!r} gave numbers that are not finite: try"
            " precision=fp32, or a lower guidance_scale or adapter_scale"
        )
    return latents


def gate_of(method: TuningMethod | GuidanceMethod, scale: float) -> Gate:
    """Switch the method by its window. A soft window also weighs its strength, `scale` at weight 1."""

    def gate(t: float | None) -> bool:
        # t is None at the end of sampling, where the strength does not matter.
        on = method.set_active(t)
        # A guidance method weighs its strength itself.
        if t is not None and on and method.window.knots and isinstance(method, TuningMethod):
            method.scale = scale * method.window.weight(t)
        return on

    return gate


def _offset(progress: Progress | None, number: int, batches: int) -> Progress | None:
    """Progress of the batch `number` of `batches` as progress of all of them."""
    if progress is None:
        return None
    return lambda done, steps: progress(number * steps + done, batches * steps)


def count_adapter_steps(
    backbone: Backbone, method: TuningMethod | GuidanceMethod | None, settings: SampleSettings
) -> int:
    """How many of the sampling steps have the method on."""
    if method is None or settings.adapter_scale == 0:
        return 0
    sampler = settings.sampler
    span = method.span if isinstance(method, TuningMethod) else EVERYWHERE
    return AdapterSteps.of(backbone.schedule, sampler.sampler, sampler.steps, method.window, span).on


def peak_memory(device: torch.device) -> int:
    """Most bytes in use since the process began: of the GPU, or else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    # ru_maxrss is in KiB on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_memory(device: torch.device) -> float:
    """Free bytes of the GPU, or of main memory if the device is not a GPU; NaN for another machine's GPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else math.nan
    return psutil.virtual_memory().available


def score(
    samples: Iterable[Sample], reference: Reference, scorer: "Scorer | None" = None
) -> list[dict[str, dict[str, Measurement]]]:
    """The scores of each sample, in their order; see `Scorer.score`.

    Args:
        samples: of the reference's motion.
        reference: what was tuned on.
        scorer: measures; None: all metrics, on bundled models.

    Raises:
        InputError: the bundled models do not know a word, and no scorer was given.
    """
    from motionexp.metrics.scorer import Scorer  # which imports transformers and takes seconds

    videos = list(samples)
    if scorer is None:
        _check_words([reference.caption, *(video.edit.caption for video in videos)])
        scorer = Scorer()
    return [scorer.score(video.frames, reference, video.edit) for video in videos]


def _check_words(captions: Sequence[str]) -> None:
    """Raise InputError for a caption that the bundled CLIP and preference model would misread."""
    tokenizer = Tokenizer.from_file(str(BUNDLED / "clip" / "tokenizer.json"))
    for caption in captions:
        unknown = [word for word in caption.split() if tokenizer.token_to_id(word.lower()) is None]
        if unknown:
            raise InputError(
                f"caption {caption!r}: the bundled scoring models do not know"
                f" {', '.join(map(repr, unknown))}; score with motionexp.Scorer(models=motionexp.TGVE_MODELS)"
            )
