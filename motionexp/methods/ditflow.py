"""DiTFlow: the sample's attention from frame to frame follows that of the reference."""

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.correspondence import attention_displacements
from motionexp.diffusion.hooks import Attended, Hooks, Place, find_block, grid_of
from motionexp.diffusion.positions import position_embedding, position_points
from motionexp.diffusion.reading import Reader
from motionexp.diffusion.sampling import Guide, SamplerSettings
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.bounds import check_blocks, check_positive
from motionexp.methods.guidance import (
    Guiding,
    Injection,
    Optimization,
    OptimizedGuidance,
    OptimizerName,
    published_block,
)

Optimised = Literal["latents", "positions"]
Variant = Literal["paper", "authors_code"]


class DiTFlow(OptimizedGuidance):
    """DiTFlow (Pondaven et al. 2025, arXiv 2412.07776), section 4: guidance by attention motion flow.

    Queries and keys of one block say where each token of a frame is in every other frame (eqs. 3 to 7): in
    the reference, passed through the network clean, at t = 0 and with the empty caption, by the argmax; in
    the sample by a soft argmax. At each guided step Adam lowers the mean squared difference of the
    displacements (eq. 8), by the latents or by the positional embedding. Published: the first 20% of 50
    steps, 5 steps of Adam, block 20 of 42 or 15 of 30, keys and values of the reference in the first block.

    There is no matrix of scores for each head: their mean is one product, computed for blocks of frames.

    Differences from the authors' code, which is the variant `authors_code`: there the mean over heads is of
    the scores, and not of queries and keys (section 4.1); tokens that do not move in the reference are left
    out of the loss; and the learning rate would reach its last value one step after the last. Also there, but
    in no variant: rotary embeddings of queries and of keys are optimised apart from each other.

    Where frames and time have attention of their own (Latte, U-Nets), no attention goes from place to place
    and from frame to frame. Queries and keys of the attention within frames take its place here.

    Cost of a guided step: `optimization_steps` passes up to the block, forward and backward, and one forward
    pass up to the first block for the injection.

    Args:
        backbone, window: as of `GuidanceMethod`.
        blocks: number of the guided block, or numbers, of whose losses the mean is taken; null: one, as deep
            as the published one.
        temperature: multiplies the scores before the softmax.
        optimise: latents, or positions: the embedding stays changed from one guided step to the next.
        zero_shot: optimise once for each initial noise, with the reference's caption, and use the latents or
            the embeddings of all steps for other captions (section 5.3).
        optimization_steps, first_rate, last_rate, optimizer: see `Optimization`.
        injection: whether keys and values of the reference act at the guided steps (`Injection`).
        injection_blocks: their blocks; null: the first.
        frames_at_once: frames whose scores with all frames are in memory together; null: by their size.
        variant: paper or authors_code.

    Raises:
        InputError: the network lacks such a block, or the positional embedding that is to be optimised.
    """

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        blocks: int | list[int] | None = None,
        temperature: float = 2.0,
        optimise: Optimised = "latents",
        zero_shot: bool = False,
        optimization_steps: int = 5,
        first_rate: float = 0.002,
        last_rate: float = 0.001,
        optimizer: OptimizerName = "adam",
        injection: bool = True,
        injection_blocks: list[int] | None = None,
        frames_at_once: int | None = None,
        variant: Variant = "paper",
    ) -> None:
        for name, value, kind in (("optimise", optimise, Optimised), ("variant", variant, Variant)):
            if value not in get_args(kind):
                raise InputError(f"method.{name}={value}: one of {', '.join(get_args(kind))}")
        if frames_at_once is not None and frames_at_once < 1:
            raise InputError(f"method.frames_at_once={frames_at_once}: a whole number from 1")
        check_positive(temperature=temperature)
        blocks = [blocks] if isinstance(blocks, int) else blocks
        check_blocks("blocks", blocks)
        reaches_last = variant == "paper"
        optimization = Optimization(optimization_steps, first_rate, last_rate, optimizer, reaches_last)
        injected = Injection(backbone, injection_blocks) if injection else None
        super().__init__(backbone, window, optimization, injected)
        self.places = flow_places(backbone, blocks)
        self.temperature, self.frames_at_once, self.variant = temperature, frames_at_once, variant
        self.optimises_positions, self.zero_shot = optimise == "positions", zero_shot
        if self.optimises_positions:
            position_points(backbone)
        self._positions: list[Tensor] | None = None
        self._flows: list[Tensor] | None = None
        self._learnt: dict[bytes, dict[float, list[Tensor]]] = {}

    @property
    def one_at_a_time(self) -> bool:
        """See `GuidanceMethod`: the rows of a batch share one positional embedding."""
        return self.optimises_positions

    @property
    def needs_no_eta(self) -> str:
        """See `GuidanceMethod`: what was optimised belongs to the noise that a sampling starts from."""
        return "method.zero_shot=true" if self.zero_shot else ""

    def watch(self, reference: Guiding) -> None:
        """See `GuidanceMethod.watch`."""
        super().watch(reference)
        self._flows, self._learnt = None, {}

    # Attention motion flow

    @property
    def flows(self) -> list[Tensor]:
        """Of each guided attention the reference's displacements (1, F, F, P, 2), in tokens."""
        if self._flows is None:
            with torch.no_grad(), Reader(self.backbone) as reader:
                latents, empty = self.reference.latents, self.reference.empty
                attended = reader.attention(latents, 0.0, empty, self.places)
                self._flows = [self.flow(part, soft=False) for part in attended]
        return self._flows

    def flow(self, part: Attended, *, soft: bool) -> Tensor:
        """Displacements (B, F, F, P, 2) by what an attention computes with."""
        *_, height, width = self.shape
        return attention_displacements(
            part.query,
            part.key,
            grid_of(part.query.shape[3], height, width),
            temperature=self.temperature,
            soft=soft,
            mean_of="queries_and_keys" if self.variant == "paper" else "scores",
            frames_at_once=self.frames_at_once,
        )

    def batch_losses(self, reader: Reader, x_t: Tensor, t: float, captions: Conditioning) -> Tensor:
        """Mean squared differences (B,) of the sample's displacements to the reference's, eq. 8."""
        flows = self.flows  # first: the reader's hooks act until it is closed, on the reference too
        attended = reader.attention(x_t, t, captions, self.places)
        losses = []
        for part, reference in zip(attended, flows, strict=True):
            squared = (self.flow(part, soft=True) - reference).square()  # (B, F, F, P, 2)
            if self.variant == "authors_code":
                moves = (reference != 0).any(dim=-1)[0]  # (F, F, P)
                squared = squared[:, moves] if bool(moves.any()) else 0 * squared
            losses.append(squared.flatten(1).mean(dim=1))
        return torch.stack(losses).mean(dim=0)

    # Sampling

    def start(self, noise: Tensor, guide: Guide, settings: SamplerSettings) -> Tensor:
        """See `GuidanceMethod.start`."""
        super().start(noise, guide, settings)
        self._positions = None
        if not self.zero_shot:
            return noise
        keys = [hashlib.sha256(row.cpu().numpy().tobytes()).digest() for row in noise]
        for row, key in enumerate(keys):
            if key not in self._learnt:
                self._learnt[key] = self._learn(noise[row : row + 1], settings)
        self.noise, self._keys = noise, keys
        return noise

    def move(self, x_t: Tensor, t: float, guide: Guide) -> Tensor:
        """See `GuidanceMethod.move`."""
        self.prepare(t, guide.conditional)
        if self.zero_shot:
            return self._recall(x_t, t)
        return self._optimise(x_t, t, guide.conditional)

    def _optimise(self, x_t: Tensor, t: float, captions: Conditioning) -> Tensor:
        if not self.optimises_positions:

            def losses_of(reader: Reader, tensors: Sequence[Tensor]) -> Tensor:
                return self.batch_losses(reader, tensors[0], t, captions)

            return self.optimize([x_t], t, losses_of)[0]
        if self._positions is None:
            self._positions = position_embedding(self.backbone, self.shape, captions)
        self._positions = self.optimize(
            self._positions, t, lambda reader, tensors: self.batch_losses(reader, x_t, t, captions)
        )
        return x_t

    def reader(self, tensors: Sequence[Tensor]) -> Reader:
        """See `OptimizedGuidance.reader`."""
        return Reader(self.backbone, self.injected, tensors if self.optimises_positions else None)

    def acting(self, t: float) -> Hooks | None:
        """See `GuidanceMethod.acting`."""
        return Hooks(self.injected, positions=self._positions)

    # Zero-shot

    def _learn(self, noise: Tensor, settings: SamplerSettings) -> dict[float, list[Tensor]]:
        """What is optimised at every guided step, on the way from noise (1, C, F, h, w)."""
        self.noise, self._positions = noise, None
        guide = Guide.of(
            self.backbone,
            1,
            self.reference.conditioning,
            self.reference.negative,
            settings,
            gate=self.set_active,
        )
        x_t, learnt, schedule = noise, dict[float, list[Tensor]](), self.backbone.schedule
        for t, t_prev in schedule.step_pairs(settings.steps):
            if self.is_on(t):
                self.prepare(t, guide.conditional)
                x_t = self._optimise(x_t, t, guide.conditional)
                learnt[t] = self._positions if self._positions is not None else [x_t]
            if len(learnt) == len(self.timesteps):
                break  # nothing that follows is guided
            x_t = schedule.step(x_t, guide.predict(x_t, t), t, t_prev)
            self.set_active(None)
        self._positions = None
        return learnt

    def _recall(self, x_t: Tensor, t: float) -> Tensor:
        rows = [self._learnt[key][t] for key in self._keys]
        if self.optimises_positions:
            (self._positions,) = rows
            return x_t
        return torch.cat([latents for (latents,) in rows])


def flow_places(backbone: Backbone, blocks: Sequence[int] | None) -> list[Place]:
    """Where displacements are read: the motion attention of blocks, if it goes from place to place.

    Args:
        backbone: where frames have attention of their own, that one.
        blocks: their numbers; None: `published_block`.

    Raises:
        InputError: the network has no such block, or no such attention in it.
    """
    kind: Literal["motion", "spatial"] = "motion" if backbone.motion_layout == "all" else "spatial"
    blocks = [published_block(backbone, kind)] if blocks is None else blocks
    for block in blocks:
        find_block(backbone, block, kind)
    return [(kind, block) for block in blocks]
