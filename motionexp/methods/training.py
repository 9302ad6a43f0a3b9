"""One-shot tuning: trains a method's tensors on a few encoded references, beside a frozen backbone."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from motionexp.config.ids import FIT_VERSION
from motionexp.config.imports import without
from motionexp.diffusion import ranks
from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.progress import progress_bar
from motionexp.diffusion.schedule import generator
from motionexp.errors import InputError, Stopped
from motionexp.methods.base import TrainingSettings, TuningMethod
from motionexp.methods.between_steps import BetweenSteps
from motionexp.methods.checkpoints import SealedFile
from motionexp.methods.step import DrawKey, Step
from motionexp.methods.stopping import Stop
from motionexp.methods.trainer import make_trainer, quiet_lightning

with without("matplotlib", "torchvision", "scipy"):  # torchmetrics imports them, for metrics and pictures
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.utilities.exceptions import SIGTERMException


@dataclass(frozen=True)
class Example:
    """One encoded reference.

    Attributes:
        latents: (1, C, F, h, w), as `Backbone.encode` gives them.
        conditioning: the training caption, one row.
        reference: what its random numbers are drawn from beside the seed: the reference's `content_hash`.
    """

    latents: Tensor
    conditioning: Conditioning
    reference: str


@dataclass(frozen=True)
class FitResult:
    """The result of a training.

    Attributes:
        losses: of every step, including the steps of interrupted runs that this run continued. Of adapters
            that are trained together each entry is a list.
        trained: number of trained parameters.
        resumed_from: steps done by earlier runs; 0 for a new run.
        seconds: duration of this run, including previews.
        checkpoint: the final state, not needed once the adapter is saved; None: there is none.
    """

    losses: list[Any]
    trained: int
    resumed_from: int
    seconds: float
    checkpoint: Path | None


class Tuning(LightningModule):
    """The training of a method. The frozen backbone is no submodule: checkpoints do not hold its weights."""

    def __init__(
        self,
        backbone: Backbone,
        method: TuningMethod,
        examples: Sequence[Example],
        settings: TrainingSettings,
    ) -> None:
        super().__init__()
        # The update is ours, so that an interrupt within it is noticed.
        self.automatic_optimization = False
        self.method = method
        self.settings = settings
        self.window = method.window
        self.trained = nn.ParameterList(method.trained)
        self.losses: list[Any] = []
        self.is_consistent = True  # False during an update: a half updated state must not be saved
        self._backbone = backbone
        self._latents = torch.cat([example.latents for example in examples]).to(
            backbone.device, torch.float32
        )
        self._conditioning = Conditioning.cat([example.conditioning for example in examples]).trimmed()
        self._references = [example.reference for example in examples]

    def configure_model(self) -> None:
        """Shard nothing: the network was sharded when it was loaded, for sampling needs it too."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer of the method's parameters."""
        return self.settings.optimizer.build(self.trained)

    @property
    def draws(self) -> int:
        """Noise draws in a step, of all ranks."""
        return self.settings.draws * ranks.size()

    @property
    def batches(self) -> list[range]:
        """The numbers within a step of the draws that this rank takes together, batch by batch."""
        size, count = self.settings.batch_size, ranks.size()
        starts = range(ranks.number() * size, self.draws, size * count)
        return [range(start, start + size) for start in starts]

    def draw(self, step: int, numbers: range | None = None) -> Step:
        """Return the tensors of a step; all randomness comes from the seed, the reference and the step.

        References have noise of their own: means over references then average over the training's noise too.

        Args:
            step: from 0.
            numbers: of the draws within the step, as one of `batches`; None: all draws of the step. How the
                draws are spread over batches and ranks does not change them.
        """
        size, seed = self.draws, self.settings.seed
        numbers = range(size) if numbers is None else numbers
        # 1. The examples in turn: with 2 examples and 3 draws, step 0 takes 0 1 0 and step 1 takes 1 0 1.
        rows = [index % len(self._latents) for index in range(step * size, (step + 1) * size)]
        # 2. Noise and timesteps from generators on the CPU: the device must not change the numbers. Draws of
        #    one reference in one step follow each other, also those that other ranks take.
        schedule, shape = self._backbone.schedule, self._latents.shape[1:]
        keys = {row: (seed, self._references[row], step) for row in rows}
        noises = {row: generator("training noise", *key) for row, key in keys.items()}
        times = {row: generator("training timesteps", *key) for row, key in keys.items()}
        noise, t = [], []
        for number, row in enumerate(rows[: numbers.stop]):
            of_draw = torch.randn(shape, generator=noises[row])
            timestep = schedule.training_timesteps(self.window, 1, times[row])  # (1,)
            if number in numbers:
                noise.append(of_draw)
                t.append(timestep)
        rows = rows[numbers.start : numbers.stop]
        latents = self._latents[rows]  # (B, C, F, h, w)
        device = latents.device
        noised = latents, torch.stack(noise).to(device), torch.cat(t).to(device)
        draws = [DrawKey(*keys[row], number) for row, number in zip(rows, numbers, strict=True)]
        return Step.noised(schedule, *noised, self._conditioning[rows], draws)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Do step number `global_step`; its numbers do not depend on an interruption before it."""
        step = self.global_step
        optimizer = self.optimizers(use_pl_optimizer=True)
        assert not isinstance(optimizer, list)
        # 1. The losses of this rank's draws, with the method on: a preview may have switched it.
        self.method.switch(True)
        batches, losses = self.batches, []
        for numbers in batches:
            for term in self.method.losses(self.draw(step, numbers)):
                loss = term / len(batches)
                self.manual_backward(loss.sum())
                losses.append(loss.detach())
        # 2. Their mean over all ranks, and that of the gradients.
        mean = self._averaged(torch.stack(losses).sum(dim=0))
        value = mean.tolist()
        if not torch.isfinite(mean).all():
            t = self.draw(step).t.tolist()
            raise FloatingPointError(
                f"the loss is {value} in training step {step + 1} of {self.settings.steps}"
                f" (seed={self.settings.seed}, t={t}): lower learning_rate or take fp32"
            )
        # 3. The update; an interrupt within it must not save the state.
        self.is_consistent = False
        optimizer.step()
        self.zero_grad()
        self.losses.append(value)
        self.is_consistent = True

    def _averaged(self, loss: Tensor) -> Tensor:
        """The mean of a loss over the ranks; the gradients become their means too."""
        gradients = [parameter.grad for parameter in self.trained]
        if ranks.size() == 1:
            return loss
        # A timestep may reach only some of several networks: what no draw has reached keeps no gradient, as
        # with one rank, for weight decay would change it.
        reached = torch.tensor([gradient is not None for gradient in gradients], device=loss.device).float()
        filled = [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(self.trained, gradients, strict=True)
        ]
        mean, reached, *filled = ranks.averaged([loss, reached, *filled])
        for parameter, gradient, share in zip(self.trained, filled, reached.tolist(), strict=True):
            parameter.grad = gradient if share else None
        return mean

    @property
    def last_loss(self) -> float:
        """The loss of the last step; the mean of those of several adapters."""
        return float(np.mean(self.losses[-1]))

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return only the method's tensors, the auxiliary ones included, by their names."""
        auxiliary = {name: parameter.detach() for name, parameter in self.method.auxiliary.items()}
        return self.method.state() | auxiliary

    def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> None:
        """Load the method's tensors."""
        auxiliary = self.method.auxiliary
        self.method.load({name: state_dict[name] for name in state_dict if name not in auxiliary})
        for name, parameter in auxiliary.items():
            parameter.detach().copy_(state_dict[name])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the losses, and the identity that a resumed run must have."""
        checkpoint["fit"] = {"identity": self.identity(), "losses": self.losses}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the losses of the steps done."""
        self.losses = list(checkpoint["fit"]["losses"])

    def identity(self) -> dict[str, Any]:
        """Return the values that must be equal for a checkpoint to be continued."""
        settings = asdict(self.settings)
        # These change what is written on the way and not the tensors: a resumed run may change them.
        for name in ("keep_steps", "checkpoint_every", "preview_every"):
            del settings[name]
        # Lists, as a checkpoint that was read has them: a tuple would differ.
        settings["optimizer"]["betas"] = list(settings["optimizer"]["betas"])
        # Not how the draws of a step are spread: a resumed run may have other ranks.
        del settings["accumulate"]
        settings["batch_size"] = self.draws
        return settings | {
            "weights": self._backbone.weights_hash,
            "method": self.method.name,
            **self.method.settings,
            "window": [self.method.window.low, self.method.window.high],
            "knots": [list(knot) for knot in self.method.window.knots],
            "latents": list(self._latents.shape),
            "references": self._references,
            "version": FIT_VERSION,
        }


def fit(
    backbone: Backbone,
    method: TuningMethod,
    examples: Sequence[Example],
    settings: TrainingSettings | None = None,
    folder: Path | None = None,
    *,
    on_step: Callable[[int, float], None] | None = None,
    on_preview: Callable[[int], None] | None = None,
    on_keep: Callable[[FitResult], None] | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a method on encoded references, or resume an interrupted run of the same folder.

    With an empty window (tau = 1000) nothing is trained and nothing is written. Afterwards the method is
    switched off, with a scale of 1. Several ranks call it with equal arguments, and rank 0 writes.

    Args:
        backbone: frozen; training only reads it.
        method: attached to the backbone; its tensors are reset first, and tuned in place.
        examples: at least one, all of one shape.
        settings: of the training; None: the defaults.
        folder: created if needed; holds `checkpoint.ckpt`, which does not say of which videos it is. None:
            an interrupted training cannot be resumed.
        on_step: called on rank 0 after each step with the number of steps done and its loss (a mean over
            adapters), and at the start for each step of the interrupted runs.
        on_preview: called every `preview_every` steps with the number of steps done, without gradients. It
            may switch the method and change its scale.
        on_keep: called at each of `keep_steps` with the result that a training of that many steps returns,
            while the method's tensors are in that training's final state. It must change nothing.
        progress: show a bar with the loss and the remaining time.

    Raises:
        InputError: the folder holds a damaged checkpoint, or one of a training with other settings.
        FloatingPointError: the loss is not finite; the error names step and seed. The last checkpoint stays.
        KeyboardInterrupt, Stopped: on an interrupt, after a checkpoint of the steps done is saved.
    """
    settings = settings or TrainingSettings()
    # Reset even for an empty window, so that the result never depends on an earlier training.
    method.scale = 1.0
    method.reset(start_seed(settings.seed, examples))
    if method.window.is_empty:
        method.switch(False)
        return FitResult([], 0, 0, 0.0, None)
    # 1. A new run, or the rest of an interrupted one.
    module = Tuning(backbone, method, examples, settings)
    checkpoint = None if folder is None else folder / "checkpoint.ckpt"
    if checkpoint is not None and ranks.is_first():
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
    is_stored = ranks.of_first(checkpoint is not None and checkpoint.exists())
    resumed_from = _steps_done(checkpoint, module) if checkpoint is not None and is_stored else 0
    start = time.perf_counter()
    shown = progress and ranks.is_first()
    bar = progress_bar(settings.steps, "fit", "step", done=resumed_from, shown=shown)
    trained = sum(parameter.numel() for parameter in module.trained)

    # 2. The training, whatever ends it.
    def keep() -> None:
        if on_keep is not None and ranks.is_first():
            seconds = time.perf_counter() - start
            on_keep(FitResult(list(module.losses), trained, resumed_from, seconds, None))

    stop = Stop()
    between = BetweenSteps(settings, checkpoint, on_step, on_preview, keep, bar, stop)
    try:
        with bar, quiet_lightning():
            trainer = make_trainer(backbone, settings, between)
            _run(trainer, module, checkpoint if resumed_from else None)
    finally:
        stop.end()
        method.switch(False)
        for parameter in module.trained:  # Lightning leaves what it has trained on the CPU
            parameter.data = parameter.data.to(backbone.device)
    return FitResult(module.losses, trained, resumed_from, time.perf_counter() - start, checkpoint)


def start_seed(seed: int, examples: Sequence[Example]) -> int:
    """The seed of a method's initial state: of a training's seed and its references."""
    return generator("initial state", seed, *(example.reference for example in examples)).initial_seed()


def _run(trainer: Trainer, module: Tuning, checkpoint: Path | None) -> None:
    """Run the trainer, and raise an interrupt as what it is: Lightning raises SystemExit without a code."""
    try:
        # A step's tensors depend only on its number: the data loader has nothing to load.
        trainer.fit(module, repeat(0), ckpt_path=checkpoint, weights_only=True)
    except SystemExit as exit:
        if isinstance(exit.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from exit
        if isinstance(exit, SIGTERMException):
            raise Stopped(signal.SIGTERM) from exit
        raise


def _steps_done(path: Path, module: Tuning) -> int:
    """Return the steps of a checkpoint. Raise InputError if it is damaged or of another training."""
    checkpoint = SealedFile().load_checkpoint(path)
    stored = checkpoint["fit"]["identity"]
    # Any difference would continue another training under this one's name.
    current = module.identity()
    for name in sorted(current.keys() | stored.keys()):
        if current.get(name) != stored.get(name):
            raise InputError(
                f"{path} is of a training with {name}={stored.get(name)}, this one has {current.get(name)}:"
                " use another folder, or delete it to train from the start"
            )
    return int(checkpoint["global_step"])
