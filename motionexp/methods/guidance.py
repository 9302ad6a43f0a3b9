"""The interface of a guidance method: it moves the sampling of a frozen model by a reference, untrained."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
from hydra.utils import get_object
from torch import Tensor

from motionexp.diffusion.backbone import Backbone, Conditioning, ProjectionKind
from motionexp.diffusion.hooks import (
    Attended,
    AttentionHook,
    Hooks,
    Place,
    activation_hooks,
    find_block,
    self_attentions,
)
from motionexp.diffusion.inversion import inversion_steps, invert
from motionexp.diffusion.reading import Reader
from motionexp.diffusion.sampling import Guide, SamplerSettings, StepGuidance
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.bounds import check_blocks, check_positive

OptimizerName = Literal["adam", "adamw", "sgd"]
OPTIMIZERS: Mapping[str, type[torch.optim.Adam | torch.optim.AdamW | torch.optim.SGD]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class Guiding:
    """A reference as guidance takes it, on the backbone's device.

    Attributes:
        latents: clean, (1, C, F, h, w), in fp32.
        conditioning: of its caption, one row.
        empty: of the empty caption, one row.
        negative: of the caption of the unconditional branch, one row.
    """

    latents: Tensor
    conditioning: Conditioning
    empty: Conditioning
    negative: Conditioning

    def with_own_image(self, captions: Conditioning) -> Conditioning:
        """A sample's captions, with which the reference passes the network: its first frame is its own."""
        return captions.with_image(self.conditioning.image)


class StepCost(NamedTuple):
    """Evaluations of the network that guidance adds, of one video.

    Attributes:
        forward, backward: at each guided sampling step.
        once: forward, for a reference.
        at_start: whether it sets the first latents and guides no step.
    """

    forward: float = 0.0
    backward: float = 0.0
    once: float = 0.0
    at_start: bool = False


class GuidanceMethod(StepGuidance):
    """Guides the sampling of the base model, exactly at the timesteps of `window`; trains nothing.

    A method is a module of this folder with one subclass, and a file of the same name in `conf/method/`,
    which has the published range of timesteps as the default of `tau`. `tests/methods/test_guidance.py` tests
    every method of the folder. The constructor loads no weights: what the model lacks is refused before.

    A sampling first calls `watch` with the reference, then for each batch `start`, and at each guided step
    `move`, its gate (`set_active`), and `correct`. The guidance of a video does not depend on the others of
    its batch. With `scale` 0 it is off, and the samples are bit for bit those of the base model.

    Attributes:
        trains: False; the settings of trainings do not apply.
        mixes: whether `scale` is a share, from 0 to 1.
        window: the guided timesteps; may be replaced at any time.
        scale: strength of the guidance, 1 as published.
        losses: of the last batch, by guided timestep, the losses (B,) before each optimizer step.
    """

    trains: ClassVar[bool] = False
    mixes: ClassVar[bool] = False

    def __init__(self, backbone: Backbone, window: Window) -> None:
        self.backbone, self.window = backbone, window
        self.scale = 1.0
        self.losses: dict[float, list[Tensor]] = {}
        self._acting = ExitStack()

    @property
    def name(self) -> str:
        """The method's name in rows and ids: the name of its module."""
        return type(self).__module__.rpartition(".")[-1]

    @property
    def one_at_a_time(self) -> bool:
        """Whether a batch may hold one video alone."""
        return False

    @property
    def needs_no_eta(self) -> str:
        """The setting of a method that makes no sense in steps with fresh noise (eta above 0), or empty."""
        return ""

    @property
    @abstractmethod
    def cost(self) -> StepCost:
        """What the guidance of one video costs."""

    def check(self, scale: float, eta: float) -> None:
        """Raise InputError for a scale, or an eta of the sampling, that the method does not take."""
        if self.mixes and scale > 1:
            raise InputError(f"adapter_scale={scale:g}: method={self.name} mixes with shares from 0 to 1")
        if eta > 0 and self.needs_no_eta:
            raise InputError(f"eta={eta:g}: {self.needs_no_eta} needs eta=0")

    def watch(self, reference: Guiding) -> None:
        """Take a reference; what is read from it is computed when it is first needed."""
        self.reference = reference

    def strength(self, t: float) -> float:
        """`scale` times the window's weight at timestep t; 0 where the sampling is not guided."""
        return self.scale * self.window.weight(t)

    def is_on(self, t: float) -> bool:
        """Whether the sampling is guided at timestep t."""
        return self.strength(t) > 0

    def start(self, noise: Tensor, guide: Guide, settings: SamplerSettings) -> Tensor:
        """The latents (B, C, F, h, w) from which a batch starts; by default its unit noise."""
        self.check(self.scale, settings.eta)
        self.noise, self.losses = noise, {}
        timesteps = self.backbone.schedule.timesteps(settings.steps)
        self.timesteps = [t for t in timesteps if self.is_on(t)]
        return noise

    def move(self, x_t: Tensor, t: float, guide: Guide) -> Tensor:
        """The latents that the network gets at a guided timestep; by default x_t."""
        return x_t

    def acting(self, t: float) -> Hooks | None:
        """What is replaced while the network predicts at a guided timestep; None: nothing."""
        return None

    def correct(self, x_prev: Tensor, t: float, t_prev: float) -> Tensor:
        """The latents at t_prev after a guided step; by default x_prev."""
        return x_prev

    def set_active(self, t: float | None) -> bool:
        """Make `acting` act if the window holds timestep t; t=None ends it. Returns whether it is on."""
        self._acting.close()
        self._acting = ExitStack()
        if t is None or not self.is_on(t):
            return False
        if (hooks := self.acting(t)) is not None:
            self._acting.enter_context(activation_hooks(self.backbone, self.shape, hooks))
        return True

    def remove(self) -> None:
        """Leave the network as it was."""
        self.set_active(None)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, F, h, w) of the latents of the videos."""
        _, channels, frames, height, width = self.reference.latents.shape
        return channels, frames, height, width


def make_guidance(method: Mapping[str, Any], backbone: Backbone, window: Window) -> GuidanceMethod:
    """The guidance method of a class under `_target_`, with its arguments.

    Raises:
        InputError: the class is none, or the model lacks what it needs.
    """
    settings = dict(method)
    guidance = get_object(settings.pop("_target_"))(backbone, window, **settings)
    if not isinstance(guidance, GuidanceMethod):
        raise InputError(f"method._target_={method['_target_']}: it trains nothing, and is no GuidanceMethod")
    return guidance


KeysAndValues = Mapping[str, tuple[Tensor, Tensor]]
"""{name of an attention: its keys and values (B, heads, F, P, D)}"""


class Injection:
    """Keys and values of the reference's tokens in place of the sample's, in the self-attention of blocks.

    DiTFlow, section 5.1 and `motion_guidance.py`: at each guided step the reference is noised to t with the
    noise that the sample started from, and passed through the network with the sample's caption. Its keys and
    values are those of every evaluation of the step, of both branches of guidance. Where frames and time have
    attention of their own, both of a block are replaced.

    Raises:
        InputError: no block is named, or the network has no such block, or no self-attention in it.
    """

    def __init__(self, backbone: Backbone, blocks: list[int] | None) -> None:
        check_blocks("injection_blocks", blocks)
        self.backbone = backbone
        if blocks is None:
            blocks = self_attention_blocks(backbone)[:1]
        self.places = [(kind, block) for block in blocks for kind in self_attentions(backbone, block)]

    def read(self, latents: Tensor, noise: Tensor, t: float, captions: Conditioning) -> KeysAndValues:
        """Keys and values of the reference (1, C, F, h, w) at t, for samples that start from noise."""
        x_t = self.backbone.schedule.add_noise(latents, noise, t)
        with Reader(self.backbone) as reader:
            attended = reader.attention(x_t, t, captions, self.places)
        return {part.name: (part.key.detach(), part.value.detach()) for part in attended}

    def hooks(self, stored: KeysAndValues, strength: float = 1.0) -> dict[Place, AttentionHook]:
        """Replace keys and values: with strength s by own + s (reference's - own)."""

        def replace(part: Attended) -> Attended:
            # Both branches of guidance are one batch: rows of B samples follow each other twice.
            key, value = (_rows(tensor, part) for tensor in stored[part.name])
            if strength != 1.0:
                key, value = (
                    torch.lerp(old.float(), new.float(), strength)
                    for old, new in ((part.key, key), (part.value, value))
                )
            return part._replace(key=key, value=value)

        return dict.fromkeys(self.places, replace)


def _rows(tensor: Tensor, part: Attended) -> Tensor:
    rows = torch.arange(part.rows.start, part.rows.stop, device=tensor.device) % len(tensor)
    return tensor[rows]


def self_attention_blocks(backbone: Backbone) -> list[int]:
    """The blocks with self-attention. Raises InputError if the network names none."""
    blocks = [index for index, block in enumerate(backbone.blocks) if any(block.attentions.values())]
    if not blocks:
        raise InputError(
            f"model={backbone.name}: its network names no blocks that activation hooks could read"
        )
    return blocks


def published_block(backbone: Backbone, kind: ProjectionKind | None = None) -> int:
    """The number of the block that guides by default, among those with attention of a kind.

    In a U-Net the second on the way up, as SMM, MOFT and MotionClone have it. Else the first that is at least
    as deep as block 20 of 42 in CogVideoX 5B and block 15 of 30 in CogVideoX 2B, as DiTFlow has it.

    Raises:
        InputError: there is no such block.
    """
    blocks = list(enumerate(backbone.blocks))
    having = [number for number, block in blocks if kind is None or block.attentions.get(kind)]
    if not having:
        find_block(backbone, 0, kind)  # which says what there is
    second = [number for number, block in blocks if block.outputs[0] == "up_blocks.1" and number in having]
    # ceil(20 / 42 of the depth)
    return second[0] if second else having[-(-20 * len(having) // 42)]


def inverted_latents(
    backbone: Backbone, reference: Guiding, captions: Conditioning, settings: SamplerSettings
) -> dict[float, Tensor]:
    """The reference's latents (1, C, F, h, w) at all timesteps of a sampling, by DDIM inversion.

    It takes at least 50 steps (`inversion_steps`), without classifier-free guidance.
    """
    steps = inversion_steps(backbone.schedule, settings.steps)
    return invert(backbone, reference.latents, captions, None, SamplerSettings(steps, guidance_scale=1.0))


@dataclass(frozen=True)
class Optimization:
    """How latents are optimised at a guided step; the learning rate falls linearly over the guided steps.

    Attributes:
        steps: of the optimizer, which is new at each guided step; from 1.
        first_rate, last_rate: learning rates at the first and the last guided step.
        reaches_last: False: the rate falls as if one more guided step followed, which had `last_rate`.
        optimizer: adam, adamw or sgd, with torch's other defaults.
    """

    steps: int = 5
    first_rate: float = 0.002
    last_rate: float = 0.001
    optimizer: str = "adam"
    reaches_last: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"method.optimization_steps={self.steps}: a whole number from 1")
        if self.optimizer not in get_args(OptimizerName):
            raise InputError(
                f"method.optimizer={self.optimizer}: one of {', '.join(get_args(OptimizerName))}"
            )
        check_positive(first_rate=self.first_rate, last_rate=self.last_rate)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of the guided step of a number, from 0, of `steps`."""
        share = step / max(1, steps - self.reaches_last)
        return self.first_rate + share * (self.last_rate - self.first_rate)


class OptimizedGuidance(GuidanceMethod):
    """Guidance that optimises latents at each guided step, by gradients of a loss of its own.

    `scale` multiplies the learning rate. The loss is a sum over videos, so that batches change nothing.
    With `injection`, the reference's keys and values act beside it (`Injection`).
    """

    def __init__(
        self,
        backbone: Backbone,
        window: Window,
        optimization: Optimization,
        injection: Injection | None,
    ) -> None:
        super().__init__(backbone, window)
        self.optimization, self.injection = optimization, injection
        self._stored: KeysAndValues = {}

    @property
    def injected(self) -> dict[Place, AttentionHook]:
        """The hooks of the injection at the present step."""
        return {} if self.injection is None else self.injection.hooks(self._stored)

    @abstractmethod
    def batch_losses(self, reader: Reader, x_t: Tensor, t: float, captions: Conditioning) -> Tensor:
        """The losses (B,) of latents (B, C, F, h, w) at t, with gradients."""

    def move(self, x_t: Tensor, t: float, guide: Guide) -> Tensor:
        """See `GuidanceMethod.move`."""
        self.prepare(t, guide.conditional)

        def losses_of(reader: Reader, tensors: Sequence[Tensor]) -> Tensor:
            return self.batch_losses(reader, tensors[0], t, guide.conditional)

        return self.optimize([x_t], t, losses_of)[0]

    def reader(self, tensors: Sequence[Tensor]) -> Reader:
        """The reader of one evaluation of the loss; `tensors` are what is optimised."""
        return Reader(self.backbone, self.injected)

    def prepare(self, t: float, captions: Conditioning) -> None:
        """Read the reference's keys and values at t."""
        if self.injection is not None:
            captions = self.reference.with_own_image(captions)
            self._stored = self.injection.read(self.reference.latents, self.noise, t, captions)

    def optimize(
        self,
        tensors: Sequence[Tensor],
        t: float,
        losses_of: Callable[[Reader, Sequence[Tensor]], Tensor],
    ) -> list[Tensor]:
        """The tensors after the optimizer's steps at t, by losses (B,) whose sum falls."""
        rate = self.strength(t) * self.optimization.rate(self.timesteps.index(t), len(self.timesteps))
        leaves = [tensor.detach().float().clone().requires_grad_() for tensor in tensors]
        optimizer = OPTIMIZERS[self.optimization.optimizer](leaves, lr=rate)
        for _ in range(self.optimization.steps):
            optimizer.zero_grad()
            with torch.enable_grad(), self.reader(leaves) as reader:
                losses = losses_of(reader, leaves)
                losses.sum().backward()
            self.losses.setdefault(t, []).append(losses.detach())
            optimizer.step()
        return [leaf.detach() for leaf in leaves]

    def acting(self, t: float) -> Hooks | None:
        """See `GuidanceMethod.acting`."""
        return None if self.injection is None else Hooks(self.injected)

    @property
    def cost(self) -> StepCost:
        """See `GuidanceMethod.cost`."""
        steps = self.optimization.steps
        return StepCost(steps + (self.injection is not None), steps, 1)
