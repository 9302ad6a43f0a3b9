"""Lightning's trainer, as the training of a method needs it: on one device, or on several ranks."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor

from motionexp.config.imports import without
from motionexp.diffusion import ranks
from motionexp.diffusion.backbone import Backbone
from motionexp.methods.base import TrainingSettings
from motionexp.methods.checkpoints import SealedFile

with without("matplotlib", "torchvision", "scipy"):  # torchmetrics imports them, for metrics and pictures
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, ParallelStrategy


class SharedDraws(DDPStrategy):
    """Data parallelism in which the module averages the gradients itself, once a step.

    PyTorch's wrapper allows one backward pass a step, and a gradient for every parameter in each. What is
    trained here is small beside the network, so that nothing is gained by averaging it in parts.
    """

    def configure_ddp(self) -> None:
        """Leave the module without PyTorch's wrapper."""


class ShardedNetwork(ModelParallelStrategy):
    """Lightning's parallelism of models, for a frozen network that is sharded already, on the network's mesh.

    What trains is whole on each rank, as in `SharedDraws`. So a training is saved, continued and ended as any
    parallel training is. Lightning's own ways are for a module that is sharded itself: they do not write by
    `SealedFile`, and leave the optimizer's tensors on the device.
    """

    def __init__(self, network: nn.Module) -> None:
        mesh = next(weight.device_mesh for weight in network.parameters() if isinstance(weight, DTensor))
        super().__init__(data_parallel_size=mesh.size(), tensor_parallel_size=1)
        self._device_mesh = mesh

    def setup_environment(self) -> None:
        """Keep the network's mesh: a mesh of its own would leave a process group open after each training."""
        self._setup_distributed()
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = self.device_mesh

    # Without some of these a resumed training goes on from a new adapter or optimizer, without an error.
    save_checkpoint = ParallelStrategy.save_checkpoint
    load_checkpoint = ParallelStrategy.load_checkpoint
    lightning_module_state_dict = ParallelStrategy.lightning_module_state_dict
    load_model_state_dict = ParallelStrategy.load_model_state_dict
    optimizer_state = ParallelStrategy.optimizer_state
    load_optimizer_state_dict = ParallelStrategy.load_optimizer_state_dict
    lightning_restore_optimizer = ParallelStrategy.lightning_restore_optimizer
    teardown = ParallelStrategy.teardown


def make_trainer(backbone: Backbone, settings: TrainingSettings, callback: Callback) -> Trainer:
    """A trainer of `settings.steps` steps, which writes no files of its own."""
    # The environment is named, because under Slurm the trainer would requeue the job itself.
    plugins = [SealedFile(), LightningEnvironment()]
    device = backbone.device
    spread: dict[str, Any] = {"devices": 1 if device.index is None else [device.index]}
    if ranks.size() > 1:
        count = ranks.on_node()[1]
        strategy = ShardedNetwork(backbone.network) if backbone.sharded else SharedDraws()
        spread = {"devices": count, "num_nodes": ranks.size() // count, "strategy": strategy}
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
