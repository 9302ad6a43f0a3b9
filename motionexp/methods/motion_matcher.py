"""MotionMatcher: a LoRA that matches attention maps of the frozen model in place of pixels or noise."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.hooks import Attended, Hooks, Predict, activation_hooks
from motionexp.diffusion.schedule import EVERYWHERE, Window
from motionexp.methods.bounds import check_positive
from motionexp.methods.dual_lora import layers_of_both
from motionexp.methods.lora import LoRA
from motionexp.methods.step import Step


class MotionMatcher(LoRA):
    """MotionMatcher (Wu et al. 2025, arXiv 2502.13234): features of motion are compared, inside the model.

    The tuned network's output at (x_t, t) gives x_(t-1) by one step of DDIM, and so does the true noise. The
    frozen network sees both at t - 1, and the loss is 2000 times the mean squared difference of their maps of
    attention to the caption, where things are, plus 2000 times that of their maps of attention along time,
    how they move. Both are softmax maps, means over heads and layers. The LoRA is on the attention within
    frames and along time, and on their feed-forward layers; all of it is saved, and acts while sampling. The
    method's own window is [500, 1000], which is the default of `tau`.

    The layers are those of the deepest level on the way down that has both attentions, a quarter of the
    latents' sides in the authors' U-Net; in Latte, the first half of the blocks. Of Show-1's attention,
    which hears places and caption together, the map is that of the caption's columns alone.

    As in the authors' code, the tuned network inverts the reference; sampling starts from `inverted_noise` =
    0.3. There the LoRA is on in the whole inversion, here in the window of the sampling. Their dropout of 0.1
    on LoRA's outputs is left out. Their rank is 32 with a scale of 1, which is `rank=32 alpha=32`, and their
    rate 5e-4 for 400 steps; rank, learning rate and steps here are those of `lora`.

    Cost of a step: one of `lora`, one forward pass, and a forward and a backward pass up to these layers.

    Args:
        backbone, window, rank, alpha: as of `LoRA`; the network has attention within frames and to captions.
        projections: of both attentions.
        feed_forward: whether the feed-forward layers of the attentions' blocks are tuned too.
        weight: of both terms, above 0; that of the authors' code is 2000. It matters where gradients are near
            the optimizer's eps, 1e-8, as in the small bundled models.

    Raises:
        InputError: as of `LoRA`, or a weight out of range, or a network without these attentions.
    """

    needs = ("motion", "spatial", "cross")
    takes_sharded = False  # a pass that is stopped early would leave weights gathered
    inverts_tuned = True

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        *,
        rank: int = 4,
        alpha: float = 4.0,
        projections: Sequence[str] = ("q", "k", "v", "o"),
        feed_forward: bool = True,
        weight: float = 2000.0,
    ) -> None:
        self.check_size(rank, alpha)
        check_positive(weight=weight)
        self.weight = weight
        self.refuse_missing_attention(backbone)
        layers = _tuned_layers(backbone, window, projections, feed_forward)
        settings = {
            "rank": rank,
            "alpha": alpha,
            "projections": list(projections),
            "feed_forward": feed_forward,
            "weight": weight,
        }
        self._attach(backbone, window, dict.fromkeys(layers, (rank, alpha)), settings)

    @classmethod
    def trainable_parameters(
        cls,
        backbone: Backbone,
        window: Window = EVERYWHERE,
        *,
        rank: int = 4,
        projections: Sequence[str] = ("q", "k", "v", "o"),
        feed_forward: bool = True,
        **settings: Any,
    ) -> int:
        """See `TuningMethod.trainable_parameters`."""
        layers = _tuned_layers(backbone, window, projections, feed_forward).values()
        return sum(cls.layer_parameters(layer, rank=rank) for layer in layers)

    def losses(self, step: Step) -> Iterator[Tensor]:
        """Yield the loss of the maps, whose gradient passes through the frozen network."""
        step.check_frames(self.name)
        output = self.backbone.predict(step.noisy, step.t, step.conditioning).float()
        # 1. The frozen network: its gradient is taken at once, because a pass that computes activations
        #    again needs the LoRA as it was: off here, on for the output.
        self.switch(False)
        loss, gradient = matching_loss(self.backbone, step, output.detach(), self.weight)
        self.switch(True)
        # 2. The value is the loss, and the gradient is handed on to the LoRA.
        chained = (output * gradient).sum()
        yield chained - chained.detach() + loss


def _tuned_layers(
    backbone: Backbone, window: Window, projections: Sequence[str], feed_forward: bool
) -> dict[str, nn.Linear]:
    temporal, spatial = layers_of_both(backbone, window, projections, feed_forward)
    return temporal | spatial


def matching_loss(backbone: Backbone, step: Step, output: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """The difference of the maps after the step by an output (B, C, F, h, w) and after the true step.

    The network is used as it is.

    Returns:
        The loss, a scalar, and its gradient by the output.
    """
    earlier, maps = (step.t - 1).clamp(min=0), MotionMaps(backbone, step)
    with maps.read(stop=True) as predict, torch.no_grad():
        predict(one_step(backbone, step, step.target), earlier, step.conditioning)
    true = maps.means()
    output = output.requires_grad_()
    # The whole pass, and the gradient before the hooks are gone: a backward pass may compute blocks again.
    with maps.read() as predict:
        predict(one_step(backbone, step, output), earlier, step.conditioning)
        to_caption, along_time = (F.mse_loss(*pair) for pair in zip(maps.means(), true, strict=True))
        loss = weight * (to_caption + along_time)
        (gradient,) = torch.autograd.grad(loss, output)
    return loss.detach(), gradient


def one_step(backbone: Backbone, step: Step, output: Tensor) -> Tensor:
    """x_(t-1) of the noisy latents by one step of DDIM without noise (eq. 12), each row at its own t."""
    schedule = backbone.schedule
    clean, noise = (convert(step.noisy, output, step.t) for convert in (schedule.to_x0, schedule.to_epsilon))
    return schedule.add_noise(clean, noise, (step.t - 1).clamp(min=0))


class MotionMaps:
    """Attention maps of the blocks that are compared, in one pass of the network on a step's videos.

    Args:
        backbone: its network is read as it is.
        step: its videos' shape and captions are those of the pass.
    """

    def __init__(self, backbone: Backbone, step: Step) -> None:
        self.backbone, self.conditioning = backbone, step.conditioning
        channels, frames, height, width = step.noisy.shape[1:]
        self.shape = channels, frames, height, width
        self.blocks = feature_blocks(backbone)
        self.to_caption: list[Tensor] = []
        self.along_time: list[Tensor] = []

    def means(self) -> tuple[Tensor, Tensor]:
        """Means over heads and layers: to the caption, (B F, P, L), and along time, (B, P, F, F).

        P places of a frame, L columns of the caption.
        """
        return torch.stack(self.to_caption).mean(dim=0), torch.stack(self.along_time).mean(dim=0)

    @contextmanager
    def read(self, stop: bool = False) -> Iterator[Predict]:
        """Read the maps of the pass in the context, which gets its `predict`; see `activation_hooks`."""
        self.to_caption, self.along_time = [], []
        hooks = Hooks(attention={("motion", number): self._read_time for number in self.blocks}, stop=stop)
        with ExitStack() as stack:
            self._hook_captions(stack)
            yield stack.enter_context(activation_hooks(self.backbone, self.shape, hooks))

    def _read_time(self, attended: Attended) -> None:
        query, key = (part.transpose(2, 3) for part in (attended.query, attended.key))  # (B, heads, P, F, D)
        self.along_time.append(attention_map(query, key).mean(dim=1))

    def _hook_captions(self, stack: ExitStack) -> None:
        queries, keys = (self.backbone.projections("cross")[letter] for letter in "qk")
        for query, key in zip(queries, keys, strict=True):
            if any(_is_in(query, number) for number in self.blocks):
                attention: Any = self.backbone.network.get_submodule(query.rpartition(".")[0])
                reader = _CaptionMap(attention.heads, self.conditioning, self.to_caption)
                for name, hook in ((query, reader.read_query), (key, reader.read_key)):
                    layer = self.backbone.network.get_submodule(name)
                    stack.callback(layer.register_forward_hook(hook).remove)


class _CaptionMap:
    """The map of one attention to the caption, of the outputs of its query and its key layer."""

    def __init__(self, heads: int, conditioning: Conditioning, maps: list[Tensor]) -> None:
        self.heads, self.conditioning, self.maps = heads, conditioning, maps
        self.query: Tensor | None = None

    def read_query(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self.query = output  # (B F, P, D), of which the network computes keys next

    def read_key(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        assert self.query is not None
        query, key = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, output)
        )  # (B F, heads, P or L, D)
        mask = self.conditioning.attended().to(output.device)[:, : key.shape[2]]  # (B, L)
        bias = torch.zeros(mask.shape, device=output.device).masked_fill(~mask, -torch.inf)
        bias = bias.repeat_interleave(len(key) // len(bias), dim=0)[:, None, None]
        self.maps.append(attention_map(query, key, bias).mean(dim=1))


def attention_map(query: Tensor, key: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias) over the keys, (..., queries, keys), in fp32."""
    scores = query.float() @ key.float().transpose(-1, -2) / math.sqrt(query.shape[-1])
    return torch.softmax(scores + bias, dim=-1)


def feature_blocks(backbone: Backbone) -> list[int]:
    """The numbers of the blocks whose maps are compared; see `MotionMatcher`."""
    names = [block.outputs[0] for block in backbone.blocks]
    captions = caption_queries(backbone)
    both = [
        number
        for number, block in enumerate(backbone.blocks)
        if block.attentions.get("motion") and any(_is_in(name, number) for name in captions)
    ]
    down = [number for number in both if names[number].startswith("down_blocks.")]
    return down[-1:] or both[: math.ceil(len(both) / 2)]


def caption_queries(backbone: Backbone) -> list[str]:
    """Names of the query layers of the attention to the caption."""
    return backbone.projections("cross")["q"]


def _is_in(name: str, number: int) -> bool:
    """Whether an attention to the caption is in a block, on the way down or of a transformer."""
    return re.match(rf"(down_blocks|transformer_blocks)\.{number}\.", name) is not None
