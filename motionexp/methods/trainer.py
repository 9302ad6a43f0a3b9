"""Lightning's trainer, as the training of a method needs it: on one device, or on several ranks."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from motionexp.config.imports import without
from motionexp.diffusion import ranks
from motionexp.methods.base import TrainingSettings
from motionexp.methods.checkpoints import SealedFile

with without("matplotlib", "torchvision", "scipy"):  # torchmetrics imports them, for metrics and pictures
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy


class SharedDraws(DDPStrategy):
    """Data parallelism in which the module averages the gradients itself, once a step.

    PyTorch's wrapper allows one backward pass a step, and a gradient for every parameter in each. What is
    trained here is small beside the network, so that nothing is gained by averaging it in parts.
    """

    def configure_ddp(self) -> None:
        """Leave the module without PyTorch's wrapper."""


def make_trainer(device: torch.device, settings: TrainingSettings, callback: Callback) -> Trainer:
    """A trainer of `settings.steps` steps, which writes no files of its own."""
    # The environment is named, because under Slurm the trainer would requeue the job itself.
    plugins = [SealedFile(), LightningEnvironment()]
    spread: dict[str, Any] = {"devices": 1 if device.index is None else [device.index]}
    if ranks.size() > 1:
        count = ranks.on_node()[1]
        spread = {"devices": count, "num_nodes": ranks.size() // count, "strategy": SharedDraws()}
    return Trainer(
        accelerator=device.type,
        **spread,
        # Only steps count: the data loader has no end.
        max_epochs=-1,
        max_steps=settings.steps,
        callbacks=callback,
        plugins=plugins,
        logger=False,
        # This module writes its own checkpoints and its own bar; Lightning's would be second ones.
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advertisements, and its remarks on deliberate choices of this module."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        # Also where the command was meant to run beside a Slurm that is installed.
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        try:
            yield
        finally:
            log.setLevel(level)
