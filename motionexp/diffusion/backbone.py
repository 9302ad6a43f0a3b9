"""What every pre-trained text-to-video model looks like to the rest of the package."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.schedule import Window

ProjectionKind = Literal["motion", "spatial", "cross"]


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Embedded captions, one a row; `len()` is their number.

    Attributes:
        embeds: (B, L, D) on the backbone's device.
        mask: (B, L), True where the network attends; None: everywhere. It stays on the CPU, so that its
            content can be asked for without waiting for the device.
        pooled: (B, P) one vector a caption, of networks that take one beside; on the backbone's device.
    """

    embeds: Float[Tensor, "b l d"]
    mask: Bool[Tensor, "b l"] | None = None
    pooled: Float[Tensor, "b p"] | None = None

    def __len__(self) -> int:
        return len(self.embeds)

    def __getitem__(self, rows: int | slice | Sequence[int]) -> "Conditioning":
        """Some of the rows; a single index gives a batch of one."""
        kept = rows if isinstance(rows, slice) else [rows] if isinstance(rows, int) else list(rows)
        mask, pooled = (None if each is None else each[kept] for each in (self.mask, self.pooled))
        return Conditioning(self.embeds[kept], mask, pooled)

    def attended(self) -> Bool[Tensor, "b l"]:
        """The mask, also where there is none: True everywhere."""
        return torch.ones(self.embeds.shape[:2], dtype=torch.bool) if self.mask is None else self.mask

    def repeat(self, times: int) -> "Conditioning":
        """Each row `times` times, copies next to each other: (a, b) gives (a, a, b, b)."""
        mask, pooled = (
            None if each is None else each.repeat_interleave(times, dim=0)
            for each in (self.mask, self.pooled)
        )
        return Conditioning(self.embeds.repeat_interleave(times, dim=0), mask, pooled)

    def trimmed(self) -> "Conditioning":
        """Without the columns at the end that no row attends to; no mask where nothing else is masked."""
        if self.mask is None:
            return self
        length = int(self.mask.any(dim=0).nonzero().max()) + 1
        mask = self.mask[:, :length]
        return Conditioning(self.embeds[:, :length], None if bool(mask.all()) else mask, self.pooled)

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """All rows of all parts, padded with masked columns to the longest."""
        length = max(part.embeds.shape[1] for part in parts)
        vectors = [part.pooled for part in parts if part.pooled is not None]
        pooled = torch.cat(vectors) if vectors else None
        if all(part.mask is None and part.embeds.shape[1] == length for part in parts):
            return Conditioning(torch.cat([part.embeds for part in parts]), pooled=pooled)
        embeds, masks = [], []
        for part in parts:
            missing = length - part.embeds.shape[1]
            embeds.append(nn.functional.pad(part.embeds, (0, 0, 0, missing)))
            masks.append(nn.functional.pad(part.attended(), (0, missing)))
        return Conditioning(torch.cat(embeds), torch.cat(masks), pooled)


class Backbone(ABC):
    """A frozen text-to-video model: prediction type, scaling factors and text layout are its own affair.

    Frames are uint8 RGB (B, F, H, W, 3), latents (B, C, F, h, w). Whatever goes in is moved to `device`.

    Attributes:
        parts: folders of a checkpoint whose content determines `weights_hash`.
        name: in rows, tables and paths.
        source: what it was loaded from: `bundled:NAME`, a folder, a hub id.
        revision: the hub repository's commit; None for a folder.
        weights_hash: sha256 of the checkpoint's weights and configuration.
        network: the denoising network, in eval mode, no parameter of it requires a gradient.
        schedule: its noise schedule, discrete or of flow matching.
        device: where it computes.
        dtype: of the network's weights.
        frames, height, width: of the videos that it was trained for (frames, pixels).
        fps: frames a second of those videos.
        max_caption_tokens: longest caption, end token included.
        component: what the network is called in its pipeline's folder.
        key_prefix: what precedes the network's names in an adapter file.
        attentions: the kinds that `projections` knows.
        any_size: videos may be of any size that `latent_shape` takes; `height` and `width` may then be set.
    """

    component: ClassVar[str] = "transformer"
    key_prefix: ClassVar[str] = "transformer."
    attentions: ClassVar[tuple[ProjectionKind, ...]] = get_args(ProjectionKind)
    any_size: ClassVar[bool] = False
    parts: ClassVar[tuple[str, ...]]
    name: str
    source: str
    revision: str | None
    weights_hash: str
    network: nn.Module
    schedule: Schedule
    device: torch.device
    dtype: torch.dtype
    frames: int
    height: int
    width: int
    fps: float
    max_caption_tokens: int

    @classmethod
    @abstractmethod
    def caption_problems(
        cls, path: str | Path, captions: Sequence[str], *, revision: str | None = None
    ) -> list[str]:
        """As `check_captions`, before any weight is loaded: from the tokenizer of `path` alone.

        Raises InputError where there is no such model, or its tokenizer cannot be read.
        """

    @abstractmethod
    def encode(self, frames: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b c f y x"]:
        """Latents of frames: the mode of the VAE's posterior, scaled to about unit variance, fp32.

        Raises InputError for a size that `latent_shape` refuses, RuntimeError after `release_vae_encoder`.
        """

    @abstractmethod
    def decode(self, latents: Float[Tensor, "b c f y x"]) -> UInt8[Tensor, "b f h w 3"]:
        """Frames of latents, a few at a time, on the CPU."""

    @abstractmethod
    def embed(self, captions: Sequence[str]) -> Conditioning:
        """Embedded captions; an empty one is legal.

        Raises InputError for what `check_captions` refuses, RuntimeError after `release_text_encoder`.
        """

    @abstractmethod
    def guidance_pair(
        self, conditioning: Conditioning, negative: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        """(negative, conditioning) of B rows each, laid out as the stock pipeline does for guidance.

        Args:
            conditioning: B captions from `embed`.
            negative: B or 1 captions from `embed`.
        """

    @abstractmethod
    def predict(
        self, x_t: Float[Tensor, "b c f y x"], t: float | Tensor, conditioning: Conditioning
    ) -> Float[Tensor, "b c f y x"]:
        """The network's output at x_t, in the schedule's prediction type; a learned variance is dropped.

        Args:
            x_t: noisy latents; one frame is a legal video.
            t: timestep, one for all or (B,).
            conditioning: B captions.

        Returns:
            x_t's shape and dtype, whatever the network's. Gradients pass through.
        """

    @abstractmethod
    def projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        """Names in `network` of the linear layers `q`, `k`, `v` and `o` of one kind of attention.

        `motion` is attention along time, `spatial` within a frame, `cross` from frames to the caption.
        """

    def motion_projections(self, window: Window) -> dict[str, list[str]]:
        """The `motion` projections of what acts in a window; all, unless networks share the timesteps."""
        return self.projections("motion")

    @abstractmethod
    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F, h, w) of the latents of a video (frames, pixels).

        Raises InputError where the network cannot take that many frames or that size.
        """

    @abstractmethod
    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """Estimate of the memory that `predict` of one video (C, F, h, w) takes beside the weights."""

    @abstractmethod
    def check_captions(self, captions: Sequence[str]) -> list[str]:
        """What is wrong with the captions, one sentence a problem; empty: nothing.

        A caption may be too long, or have words that a model of a closed vocabulary would take for noise.
        """

    @abstractmethod
    def release_text_encoder(self) -> None:
        """Give the text encoder's memory back; `embed` cannot be called any more."""

    @abstractmethod
    def release_vae_encoder(self) -> None:
        """Give the VAE encoder's memory back; `encode` cannot be called any more."""
