"""What happens between the steps of a training: losses are shown, checkpoints saved, callers called."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from motionexp.config.imports import without
from motionexp.diffusion import ranks
from motionexp.methods.base import TrainingSettings
from motionexp.methods.stopping import Stop

with without("matplotlib", "torchvision", "scipy"):  # torchmetrics imports them, for metrics and pictures
    from lightning.pytorch import Callback, LightningModule, Trainer

if TYPE_CHECKING:
    from motionexp.methods.training import Tuning


class BetweenSteps(Callback):
    """Shows losses, saves checkpoints and calls `on_step`, `on_preview` and `on_keep` after a step."""

    def __init__(
        self,
        settings: TrainingSettings,
        path: Path | None,
        on_step: Callable[[int, float], None] | None,
        on_preview: Callable[[int], None] | None,
        on_keep: Callable[[], None],
        bar: Any,
        stop: Stop,
    ) -> None:
        self.settings = settings
        self.path = path
        self.on_step = on_step if ranks.is_first() else None
        self.on_preview = on_preview
        self.on_keep = on_keep
        self.bar = bar
        self.stop = stop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast("Tuning", pl_module)
        self.stop.postpone()  # here, because the trainer has set handlers of its own before
        for done, loss in enumerate(module.losses, start=1):
            if self.on_step is not None:
                self.on_step(done, float(np.mean(loss)))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        module = cast("Tuning", pl_module)
        settings, done = self.settings, trainer.global_step
        if self.on_step is not None:
            self.on_step(done, module.last_loss)
        if done in settings.keep_steps:  # before the checkpoint: a run resumed from it would skip this call
            self.on_keep()
        # Not after the last step: `on_train_end` saves it.
        if settings.checkpoint_every and done % settings.checkpoint_every == 0 and done < settings.steps:
            self._save(trainer)
        if self.on_preview is not None and settings.preview_every and done % settings.preview_every == 0:
            with torch.no_grad():
                self.on_preview(done)
            # A preview may have changed the scale; training is at 1.
            module.method.scale = 1.0
        self.bar.set_postfix(loss=f"{module.last_loss:.4f}", refresh=False)
        self.bar.update()
        self.stop.check()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        module = cast("Tuning", pl_module)
        is_interrupt = isinstance(exception, KeyboardInterrupt | SystemExit)
        # Other errors save nothing: their state may be the cause.
        if is_interrupt and module.is_consistent and module.losses:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if self.path is not None:
            trainer.save_checkpoint(self.path)
