"""The memory that a job takes, told before any weight is loaded: what is there when, and the peak."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from hydra.utils import get_object
from torch import Tensor, UntypedStorage, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from motionexp.backbones.precision import plain_attention
from motionexp.diffusion.backbone import Conditioning
from motionexp.diffusion.sampling import videos_per_batch
from motionexp.jobs import inputs
from motionexp.jobs.evaluation import MOST_AT_ONCE
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
            parameters = list(method.parameters.values())
            tuned = optimizer.build(parameters)
            method.switch(True)
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
            tuned.step()  # which makes the optimizer's own tensors
            tuned.zero_grad()
            torch.autograd.backward(method.loss(self._step(caption)))
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


COPY = torch.ops.aten._to_copy.default


VALUE = torch.ops.aten._local_scalar_dense.default


WHERE = torch.ops.aten.nonzero.default


def weight_bytes(module: nn.Module | None) -> int:
    """Memory of a module's parameters and buffers; they may be on the meta device."""
    if module is None:
        return 0
    tensors = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return sum(each.nbytes for each in tensors.values())


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta


class LiveMemory(TorchDispatchMode):
    """Counts what lives at the same time of the tensors that are made on the meta device within it.

    What operations use inside themselves is not seen: workspaces of convolutions and of matrix products.
    Attention is counted as the fused kernels do it, unless the device at hand would take the plain one; what
    goes to main memory stays, and is counted, where the rehearsal is.

    Args:
        device: that the rehearsal stands for.

    Attributes:
        now: bytes alive.
        peak: the most that there were.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._device, self._plain, self._autocast = device, F.scaled_dot_product_attention, torch.autocast

    def __enter__(self) -> "LiveMemory":
        self._replaced = ExitStack()
        # On the meta device attention is computed in the plain way, with the whole matrix of scores.
        self._replaced.enter_context(patch.object(F, "scaled_dot_product_attention", self._attention))
        self._replaced.enter_context(patch.object(torch, "autocast", self._no_autocast))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._replaced.close()

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **settings: Any
    ) -> Tensor:
        if plain_attention(self._device, query.dtype, max(query.shape[-2], key.shape[-2])):
            return self._plain(query, key, value, attn_mask, **settings)
        if attn_mask is not None:
            attn_mask = attn_mask.to(query.dtype)  # what is added to the scores
        fused: Tensor = _Fused.apply(query, key, value, attn_mask)
        return fused

    def _no_autocast(self, device_type: str, *args: Any, **settings: Any) -> AbstractContextManager[Any]:
        """Which torch does not have for the meta device."""
        return nullcontext() if device_type == "meta" else self._autocast(device_type, *args, **settings)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is COPY and args[0].is_meta and kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        if func is VALUE and args[0].is_meta:
            return False  # a number is asked for where there is none: whether a mask masks nothing
        # What goes in was there before, and what comes out may be a view of it.
        before = {id(each.untyped_storage()) for each in tree_leaves((args, kwargs)) if _is_meta(each)}
        if func is WHERE and args[0].is_meta:  # the most that it can be: captions that fill their length
            output = torch.empty(args[0].numel(), args[0].dim(), dtype=torch.long, device="meta")
        else:
            output = func(*args, **kwargs)
        for each in tree_leaves(output):
            if _is_meta(each) and id(each.untyped_storage()) not in before:
                self._count(each.untyped_storage())
        return output

    def _count(self, storage: UntypedStorage) -> None:
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


class _Fused(torch.autograd.Function):
    """What a fused attention kernel makes and keeps: the output and a number for each query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float)
        ctx.save_for_backward(query, key, value, output, sums, mask)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*(torch.empty_like(each) for each in ctx.saved_tensors[:3]), None)
