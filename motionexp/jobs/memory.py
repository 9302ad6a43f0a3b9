"""The memory that a job takes, told before any weight is loaded: what is there when, and the peak."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor

from motionexp.backbones.live_memory import LiveMemory, weight_bytes
from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.sampling import videos_per_batch
from motionexp.evaluation import MOST_AT_ONCE
from motionexp.jobs import inputs
from motionexp.jobs.job import Job
from motionexp.methods.base import Step, TuningMethod

BITS = {"8bit": 8, "4bit": 4}


@dataclass(frozen=True)
class Phase:
    """What is in memory while a job does one thing.

    Attributes:
        name: what it does.
        weights: bytes of each part that is loaded, by its name and precision.
        computing: the most bytes beside them.
        then: what is given back afterwards.
    """

    name: str
    weights: dict[str, int]
    computing: int
    then: str = ""

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return sum(self.weights.values()) + self.computing


def memory_plan(job: Job) -> list[Phase]:
    """What a job will have in memory, one phase after the other, without what the imports take.

    Weights are counted; the rest is rehearsed on the meta device, on the job's own code. Scores are left out,
    and so are the libraries' workspaces.
    """
    return list(Rehearsal(job).phases())


class Rehearsal:
    """A job's backbone without weights, and what each of its phases takes."""

    def __init__(self, job: Job) -> None:
        self.job, self.cfg = job, job.cfg
        self.backbone: Any = job.make_backbone(torch.device("meta"))
        video = (job.cfg.frames, job.cfg.model.height, job.cfg.model.width)
        self.latents = torch.empty(1, *self.backbone.latent_shape(*video), device="meta")
        self.frames = torch.empty(1, *video, 3, dtype=torch.uint8, device="meta")

    def phases(self) -> Iterator[Phase]:
        """In the order in which the job goes through them."""
        job, backbone = self.job, self.backbone
        text = _text_bytes(backbone.text_encoder, job.text_precision)
        with LiveMemory(job.device) as live:
            caption = self._longest_caption()
        yield Phase("captions", {f"text encoder ({job.text_precision})": text}, live.peak, "the text encoder")
        backbone.release_text_encoder()
        has_vae = backbone.vae is not None
        if (job.trains or self.cfg.probe) and has_vae:
            vae = {"VAE (fp32)": weight_bytes(backbone.vae)}
            yield Phase("video", vae, self._rehearse(lambda: backbone.encode(self.frames)), "its encoder")
        backbone.release_vae_encoder()
        network = {f"network ({job.precision})": weight_bytes(backbone.network)}
        decoder = {"VAE's decoder (fp32)": weight_bytes(backbone.vae)} if has_vae else {}
        waits = job.backbone.offload  # type: ignore[attr-defined]
        if job.trains and not self.cfg.probe:
            yield Phase("training", network | ({} if waits else decoder), self._training(caption))
        rows, videos = self._batch()
        one = Conditioning.cat([caption] * rows)
        noisy = self.latents.repeat(rows, 1, 1, 1, 1)
        sampling = self._rehearse(lambda: backbone.predict(noisy, 500, one))
        yield Phase(f"sampling, {videos} at once", network | ({} if waits else decoder), sampling)
        if has_vae:
            decoding = self._rehearse(lambda: backbone.decode(self.latents))
            yield Phase("decoding", decoder if waits else network | decoder, decoding)

    def _longest_caption(self) -> Conditioning:
        """Of all captions of the job the one to which the network hears the most columns."""
        texts = [edit.caption for each in self.job.references for edit in each.edits]
        texts += [each.caption for each in self.job.references]
        embedded = [self.backbone.embed([text]) for text in dict.fromkeys(texts)]
        return max(embedded, key=lambda each: int(each.attended().sum()))

    def _training(self, caption: Conditioning) -> int:
        settings = dict(self.cfg.method)
        kind: Callable[..., TuningMethod] = get_object(settings.pop("_target_"))
        optimizer = inputs.training_settings(self.cfg).optimizer
        with LiveMemory(self.job.device) as live:
            method = kind(self.backbone, self.job.window, **settings)
            (stage,) = method.stages(optimizer, self.cfg.train_steps)
            tuned = optimizer.build(stage.parameters)
            method.switch(True)
            for parameter in stage.parameters:
                parameter.grad = torch.zeros_like(parameter)
            tuned.step()  # which makes the optimizer's own tensors
            tuned.zero_grad()
            torch.autograd.backward(stage.loss(self._step(caption)))
            method.remove()
        return live.peak

    def _step(self, caption: Conditioning) -> Step:
        size = self.cfg.batch_size
        latents = self.latents.repeat(size, 1, 1, 1, 1)
        t = torch.full((size,), 999.0)
        captions = Conditioning.cat([caption] * size).trimmed()
        return Step(latents, latents.clone(), t, latents.clone(), latents.clone(), captions)

    def _batch(self) -> tuple[int, int]:
        """Rows of the network's batch while it samples, and videos."""
        job, settings = self.job, inputs.sample_settings(self.cfg)
        memory = inputs.sampling_memory(self.cfg, job.device)
        wanted = max((len(job.wanted(each, self.cfg.seeds)) for each in job.references), default=1)
        _, channels, frames, height, width = self.latents.shape
        shape = channels, frames, height, width
        videos = min(MOST_AT_ONCE, wanted, videos_per_batch(self.backbone, shape, settings.sampler, memory))
        return videos * (2 if settings.sampler.guided else 1), videos

    @torch.no_grad()
    def _rehearse(self, work: Callable[[], Tensor]) -> int:
        with LiveMemory(self.job.device) as live:
            work()
        return live.peak


def _text_bytes(encoder: torch.nn.Module, precision: str) -> int:
    """Of a text encoder whose linear layers may have 8 or 4 bits a weight."""
    total = weight_bytes(encoder)
    if precision not in BITS:
        return total
    layers = [each for each in encoder.modules() if isinstance(each, torch.nn.Linear)]
    weights = sum(layer.weight.nbytes for layer in layers)
    numbers = sum(layer.weight.numel() for layer in layers)
    return total - weights + numbers * BITS[precision] // 8
