"""One-shot fine-tuning: a backbone, a method and a few encoded references go in, tuned tensors come out."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import accumulate, repeat
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.diffusion.backbone import Backbone, Conditioning
from motionexp.diffusion.schedule import Window, generator
from motionexp.errors import InputError
from motionexp.methods.base import OptimizerSettings, Step, TuningMethod


@dataclass(frozen=True)
class Example:
    """One reference as training sees it, encoded once.

    Attributes:
        latents: (1, C, F, h, w), scaled as the backbone's network takes them.
        conditioning: of the training caption, one entry.
    """

    latents: Tensor
    conditioning: Conditioning


@dataclass(frozen=True)
class TrainingSettings:
    """What determines a training, beside backbone, method and examples, and how it is watched.

    Attributes:
        steps: optimizer steps, from 1.
        batch_size: noise draws in a step, from 1; several examples take turns.
        seed: of the initial state, the noise and the timesteps.
        optimizer: and its learning rate.
        keep_steps: numbers of steps after which `on_keep` is called.
        checkpoint_every: steps between checkpoints; 0: one at the end, or when interrupted.
        preview_every: steps between calls of `on_preview`; 0: none.
        log_every: steps between logged losses.
    """

    steps: int = 200
    batch_size: int = 1
    seed: int = 0
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    keep_steps: tuple[int, ...] = ()
    checkpoint_every: int = 50
    preview_every: int = 0
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: a whole number from 1")


@dataclass(frozen=True)
class FitResult:
    """What a training did.

    Attributes:
        losses: of every step, those of the interrupted runs that it continued included.
        trained: parameters, in numbers.
        resumed_from: steps that were done before; 0 for a new run.
        seconds: of this run, previews included.
        checkpoint: the finished state, not needed once the adapter is saved; None: nothing was trained.
    """

    losses: list[float]
    trained: int
    resumed_from: int
    seconds: float
    checkpoint: Path | None


class Tuning(LightningModule):
    """The training of a method on a frozen backbone, which is no part of this module or its checkpoints."""

    def __init__(
        self,
        backbone: Backbone,
        method: TuningMethod,
        examples: Sequence[Example],
        settings: TrainingSettings,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.method = method
        self.settings = settings
        self.stages = method.stages(settings.optimizer, settings.steps)
        self.trained = nn.ParameterList(value for stage in self.stages for value in stage.parameters)
        self.losses: list[float] = []
        self.is_whole = True  # False while a step changes the state, which is then no state to go on from
        self._backbone = backbone
        self._latents = torch.cat([example.latents for example in examples]).to(
            backbone.device, torch.float32
        )
        self._conditioning = Conditioning.cat([example.conditioning for example in examples]).trimmed()
        self._ends = list(accumulate(stage.steps for stage in self.stages))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return one optimizer a stage."""
        return [stage.optimizer.build(stage.parameters) for stage in self.stages]

    def draw(self, step: int, window: Window) -> Step:
        """Return a step's tensors; all that is random in them comes from the seed and the step's number."""
        size, seed = self.settings.batch_size, self.settings.seed
        turns = [index % len(self._latents) for index in range(step * size, (step + 1) * size)]
        latents = self._latents[turns]
        noise = torch.randn(latents.shape, generator=generator("training noise", seed, step))
        noise = noise.to(latents.device)
        schedule = self._backbone.schedule
        t = schedule.training_timesteps(window, size, generator("training timesteps", seed, step))
        t = t.to(latents.device)
        return Step.noised(schedule, latents, noise, t, self._conditioning[turns])

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Do the step of number `global_step`, the same whether or not the run was interrupted before it."""
        step = self.global_step
        index, stage = next((i, s) for i, s in enumerate(self.stages) if step < self._ends[i])
        optimizers = self.optimizers(use_pl_optimizer=True)
        optimizer = optimizers[index] if isinstance(optimizers, list) else optimizers
        self.method.switch(True)
        tensors = self.draw(step, stage.window)
        loss = stage.loss(tensors)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss is {value} in training step {step + 1} of {self.settings.steps}"
                f" (seed={self.settings.seed}, t={tensors.t.tolist()}): lower learning_rate or take fp32"
            )
        self.manual_backward(loss)
        self.is_whole = False
        optimizer.step()
        self.zero_grad()  # of all stages: a later one must not start with gradients from this one
        self.losses.append(value)
        self.is_whole = True

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the method's tensors alone, by their names in an adapter file."""
        return self.method.state()

    def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> None:
        """Give the method's tensors back."""
        self.method.load(state_dict)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs to know beside tensors and optimizer."""
        checkpoint["fit"] = {"identity": self.identity(), "losses": self.losses}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the losses so far."""
        self.losses = list(checkpoint["fit"]["losses"])

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a checkpoint to be continued, in plain values."""
        settings = asdict(self.settings)
        for name in ("keep_steps", "checkpoint_every", "preview_every", "log_every"):
            del settings[name]
        settings["optimizer"]["betas"] = list(settings["optimizer"]["betas"])
        return settings | {
            "weights": self._backbone.weights_hash,
            "method": self.method.name,
            **self.method.settings,
            "window": [self.method.window.low, self.method.window.high],
            "knots": [list(knot) for knot in self.method.window.knots],
            "latents": list(self._latents.shape),
        }


def fit(
    backbone: Backbone,
    method: TuningMethod,
    examples: Sequence[Example],
    settings: TrainingSettings,
    folder: Path,
    *,
    logger: Logger | None = None,
    on_preview: Callable[[int], None] | None = None,
    on_keep: Callable[[FitResult], None] | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a method on encoded references, or go on where an interrupted run in the same folder stopped.

    With an empty window (tau = 1000) nothing is trained and nothing written. The method is left switched off,
    with a scale of 1.

    Args:
        backbone: frozen; only read.
        method: attached to the backbone; its tensors are reset first, and tuned in place.
        examples: at least one, all of the same shape.
        settings: of the training.
        folder: made if needed; gets `checkpoint.ckpt`.
        logger: gets `loss` at every `log_every` steps; see `loggers.make_logger`.
        on_preview: called with the number of steps done, every `preview_every` steps, without gradients. It
            may switch the method and change its scale.
        on_keep: called at every one of `keep_steps` with what a training of so many steps would return, while
            the method's tensors are as that would leave them; it changes nothing.
        progress: show a bar with the loss and the time left.

    Raises:
        InputError: the folder holds a checkpoint that cannot be read, or of a training with other settings.
        FloatingPointError: the loss is not finite; names step and seed. The last checkpoint stays.
        KeyboardInterrupt: as it came; a checkpoint of the steps done is saved first.
    """
    method.scale = 1.0
    method.reset(settings.seed)
    if method.window.is_empty:
        method.switch(False)
        return FitResult([], 0, 0, 0.0, None)
    module = Tuning(backbone, method, examples, settings)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.ckpt"
    resumed_from = _steps_done(checkpoint, module) if checkpoint.exists() else 0
    start = time.perf_counter()
    bar = tqdm(total=settings.steps, initial=resumed_from, desc="fit", unit="step", disable=not progress)
    trained = sum(parameter.numel() for parameter in module.trained)

    def keep() -> None:
        if on_keep is not None:
            seconds = time.perf_counter() - start
            on_keep(FitResult(list(module.losses), trained, resumed_from, seconds, None))

    callbacks = [_Watch(settings, checkpoint, on_preview, keep), _Progress(bar)]
    try:
        with bar, _quiet_lightning():
            trainer = _trainer(backbone.device, settings, callbacks, logger, folder)
            _run(trainer, module, checkpoint if resumed_from else None)
    finally:
        method.switch(False)
        for parameter in module.trained:  # Lightning leaves what it has trained on the CPU
            parameter.data = parameter.data.to(backbone.device)
    return FitResult(module.losses, trained, resumed_from, time.perf_counter() - start, checkpoint)


class _Watch(Callback):
    """Checkpoints, previews and logged losses, between steps."""

    def __init__(
        self,
        settings: TrainingSettings,
        path: Path,
        on_preview: Callable[[int], None] | None,
        on_keep: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.path = path
        self.on_preview = on_preview
        self.on_keep = on_keep

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, Tuning)
        settings, done = self.settings, trainer.global_step
        if trainer.logger is not None and done % settings.log_every == 0:
            trainer.logger.log_metrics({"loss": pl_module.losses[-1]}, done)
        if done in settings.keep_steps:  # before the checkpoint, from which nobody would come back to it
            self.on_keep()
        if settings.checkpoint_every and done % settings.checkpoint_every == 0 and done < settings.steps:
            self._save(trainer)
        if self.on_preview is not None and settings.preview_every and done % settings.preview_every == 0:
            with torch.no_grad():
                self.on_preview(done)
            pl_module.method.scale = 1.0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        assert isinstance(pl_module, Tuning)
        asked = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        if asked and pl_module.is_whole and pl_module.losses:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        partial = self.path.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        partial.replace(self.path)


class _Progress(Callback):
    """Moves a bar that shows the loss and the time left."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self.bar = bar

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, Tuning)
        self.bar.set_postfix(loss=f"{pl_module.losses[-1]:.4f}", refresh=False)
        self.bar.update()


def _trainer(
    device: torch.device,
    settings: TrainingSettings,
    callbacks: list[Callback],
    logger: Logger | None,
    folder: Path,
) -> Trainer:
    return Trainer(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        max_epochs=-1,
        max_steps=settings.steps,
        callbacks=callbacks,
        logger=logger or False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _run(trainer: Trainer, module: Tuning, checkpoint: Path | None) -> None:
    """Fit, and let an interrupt out as what it was: Lightning makes it an exit."""
    try:
        # The steps' tensors depend on their number alone: there is nothing to load.
        trainer.fit(module, repeat(0), ckpt_path=checkpoint, weights_only=True)
    except SystemExit as exit:
        if isinstance(exit.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from exit
        raise


def _steps_done(path: Path, module: Tuning) -> int:
    """Read how far a checkpoint is, and see that it belongs to this training."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        found = checkpoint["fit"]["identity"]
    except (RuntimeError, UnpicklingError, EOFError, KeyError, TypeError) as error:
        # torch's own message would tell the user to load it as code.
        raise InputError(f"{path}: damaged: delete it to train from the start") from error
    own = module.identity()
    for name in sorted(own.keys() | found.keys()):
        if own.get(name) != found.get(name):
            raise InputError(
                f"{path} is of a training with {name}={found.get(name)}, this one has {own.get(name)}:"
                " use another folder, or delete it to train from the start"
            )
    return int(checkpoint["global_step"])


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep back Lightning's advertisements and its remarks on choices that are made on purpose here."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        try:
            yield
        finally:
            log.setLevel(level)
