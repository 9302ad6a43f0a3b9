"""What the ranks of a job do together for one cell: rank 0 says it, and the others hear it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from motionexp.data.base import Reference, image_hash
from motionexp.diffusion import ranks
from motionexp.diffusion.backbone import Backbone, Conditioning, ImageCondition
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
        images: {hash: the image} likewise.
    """

    cell: int
    of_base: bool
    has_adapter: bool
    missing: frozenset[str]
    latents: Mapping[str, Tensor]
    captions: Mapping[str, Conditioning]
    images: Mapping[str, ImageCondition]


class HeardEncodings(EncodingCache):
    """The encodings of an order, in place of an `EncodingCache`: only rank 0 loads the encoders."""

    def __init__(self, order: Order, backbone: Backbone) -> None:
        self._order, self.backbone = order, backbone

    def latents(self, reference: Reference) -> Tensor:
        """See `EncodingCache.latents`."""
        return self._order.latents[reference.content_hash].to(self.backbone.device)

    def caption(self, caption: str) -> Conditioning:
        """See `EncodingCache.caption`."""
        return self._order.captions[caption].to(self.backbone.device)

    def image(self, image: np.ndarray) -> ImageCondition:
        """See `EncodingCache.image`."""
        return self._order.images[image_hash(image)].to(self.backbone.device)


def order_of(job: "Job", number: int) -> Order:
    """What the cell of a number lacks. Another process may have finished a part while this one waited."""
    plan = job.plan.cells[number]
    has_adapter, missing = plan.cell.has_adapter, plan.missing
    trains = job.plan.trains and not has_adapter
    latents, captions = dict[str, Tensor](), dict[str, Conditioning]()
    images = list[np.ndarray]()
    if ranks.size() > 1:
        images += plan.images
        trained = [video for member in job.plan.group_of(plan) for video in member.trained_on]
        texts = [*job.plan.captions_of_sampling, *(edit.caption for edit in plan.reference.edits)]
        if trains or job.plan.guidance is not None or job.plan.steps_of_inversion:
            cpu = torch.device("cpu")
            latents = {video.content_hash: job.cache.latents(video).to(cpu) for video in trained}
            texts += [video.caption for video in trained]
            images += [video.frames[0] for video in trained if job.backbone.takes_image]
        captions = {text: job.cache.caption(text).to(torch.device("cpu")) for text in texts}
    encoded = {image_hash(image): job.cache.image(image).to(torch.device("cpu")) for image in images}
    ids = frozenset(request.sample_id for request in missing)
    return Order(number, job.is_of_base_model, has_adapter, ids, latents, captions, encoded)


def serve(job: "Job") -> None:
    """Do what rank 0 orders, until it has no more."""
    job.backbone.release_text_encoder()
    job.backbone.release_vae_encoder()
    base = job.of_base_model()
    while (order := ranks.of_first(None)) is not None:
        target = base if order.of_base else job
        assert target is not None
        target.cache = HeardEncodings(order, target.backbone)
        target.generate(order)


def is_first() -> bool:
    """Whether this process is rank 0, which orders."""
    return ranks.is_first()


def dismiss() -> None:
    """End the others' `serve`: rank 0 has no more orders."""
    ranks.of_first(None)
