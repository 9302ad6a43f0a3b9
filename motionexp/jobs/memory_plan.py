"""The memory of a job phase by phase, computed before any weight is loaded."""

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from hydra.utils import get_object
from torch import Tensor, UntypedStorage, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from motionexp.backbones.block_weights import layers_of
from motionexp.backbones.cpu_kernels import takes_fast_kernels, with_fast_kernels
from motionexp.backbones.precision import DTYPES, plain_attention
from motionexp.backbones.sharding import blocks_of
from motionexp.backbones.text import UnknownTokenizer
from motionexp.config.memory import GROUPED
from motionexp.diffusion.backbone import Conditioning
from motionexp.jobs.meta_results import result_of
from motionexp.jobs.plan import JobPlan
from motionexp.methods.base import TuningMethod
from motionexp.methods.step import LAST_STEP, DrawKey, Step
from motionexp.probes.block_features import VIDEOS_PER_CALL

# Of a weight in a linear layer, the only ones that bitsandbytes quantizes. For 64 weights of 4 bits it keeps
# one scale in fp32.
BITS_OF_WEIGHT = {"8bit": 8.0, "4bit": 4.5}


@dataclass(frozen=True)
class Phase:
    """The memory of one phase of a job.

    Attributes:
        name: of the phase.
        weights: {name and precision of a loaded part: bytes}.
        computing: peak bytes beside the weights.
        then: the part that is freed afterwards.
        ranks: of a node, that are in this phase at once.
    """

    name: str
    weights: dict[str, int]
    computing: int
    then: str = ""
    ranks: int = 1

    @property
    def total(self) -> int:
        """Peak bytes of the phase."""
        return sum(self.weights.values()) + self.computing


COMPILED_BYTES = 18_000_000
"""What oneDNN's kernels take once they are compiled for all shapes of a network, measured."""


def memory_plan(job: JobPlan) -> list[Phase]:
    """The memory of a job's phases, in their order, without that of the imports; of one rank.

    Weights are counted. The tensors of computations are tracked while the job's code runs on the meta device.
    Scores and the workspaces of libraries are left out.
    """
    return list(MetaRun(job).phases())


def rows_of(job: JobPlan) -> int:
    """Rows of a batch of sampling: videos, or with both branches of guidance twice as many.

    The third evaluation of spatio-temporal guidance is a batch of its own, which is no larger.
    """
    if job.probe is not None and job.probe.kind == "linear_probe":
        return VIDEOS_PER_CALL
    videos = min(job.at_once, max(len(cell.requests) for cell in job.cells))
    return videos * job.sampling.sampler.rows


class MetaRun:
    """A job's phases on the meta device: a backbone without weights, and tensors without values."""

    def __init__(self, job: JobPlan) -> None:
        self.job = job
        self.settings = job.backbone_settings.on(job.device)
        self.backbone: Any = self.settings.make(torch.device("meta"))
        self.latents = torch.empty(1, *self.backbone.latent_shape(*job.size), device="meta")
        self.frames = torch.empty(1, *job.size, 3, dtype=torch.uint8, device="meta")

    def phases(self) -> Iterator[Phase]:
        """The phases in the order of the job."""
        # In the order in which a job loads and frees its parts: a phase holds what is still loaded.
        job, backbone = self.job, self.backbone
        text = _text_bytes(backbone.text_encoder, job.text_precision)
        with MemoryTracker(job.device) as memory:
            caption = self.longest_caption()
        yield Phase(
            "captions", {f"text encoder ({job.text_precision})": text}, memory.peak, "the text encoder"
        )
        backbone.release_text_encoder()
        has_vae = backbone.vae is not None
        if (job.reads_references or job.probe) and has_vae:
            vae = {"VAE (fp32)": weight_bytes(backbone.vae)}
            yield Phase("video", vae, self._peak_of(lambda: backbone.encode(self.frames)), "its encoder")
        if backbone.takes_image:
            yield from self._image()
            caption = self.with_image(caption)
        backbone.release_vae_encoder()
        # The kernels that the job takes on its own device: some keep more.
        with_fast_kernels(backbone.network, job.device, DTYPES[job.precision])
        kernels = COMPILED_BYTES if takes_fast_kernels(job.device, DTYPES[job.precision]) else 0
        network, gathered = self._network()
        ranks = job.ranks[1]
        decoder = {"VAE's decoder (fp32)": weight_bytes(backbone.vae)} if has_vae else {}
        offloads = self.settings.offload != "none"
        if job.trains and not job.probe:
            computing = self._training(caption) + kernels + gathered
            yield Phase("training", network | ({} if offloads else decoder), computing, ranks=ranks)
        if job.guidance is not None and job.guidance.backward:
            computing = self._guidance(caption) + kernels + gathered
            yield Phase("guidance", network | ({} if offloads else decoder), computing, ranks=ranks)
        rows = rows_of(job)
        is_linear = job.probe is not None and job.probe.kind == "linear_probe"
        videos = rows if is_linear else rows // job.sampling.sampler.rows
        one = Conditioning.cat([caption] * rows)
        noisy = self.latents.repeat(rows, 1, 1, 1, 1)  # (rows, C, F, h, w)
        sampling = self._peak_of(lambda: backbone.predict(noisy, 500, one)) + kernels + gathered
        held = network | ({} if offloads else decoder)
        yield Phase(f"sampling, {videos} at once", held, sampling, ranks=ranks)
        if has_vae:
            decoding = self._peak_of(lambda: backbone.decode(self.latents))
            held = network if self.settings.offload in ("none", *GROUPED) else {}
            yield Phase("decoding", held | decoder, decoding, ranks=ranks)

    def _image(self) -> Iterator[Phase]:
        """The phase in which the images are encoded that videos begin with."""
        vae = {"VAE (fp32)": weight_bytes(self.backbone.vae)}
        if encoder := weight_bytes(getattr(self.backbone, "image_encoder", None)):
            vae["image encoder (fp32)"] = encoder
        computing = self._peak_of(lambda: self.backbone.encode_image(self.frames[0, 0]).channels)
        yield Phase("image", vae, computing, "the encoders")

    @torch.no_grad()
    def with_image(self, caption: Conditioning) -> Conditioning:
        """The caption with an image, if the network takes one; before the encoders are released."""
        if not self.backbone.takes_image:
            return caption
        with MemoryTracker(self.job.device):  # under which encoders work without values
            return caption.with_image(self.backbone.encode_image(self.frames[0, 0]))

    def _network(self) -> tuple[dict[str, int], int]:
        """The bytes of the network's weights that stay on the device, and of those that come to compute."""
        job, network, settings = self.job, self.backbone.network, self.settings
        precision = settings.network_precision
        name = f"network ({job.precision if precision == 'auto' else precision})"
        size = weight_bytes(network)
        if precision in BITS_OF_WEIGHT:
            # A layer's weights are in the precision of the network while it computes.
            runs = self.backbone.block_runs(network)
            layers: list[Any] = [layer for *_, layer in layers_of(runs, (nn.Linear,))]
            most = max(layer.weight.nbytes for layer in layers)
            return {name: size - _saved_bytes(layers, precision)}, most
        if settings.offload in GROUPED:
            # The block that computes, and with a stream the next one.
            at_once = 2 if settings.offload == "group_stream" else 1
            runs = [[weight_bytes(block) for block in run] for run in self.backbone.block_runs(network)]
            come = [sum(run[first : first + at_once]) for run in runs for first in range(len(run))]
            return {f"{name} without its blocks": size - sum(map(sum, runs))}, max(come)
        if not settings.sharded:
            return {name: size}, 0
        # The block that computes, the next one, which is fetched meanwhile, and what lies outside of blocks.
        blocks = [weight_bytes(block) for block in blocks_of(network)]
        gathered = min(sum(blocks), 2 * max(blocks, default=0)) + size - sum(blocks)
        shared = sum(weight.nbytes for weight in network.parameters())  # buffers stay whole
        held = math.ceil(shared / job.ranks[0]) + size - shared
        return {f"{name}, one of {job.ranks[0]} parts": held}, gathered

    def longest_caption(self) -> Conditioning:
        """The caption of the job with the most attended tokens."""
        references = self.job.references
        texts = [edit.caption for reference in references for edit in reference.edits]
        texts += [reference.caption for reference in references]
        backbone, tokenizer = self.backbone, self.backbone.tokenizer
        if isinstance(tokenizer, UnknownTokenizer):
            return backbone.embed(texts[:1])  # all have the greatest length
        forms = dict(zip(texts, backbone.caption_form(tokenizer, texts), strict=True))
        longest = max(forms, key=lambda text: len(tokenizer(forms[text], verbose=False).input_ids))
        return backbone.embed([longest])

    def _training(self, caption: Conditioning) -> int:
        settings = dict(self.job.tuning)
        kind: Callable[..., TuningMethod] = get_object(settings.pop("_target_"))
        optimizer = self.job.training.optimizer
        with MemoryTracker(self.job.device) as memory:
            method = kind(self.backbone, self.job.window, **settings)
            parameters = method.trained
            tuned = optimizer.build(parameters)
            method.switch(True)
            # The optimizer's state, two numbers for each parameter of AdamW, exists from the first step on.
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
            tuned.step()  # creates the optimizer's state
            tuned.zero_grad()
            for loss in method.losses(self.step(caption)):
                torch.autograd.backward(loss)
            method.remove()
        return memory.peak

    def _guidance(self, caption: Conditioning) -> int:
        """The peak of a guided step: an upper estimate, as if its gradient went through the whole network."""
        captions = Conditioning.cat([caption] * self.job.at_once)
        with MemoryTracker(self.job.device) as memory:
            x_t = self.latents.repeat(self.job.at_once, 1, 1, 1, 1).requires_grad_()
            self.backbone.predict(x_t, 500, captions).sum().backward()
        return memory.peak

    def step(self, caption: Conditioning) -> Step:
        """The tensors of a training step on one caption."""
        size = self.job.training.batch_size * self.job.trained_together
        latents = self.latents.repeat(size, 1, 1, 1, 1)
        t = torch.full((size,), 999.0)  # memory does not depend on the timestep
        captions = Conditioning.cat([caption] * size).trimmed()
        keys = [DrawKey(0, "", LAST_STEP, row) for row in range(size)]
        return Step(latents, latents.clone(), t, latents.clone(), latents.clone(), captions, keys)

    @torch.no_grad()
    def _peak_of(self, work: Callable[[], Tensor]) -> int:
        with MemoryTracker(self.job.device) as memory:
            work()
        return memory.peak


def _text_bytes(encoder: torch.nn.Module, precision: str) -> int:
    """Bytes of a text encoder, whose linear layers may have 8 or 4 bits per weight."""
    if precision not in BITS_OF_WEIGHT:
        return weight_bytes(encoder)
    layers = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
    return weight_bytes(encoder) - _saved_bytes(layers, precision)


def _saved_bytes(layers: Iterable[nn.Linear], precision: str) -> int:
    """The bytes that the weights of linear layers take less with 8 or 4 bits."""
    bits = BITS_OF_WEIGHT[precision]
    return sum(layer.weight.nbytes - int(layer.weight.numel() * bits / 8) for layer in layers)


COPY = torch.ops.aten._to_copy.default
VALUE = torch.ops.aten._local_scalar_dense.default
WHERE = torch.ops.aten.nonzero.default


def weight_bytes(module: nn.Module | None) -> int:
    """Bytes of a module's parameters and buffers, which may be on the meta device."""
    if module is None:
        return 0
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta


class MemoryTracker(TorchDispatchMode):
    """Counts the bytes of live tensors that are made on the meta device within it.

    Temporary memory inside an operation is not seen, such as workspaces of convolutions and matrix products.
    Attention is counted as a fused kernel, unless the device would use the plain one. A tensor that moves to
    main memory stays on the meta device, and is counted.

    Args:
        device: whose memory the meta device stands for.

    Attributes:
        now: bytes of live tensors.
        peak: the most bytes that were alive at once.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._device, self._plain, self._autocast = device, F.scaled_dot_product_attention, torch.autocast

    def __enter__(self) -> "MemoryTracker":
        self._replaced = ExitStack()
        # On the meta device torch computes plain attention, with the whole matrix of scores.
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
        if has_torch_function(
            (query,)
        ):  # activation hooks, which see the calls of torch's own functions alone
            replaced, inputs = F.scaled_dot_product_attention, (query, key, value, attn_mask)
            hooked: Tensor = handle_torch_function(replaced, (query,), *inputs, **settings)
            return hooked
        if plain_attention(self._device, query.dtype, max(query.shape[-2], key.shape[-2])):
            return self._plain(query, key, value, attn_mask, **settings)
        if attn_mask is not None:
            attn_mask = attn_mask.to(query.dtype)  # what is added to the scores
        fused: Tensor = _Fused.apply(query, key, value, attn_mask)
        return fused

    def _no_autocast(self, device_type: str, *args: Any, **settings: Any) -> AbstractContextManager[Any]:
        """torch.autocast, which does not exist for the meta device."""
        return nullcontext() if device_type == "meta" else self._autocast(device_type, *args, **settings)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is COPY and args[0].is_meta and kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        if func is VALUE and args[0].is_meta:
            return False  # a meta tensor has no value; the question is whether a mask masks nothing
        # An output may be a view of an input, whose memory is counted already.
        before = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if _is_meta(leaf)}
        if func is WHERE and args[0].is_meta:  # the largest possible result: captions that fill their length
            output = torch.empty(args[0].numel(), args[0].dim(), dtype=torch.long, device="meta")
        else:
            output = result_of(func, args, kwargs)
        for leaf in tree_leaves(output):
            if _is_meta(leaf) and id(leaf.untyped_storage()) not in before:
                self._count(leaf.untyped_storage())
        return output

    def _count(self, storage: UntypedStorage) -> None:
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


class _Fused(torch.autograd.Function):
    """The memory of a fused attention kernel: the output, and one number for each query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float)
        ctx.save_for_backward(query, key, value, output, sums, mask)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3]), None)
