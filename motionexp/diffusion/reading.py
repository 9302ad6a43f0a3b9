"""What attentions and blocks of a network hold, read in a forward pass that ends there."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.hooks import Attended, AttentionHook, FeatureHook, Hooks, Place, activation_hooks


class Reader:
    """Reads attentions and block outputs in a forward pass that ends after the last of them.

    Gradients pass if they are enabled; take them while the reader is open.

    Args:
        backbone: predicts.
        acting: hooks that act in the same forward passes, before what is read.
        positions: replace the positional embedding.
    """

    def __init__(
        self,
        backbone: Backbone,
        acting: Mapping[Place, AttentionHook] | None = None,
        positions: Sequence[Tensor] | None = None,
    ) -> None:
        self.backbone, self.acting, self.positions = backbone, dict(acting or {}), positions
        self._stack = ExitStack()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def attention(
        self, x_t: Tensor, t: float, captions: Conditioning, places: Sequence[Place]
    ) -> list[Attended]:
        """What the attentions at these places compute with, one entry for each attention.

        Args:
            x_t: (B, C, F, h, w).
            t: their timestep.
            captions: B rows.
            places: a block may have several attentions of a kind.
        """
        seen: dict[str, list[Attended]] = {}

        def reading(before: AttentionHook | None) -> AttentionHook:
            def read(part: Attended) -> Attended | None:
                changed = None if before is None else before(part)
                seen.setdefault(part.name, []).append(part if changed is None else changed)
                return changed

            return read

        hooks = self.acting | {place: reading(self.acting.get(place)) for place in places}
        self._run(x_t, t, captions, Hooks(hooks, positions=self.positions, stop=True))
        return [_joined(parts) for parts in seen.values()]

    def features(self, x_t: Tensor, t: float, captions: Conditioning, blocks: Sequence[int]) -> list[Tensor]:
        """The outputs (B, D, F, rows, columns) of blocks, in fp32."""
        seen: list[Tensor] = []
        read: FeatureHook = lambda features: seen.append(features.float())  # noqa: E731
        features = dict.fromkeys(blocks, read)
        self._run(x_t, t, captions, Hooks(self.acting, features, self.positions, stop=True))
        return seen

    def _run(self, x_t: Tensor, t: float, captions: Conditioning, hooks: Hooks) -> None:
        _, *shape = x_t.shape
        channels, frames, height, width = shape
        hooked = activation_hooks(self.backbone, (channels, frames, height, width), hooks)
        self._stack.enter_context(hooked)(x_t, t, captions)


def _joined(parts: Sequence[Attended]) -> Attended:
    """The videos of a batch together, whose attention may have been called for one after the other."""
    query, key, value = (
        torch.cat(tensors) for tensors in zip(*(part.tensors for part in parts), strict=True)
    )
    return Attended(query, key, value, slice(0, len(query)), parts[0].name)
