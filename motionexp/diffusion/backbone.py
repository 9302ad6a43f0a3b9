"""The interface of a pre-trained text-to-video model: captions, latents, predictions and named layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from motionexp.diffusion.flow_matching import Schedule
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError

ProjectionKind = Literal["motion", "spatial", "cross"]
Layout = Literal["all", "frame", "time"]
"""Which tokens of a video are one sequence: all, those of a frame, or those of one place in all frames."""


Originals = Mapping[str, tuple[str, ...]]
"""{layer of a model's original code: the layers of diffusers' network that its rows are, in their order}."""

VideoShape = tuple[int, int, int, int]
"""Of the latents of one video: (C, F, h, w)."""


@dataclass(frozen=True)
class Block:
    """A block of a network, where activation hooks read and replace (`motionexp.diffusion.hooks`).

    Attributes:
        outputs: the modules whose output is the block's. One of them runs in a forward pass.
        attentions: names of the attention modules of a kind within the block.
        layout: of the output, `all` or `time`, if it is no map (B F, D, rows, columns).
    """

    outputs: tuple[str, ...]
    attentions: Mapping[ProjectionKind, tuple[str, ...]]
    layout: Layout = "all"


@dataclass(frozen=True, eq=False)
class ImageCondition:
    """Encoded images, one per row, with which videos begin.

    Attributes:
        channels: (B, E, F, h, w), which the network gets beside the C channels of the noisy latents.
        embeds: (B, I, D) of an image encoder; None: the network takes none.
    """

    channels: Float[Tensor, "b e f y x"]
    embeds: Float[Tensor, "b i d"] | None = None

    def frames(self, numbers: Sequence[int]) -> "ImageCondition":
        """Of videos of one latent frame: of row b the frame numbers[b]."""
        rows = list(range(len(numbers)))
        return ImageCondition(self.channels[rows, :, list(numbers)].unsqueeze(2), self.embeds)

    def to(self, device: torch.device) -> "ImageCondition":
        """On a device."""
        return self.by_tensor(lambda tensor: tensor.to(device))

    def by_tensor(self, change: Callable[[Tensor], Tensor]) -> "ImageCondition":
        """With each tensor changed."""
        return ImageCondition(change(self.channels), None if self.embeds is None else change(self.embeds))

    @staticmethod
    def cat(parts: Sequence["ImageCondition"]) -> "ImageCondition":
        """All rows of all parts, which are of one network and of one shape."""
        embeds = [part.embeds for part in parts if part.embeds is not None]
        return ImageCondition(
            torch.cat([part.channels for part in parts]), torch.cat(embeds) if embeds else None
        )


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Embedded captions, one per row; `len()` is the number of rows.

    Attributes:
        embeds: (B, L, D) on the backbone's device.
        mask: (B, L), True where the network attends; None: everywhere. The mask is on the CPU: reading it
            then does not wait for the device.
        pooled: (B, P) one vector per caption, for networks that take one; on the backbone's device.
        image: of a network that is conditioned on an image, B rows; on the backbone's device.
    """

    embeds: Float[Tensor, "b l d"]
    mask: Bool[Tensor, "b l"] | None = None
    pooled: Float[Tensor, "b p"] | None = None
    image: ImageCondition | None = None

    def __len__(self) -> int:
        return len(self.embeds)

    def __getitem__(self, rows: int | slice | Sequence[int]) -> "Conditioning":
        """The chosen rows; a single index gives a batch of one."""
        index = rows if isinstance(rows, slice) else [rows] if isinstance(rows, int) else list(rows)
        return self._by_tensor(lambda tensor: tensor[index])

    def attended(self) -> Bool[Tensor, "b l"]:
        """The mask (B, L); True everywhere if `mask` is None."""
        return torch.ones(self.embeds.shape[:2], dtype=torch.bool) if self.mask is None else self.mask

    def repeat(self, times: int) -> "Conditioning":
        """Every row `times` times, copies next to each other: (a, b) gives (a, a, b, b)."""
        return self._by_tensor(lambda tensor: tensor.repeat_interleave(times, dim=0))

    def with_image(self, image: ImageCondition | None) -> "Conditioning":
        """With an image for each row, or one for all of them; None: as it is."""
        if image is None:
            return self
        if len(image.channels) not in (1, len(self)):
            raise ValueError(f"{len(image.channels)} images for {len(self)} captions: give 1 or {len(self)}")
        times = len(self) // len(image.channels)
        return replace(self, image=image.by_tensor(lambda tensor: tensor.repeat_interleave(times, dim=0)))

    def to(self, device: torch.device) -> "Conditioning":
        """With all tensors but the mask on a device; the mask stays on the CPU."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        image = None if self.image is None else self.image.to(device)
        return Conditioning(self.embeds.to(device), self.mask, pooled, image)

    def _by_tensor(self, change: Callable[[Tensor], Tensor]) -> "Conditioning":
        mask, pooled = (None if tensor is None else change(tensor) for tensor in (self.mask, self.pooled))
        image = None if self.image is None else self.image.by_tensor(change)
        return Conditioning(change(self.embeds), mask, pooled, image)

    def trimmed(self) -> "Conditioning":
        """Drop the last columns that no row attends to, and the mask if it masks nothing else.

        One column stays where no row attends to any: networks need a sequence.
        """
        if self.mask is None:
            return self
        attended = self.mask.any(dim=0).nonzero()
        # One past the last column that any row attends to.
        length = int(attended.max()) + 1 if len(attended) else 1
        mask = self.mask[:, :length]
        return replace(self, embeds=self.embeds[:, :length], mask=None if bool(mask.all()) else mask)

    @staticmethod
    def cat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """All rows of all parts, padded with masked columns to the longest part."""
        # Columns of the longest part; the others are padded and masked.
        length = max(part.embeds.shape[1] for part in parts)
        vectors = [part.pooled for part in parts if part.pooled is not None]
        pooled = torch.cat(vectors) if vectors else None  # (B, P)
        images = [part.image for part in parts if part.image is not None]
        if len(images) not in (0, len(parts)):
            raise ValueError(f"{len(images)} of {len(parts)} parts have an image: give all of them one")
        image = ImageCondition.cat(images) if images else None
        if all(part.mask is None and part.embeds.shape[1] == length for part in parts):
            return Conditioning(torch.cat([part.embeds for part in parts]), None, pooled, image)
        embeds, masks = [], []
        for part in parts:
            # (b, l, d) to (b, length, d).
            missing = length - part.embeds.shape[1]
            embeds.append(nn.functional.pad(part.embeds, (0, 0, 0, missing)))
            masks.append(nn.functional.pad(part.attended(), (0, missing)))
        return Conditioning(torch.cat(embeds), torch.cat(masks), pooled, image)


class Backbone(ABC):
    """A frozen text-to-video model. Its class handles prediction type, latent scaling and text layout.

    Frames are uint8 RGB (B, F, H, W, 3), latents are (B, C, F, h, w). Inputs are moved to `device`.

    Attributes:
        parts: folders of a checkpoint whose contents determine `weights_hash`.
        name: in rows, tables and paths.
        source: where the checkpoint is: `bundled:NAME`, a folder, or a hub id.
        revision: the hub repository's commit; None for a folder.
        weights_hash: sha256 of the checkpoint's weights and configuration.
        network: the denoising network, in eval mode; no parameter requires a gradient.
        schedule: the noise schedule, discrete or of flow matching.
        stored_schedule: of the checkpoint; a job may have another spacing of sampling steps (`respaced`).
        respacing: what differs from `stored_schedule`, in words; empty: nothing.
        device: of the network.
        dtype: of the network's weights.
        frames, height, width: of the training videos (frames, pixels).
        fps: frames per second of the training videos.
        max_caption_tokens: longest caption, including the end token.
        component: the network's name in its pipeline's folder.
        key_prefix: precedes the network's names in an adapter file.
        attentions: the kinds that `projections` accepts.
        any_size: videos may have any size that `latent_shape` accepts; `height` and `width` may then be set.
        flow_matching: whether `schedule` is of flow matching, known before any file is read.
        moves_blocks: whether blocks of the network may wait in main memory, and its weights have fewer bits.
        network_precision: of the weights in the network's blocks; `auto`: `dtype`.
        shardable: whether `sharded` may be set.
        sharded: whether each rank holds a part of the network's weights. All ranks then call `predict`
            equally often. It is set before the network is first used.
        motion_layout: of the motion attention: `all`, or `time` where frames have attention of their own.
        caption_first: whether the caption's tokens come before the video's, where both are one sequence.
        takes_image: whether the network is conditioned on an image, the first frame of the video.
        zeroes_empty_prompt: whether `force_zeros_for_empty_prompt` may be set.
        force_zeros_for_empty_prompt: whether an empty caption is embedded as tokens of zero, all of them
            masked, in place of what its tokenizer makes of it.
    """

    component: ClassVar[str] = "transformer"
    key_prefix: ClassVar[str] = "transformer."
    attentions: ClassVar[tuple[ProjectionKind, ...]] = get_args(ProjectionKind)
    any_size: ClassVar[bool] = False
    flow_matching: ClassVar[bool] = False
    moves_blocks: ClassVar[bool] = False
    shardable: ClassVar[bool] = False
    network_precision: str = "auto"
    sharded: bool = False
    respacing: str = ""
    motion_layout: ClassVar[Layout] = "all"
    caption_first: ClassVar[bool] = False
    takes_image: ClassVar[bool] = False
    zeroes_empty_prompt: ClassVar[bool] = False
    force_zeros_for_empty_prompt: bool = False
    parts: ClassVar[tuple[str, ...]]
    name: str
    source: str
    revision: str | None
    weights_hash: str
    network: nn.Module
    stored_schedule: Schedule
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
        """As `check_captions`, before any weight is loaded: reads only the tokenizer of `path`.

        Raises:
            InputError: there is no such model, or its tokenizer cannot be read.
        """

    @abstractmethod
    def encode(self, frames: UInt8[Tensor, "b f h w 3"]) -> Float[Tensor, "b c f y x"]:
        """Latents of frames: the mode of the VAE's posterior, scaled to about unit variance, fp32.

        Raises:
            InputError: `latent_shape` refuses the size.
            RuntimeError: after `release_vae_encoder`.
        """

    @abstractmethod
    def decode(self, latents: Float[Tensor, "b c f y x"]) -> UInt8[Tensor, "b f h w 3"]:
        """Frames of latents, a few at a time, on the CPU."""

    @abstractmethod
    def embed(self, captions: Sequence[str]) -> Conditioning:
        """Embedded captions, one row per caption; an empty caption is legal.

        Raises:
            InputError: `check_captions` finds a problem.
            RuntimeError: after `release_text_encoder`.
        """

    def encode_image(self, image: UInt8[Tensor, "h w 3"]) -> ImageCondition:
        """An image as the condition of videos of `frames` frames that begin with it; one row, fp32.

        Args:
            image: of `height` x `width` pixels.

        Raises:
            InputError: the network takes no image, or `latent_shape` refuses the size.
            RuntimeError: after `release_vae_encoder`.
        """
        raise InputError(f"model={self.name}: a text-to-video model, which takes no image")

    def condition(self, caption: str, image: np.ndarray | None = None) -> Conditioning:
        """A caption, and the image (H, W, 3) that its video begins with, one row; see `encode_image`."""
        encoded = None if image is None else self.encode_image(torch.from_numpy(image.copy()))
        return self.embed([caption]).with_image(encoded)

    @abstractmethod
    def guidance_pair(
        self, conditioning: Conditioning, negative: Conditioning
    ) -> tuple[Conditioning, Conditioning]:
        """(negative, conditioning) of B rows both, in the layout of the stock pipeline for guidance.

        Both have the images of `conditioning`: guidance is by the caption alone.

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
            t: one timestep for the batch, or (B,).
            conditioning: B captions; with images if `takes_image`.

        Returns:
            The output in x_t's shape and dtype, whatever the network's dtype. Gradients pass through.
        """

    @abstractmethod
    def projections(self, kind: ProjectionKind) -> dict[str, list[str]]:
        """Names in `network` of the linear layers `q`, `k`, `v` and `o` of one kind of attention.

        `motion` is attention along time, `spatial` within a frame, `cross` from frames to the caption.
        """

    @property
    def spans(self) -> Mapping[str, Window]:
        """Where networks share the timesteps: those of each, by the first part of its layers' names."""
        return {}

    def motion_projections(self, window: Window) -> dict[str, list[str]]:
        """The `motion` projections of the networks that act in a window, where networks share timesteps."""
        return self.projections("motion")

    @property
    def blocks(self) -> Sequence[Block]:
        """The blocks in the order in which they run, known before weights are loaded; empty: no hooks."""
        return ()

    @property
    def original_layers(self) -> Originals:
        """Layers by their names in the model's original code, where those are not diffusers'.

        A fused layer, such as one for q, k and v, is several layers of the network. Where the network is two
        of one shape, the names are those in one of them. Some of the layers may be missing in the network.
        """
        return {}

    @property
    def positions(self) -> tuple[str, ...]:
        """Where the positional embedding is; empty: it cannot be replaced.

        Names of buffers that are added to tokens, of modules of the network that return cosines and sines, or
        of arguments of the network (`position_argument`).
        """
        return ()

    def video_tokens(self, shape: Sequence[int]) -> int:
        """How many tokens a video's latents (C, F, h, w) become; for networks with blocks."""
        raise NotImplementedError(f"{self.name} has no blocks")

    def position_argument(self, name: str, shape: Sequence[int]) -> Sequence[Tensor] | None:
        """Cosines and sines that `predict` hands to the network under a name; None: it hands over none."""
        return None

    @abstractmethod
    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F, h, w) of the latents of a video (frames, pixels).

        Raises:
            InputError: the network cannot take this number of frames or this size.
        """

    @abstractmethod
    def predict_bytes(self, shape: tuple[int, int, int, int]) -> int:
        """Estimated bytes that `predict` of one video (C, F, h, w) takes in addition to the weights."""

    @abstractmethod
    def check_captions(self, captions: Sequence[str]) -> list[str]:
        """Problems of the captions, one sentence per problem; empty if there is none.

        A caption may be too long, or hold words outside a closed vocabulary.
        """

    @abstractmethod
    def release_text_encoder(self) -> None:
        """Free the text encoder's memory; `embed` raises afterwards."""

    @abstractmethod
    def unload(self) -> None:
        """Free the memory of all parts. Each is loaded again when it is used, also released encoders."""

    @abstractmethod
    def release_vae_encoder(self) -> None:
        """Free the memory of the VAE's encoder and of an image encoder; `encode` raises afterwards."""
