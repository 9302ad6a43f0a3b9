"""Where the loss of a training goes: a CSV file, TensorBoard or Weights & Biases."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from motionexp.errors import InputError

LOGGERS = ("csv", "tensorboard", "wandb")


def make_logger(name: str, folder: Path, config: Mapping[str, Any]) -> Logger:
    """Return a logger that writes below `folder` and knows the run's config.

    Args:
        name: csv, tensorboard or wandb. wandb is offline unless the environment's WANDB_MODE says otherwise;
            its run is the caller's to finish (`logger.experiment.finish()`).
        folder: made if needed.
        config: plain values, shown beside the curves.

    Raises:
        InputError: another name.
    """
    if name not in LOGGERS:
        raise InputError(f"logger={name}: one of {', '.join(LOGGERS)}")
    folder.mkdir(parents=True, exist_ok=True)
    if name == "wandb":
        import wandb

        run = wandb.init(
            project="motionexp",
            dir=folder,
            config=dict(config),
            mode=None if "WANDB_MODE" in os.environ else "offline",
            reinit="create_new",
            settings=wandb.Settings(console="off", x_disable_stats=True, silent=True),
        )
        run.define_metric("*", step_metric="trainer/global_step")
        return WandbLogger(experiment=run)
    if name == "csv":
        logger = CSVLogger(folder, name=name)
    else:
        logger = TensorBoardLogger(folder, name=name, default_hp_metric=False)
    logger.log_hyperparams(dict(config))
    return logger
