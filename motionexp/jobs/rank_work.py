"""What the ranks of a job do together for one cell: rank 0 says it, and the others hear it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from motionexp.data.base import Reference
from motionexp.diffusion import ranks
from motionexp.diffusion.backbone import Conditioning
from motionexp.jobs.encoding_cache import EncodingCache

if TYPE_CHECKING:
    from motionexp.jobs.job import Job


@dataclass(frozen=True)
class Order:
    """What a cell lacks, as rank 0 has read it under the cell's lock.

    Attributes:
        cell: its place in the plan's list of cells.
        of_base: whether it is in the plan of the base model.
        has_adapter: whether the cell's adapter is stored.
        missing: ids of the samples to make.
        latents: {content_hash: (1, C, F, h, w)} of the videos to train on; empty with one rank.
        captions: {caption: its conditioning} of what is to be sampled and trained on; empty with one rank.
    """

    cell: int
    of_base: bool
    has_adapter: bool
    missing: frozenset[str]
    latents: Mapping[str, Tensor]
    captions: Mapping[str, Conditioning]


class HeardEncodings(EncodingCache):
    """The encodings of an order, in place of an `EncodingCache`: only rank 0 loads the encoders."""

    def __init__(self, order: Order, device: torch.device) -> None:
        self._order, self._device = order, device

    def latents(self, reference: Reference) -> Tensor:
        """See `EncodingCache.latents`."""
        return self._order.latents[reference.content_hash].to(self._device)

    def conditioning(self, caption: str) -> Conditioning:
        """See `EncodingCache.conditioning`."""
        return self._order.captions[caption].to(self._device)


def order_of(job: "Job", number: int) -> Order:
    """What the cell of a number lacks. Another process may have finished a part while this one waited."""
    plan = job.plan.cells[number]
    has_adapter, missing = plan.cell.has_adapter, plan.missing
    trains = job.plan.trains and not has_adapter
    latents, captions = dict[str, Tensor](), dict[str, Conditioning]()
    if ranks.size() > 1:
        trained = [video for member in job.plan.group_of(plan) for video in member.trained_on]
        texts = [*job.plan.captions_of_sampling, *(edit.caption for edit in plan.reference.edits)]
        if trains or job.plan.guidance is not None or job.plan.steps_of_inversion:
            cpu = torch.device("cpu")
            latents = {video.content_hash: job.cache.latents(video).to(cpu) for video in trained}
            texts += [video.caption for video in trained]
        captions = {text: job.cache.conditioning(text).to(torch.device("cpu")) for text in texts}
    ids = frozenset(request.sample_id for request in missing)
    return Order(number, job.is_of_base_model, has_adapter, ids, latents, captions)


def serve(job: "Job") -> None:
    """Do what rank 0 orders, until it has no more."""
    job.backbone.release_text_encoder()
    job.backbone.release_vae_encoder()
    base = job.of_base_model()
    while (order := ranks.of_first(None)) is not None:
        target = base if order.of_base else job
        assert target is not None
        target.cache = HeardEncodings(order, target.device)
        target.generate(order)


def is_first() -> bool:
    """Whether this process is rank 0, which orders."""
    return ranks.is_first()


def dismiss() -> None:
    """End the others' `serve`: rank 0 has no more orders."""
    ranks.of_first(None)
