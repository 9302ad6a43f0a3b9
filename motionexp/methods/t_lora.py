"""A LoRA of which fewer ranks act at some timesteps than at others."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.base import TunedAttention
from motionexp.methods.lora import ADAPTER, LoRA
from motionexp.methods.step import Step

RankOverT = Literal["falling", "rising"]


class TLoRA(LoRA):
    """A LoRA whose active rank depends on the timestep (T-LoRA, arXiv 2507.05964, for single images).

    T-LoRA trains fewer ranks at noisier timesteps, so that they cannot overfit: `falling`. A window does the
    opposite, in one step; `rising` does so gradually. At timestep t the first r(t) rows of A and columns of B
    act, in training and in sampling, where

        r(t) = least_rank + round((rank - least_rank) u),    u = 1 - t / 1000 (falling) or t / 1000 (rising)

    T-LoRA rounds down, so that its last rank acts at one timestep alone; here both directions use all ranks.
    T-LoRA's orthogonal start of A is left out: the start is that of `LoRA`. The scale alpha / rank is that of
    the full rank at every timestep.

    Cost of a step: one of `lora`.

    Args:
        backbone, window, rank, alpha, projections, attention: as of `LoRA`. The network keeps a batch's rows
            in the outermost place.
        rank_over_t: falling or rising, from t = 0 to t = 1000.
        least_rank: where fewest ranks act; from 1 to rank.

    Raises:
        InputError: as of `LoRA`, or another direction, or a least rank out of range.
    """

    is_plain = False

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        rank: int = 4,
        alpha: float = 4.0,
        projections: Sequence[str] = ("v", "o"),
        attention: TunedAttention = "motion",
        rank_over_t: RankOverT = "falling",
        least_rank: int = 1,
    ) -> None:
        if rank_over_t not in get_args(RankOverT):
            raise InputError(f"method.rank_over_t={rank_over_t}: falling or rising")
        if not 1 <= least_rank <= rank:
            raise InputError(f"method.least_rank={least_rank}: a whole number from 1 to rank={rank}")
        super().__init__(
            backbone, window, rank=rank, alpha=alpha, projections=projections, attention=attention
        )
        self.settings |= {"rank_over_t": rank_over_t, "least_rank": least_rank}
        self.rank, self.least_rank, self.is_falling = rank, least_rank, rank_over_t == "falling"
        self._active = torch.ones(1, rank)
        for layer in self.layers.values():
            layer.lora_A[ADAPTER].register_forward_hook(self._masked)

    @classmethod
    def layer_parameters(cls, layer: nn.Linear, **settings: Any) -> int:
        return super().layer_parameters(layer, rank=settings.get("rank", 4))

    def active_rank(self, t: Tensor) -> Tensor:
        """r(t) of timesteps (B,) in 0..1000: whole numbers (B,)."""
        part = 1 - t / 1000 if self.is_falling else t / 1000
        return self.least_rank + torch.round((self.rank - self.least_rank) * part).long()

    def loss(self, step: Step) -> Tensor:
        """See `TuningMethod.loss`; every row passes through the ranks that act at its timestep."""
        self._set_timesteps(step.t)
        return super().loss(step)

    def set_active(self, t: float | None) -> bool:
        """See `TuningMethod.set_active`; all rows pass through the ranks that act at t."""
        if t is not None:
            self._set_timesteps(torch.tensor([t]))
        return super().set_active(t)

    def _set_timesteps(self, t: Tensor) -> None:
        ranks = torch.arange(self.rank, device=t.device)
        self._active = (ranks < self.active_rank(t).unsqueeze(1)).float()  # (B, rank)

    def _masked(self, layer: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        """The product of A and the layer's input, (R, ..., rank), where R is a multiple of B."""
        active = self._active.to(output.device, output.dtype)
        rows = active.repeat_interleave(len(output) // len(active), dim=0)  # (R, rank)
        return output * rows.view(len(output), *[1] * (output.ndim - 2), self.rank)
