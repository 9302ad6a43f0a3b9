"""The ranks of a job: processes, one a device, that share its training and its sampling. Imports no torch."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from motionexp.config.schema import JobConfig, TrainerConfig
from motionexp.config.settings import setting_problems, settings_in
from motionexp.config.targets import class_value
from motionexp.errors import InputError

# Names of the variables with a process's number, all processes, and its number on its node.
OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
OF_SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")


# A GPU has one of these files: NVIDIA's driver, Windows' Linux, AMD's driver, or a Jetson.
OF_GPUS = ("nvidia0", "nvidiactl", "dxg", "kfd", "nvhost-gpu", "nvmap")


class Rank(NamedTuple):
    """One process of several: its number from 0, how many there are, and its number on its node."""

    number: int
    size: int
    on_node: int


def rank_of(trainer: TrainerConfig, environment: Mapping[str, str] = os.environ) -> Rank | None:
    """This process's rank, where torchrun or Slurm's srun has started all of them; None: nobody has yet.

    A job of one process takes no notice of the environment: a sweep may run several of them side by side.
    """
    if trainer.ranks == 1:
        return None
    for names in (OF_TORCHRUN, OF_SRUN):
        texts = [environment.get(name, "") for name in names]
        if all(text.isdecimal() for text in texts) and (names == OF_TORCHRUN or int(texts[1]) > 1):
            return Rank(*map(int, texts))
    return None


def trainer_problems(cfg: JobConfig) -> Iterator[str]:
    """What is wrong with `trainer.`, one sentence a problem, as far as it shows without torch."""
    trainer = cfg.trainer
    problems = list(setting_problems(trainer, "trainer."))
    yield from problems
    if problems:
        return
    most = int(settings_in(JobConfig)["batch_size"].high)
    if cfg.batch_size <= most < (draws := trainer.draws(cfg.batch_size)):
        yield f"batch_size={cfg.batch_size}: {draws} draws in a step, in all; at most {most}"
    size = trainer.ranks
    if size > 1 and cfg.probe is not None:
        yield f"trainer.devices={trainer.devices}: probe={cfg.probe} runs on one device; leave it out"
    if size > 1 and cfg.retry is not None:
        yield f"retry={cfg.retry}: only with one rank, and the job has {size}; leave it out"
    if size > 1 and ":" in cfg.device:
        kind = cfg.device.partition(":")[0]
        yield f"device={cfg.device}: one GPU alone, and the job has {size} ranks; write device={kind}"
    if trainer.strategy == "fsdp":
        yield from _sharding_problems(cfg)


def _sharding_problems(cfg: JobConfig) -> Iterator[str]:
    """What does not suit a network of which each rank holds a part."""
    if cfg.trainer.ranks == 1:
        yield "trainer.strategy=fsdp: one device holds all; set trainer.devices=, or leave it out"
    if cfg.offload not in (None, "none"):
        where = f"with offload={cfg.offload} the network is in main memory"
        yield f"trainer.strategy=fsdp: {where}; leave out one of both"
    model, method = str(cfg.model._target_).rpartition(".")[0], str(cfg.method["_target_"])
    try:
        shardable = class_value(model, "shardable", cfg.plugins)
        takes_sharded = class_value(method, "takes_sharded", cfg.plugins)
    except InputError:
        return  # which is a problem of its own
    if not shardable:
        yield f"trainer.strategy=fsdp: model={cfg.model.name} cannot be sharded; take trainer.strategy=ddp"
    elif not takes_sharded and cfg.adapter is None and cfg.tau != 1000:
        name = method.rpartition(".")[-1]
        yield f"trainer.strategy=fsdp: {name} needs whole weights; take method=lora, or trainer.strategy=ddp"


def check_ranks(cfg: JobConfig, environment: Mapping[str, str] = os.environ) -> None:
    """Check that the processes and GPUs that `trainer.` asks for are there, as far as it shows without torch.

    Raises:
        InputError: names what there is.
    """
    trainer, rank = cfg.trainer, rank_of(cfg.trainer, environment)
    if rank is not None and rank.size != trainer.ranks:
        raise InputError(
            f"trainer.devices={trainer.devices} trainer.num_nodes={trainer.num_nodes}: {rank.size} processes"
            " were started; their product must be that number"
        )
    if rank is None and trainer.num_nodes > 1:
        raise InputError(
            f"trainer.num_nodes={trainer.num_nodes}: start the command on every node, with srun or torchrun,"
            f" {trainer.devices} times each; this process was started alone"
        )
    count = None if cfg.device == "cpu" else visible_gpus(environment)
    if count is not None and trainer.devices > max(1, count):
        raise InputError(too_many_devices(trainer.devices, count))


def too_many_devices(devices: int, count: int) -> str:
    """The error about more GPUs than a machine has."""
    gpus = "1 GPU" if count == 1 else f"{count or 'no'} GPUs"
    hint = "" if count else ", or device=cpu for processes on its cores"
    return f"trainer.devices={devices}: this machine has {gpus}; at most {max(count, 1)}{hint}"


def visible_gpus(environment: Mapping[str, str] = os.environ, folder: Path = Path("/dev")) -> int | None:
    """How many GPUs for CUDA this process may use; None where only torch can tell."""
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return len([word for word in listed.split(",") if word.strip() not in ("", "-1")])
    count = sum(re.fullmatch(r"nvidia\d+", path.name) is not None for path in folder.glob("nvidia*"))
    if count or not sys.platform.startswith("linux"):
        return count or None
    return None if any((folder / name).exists() for name in OF_GPUS) else 0
