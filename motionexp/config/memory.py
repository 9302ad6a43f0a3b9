"""What can be wrong with the settings that say how memory is used. Imports no torch."""

from collections.abc import Iterator
from importlib.util import find_spec

from motionexp.config.schema import JobConfig, trains
from motionexp.config.settings import settings_in
from motionexp.config.targets import class_value
from motionexp.errors import InputError, extra_command

QUANTIZER = "bitsandbytes"
BITS = {"8bit": 8, "4bit": 4}
"""Of a weight in a linear layer, the only ones that bitsandbytes quantizes."""
GROUPED = ("group", "group_stream")
"""The values of `offload=` with which blocks of the network wait in main memory one by one."""


def memory_problems(cfg: JobConfig) -> Iterator[str]:
    """What is wrong with the settings that say how memory is used, beside their choices."""
    about = settings_in(JobConfig)
    for name in ("text_precision", "network_precision"):
        if about[name].allows(getattr(cfg, name)):
            yield from bits_problems(name, getattr(cfg, name), computes=not cfg.dry_run)
    yield from device_problems(cfg.offload, cfg.network_precision, cfg.device)
    yield from _together_problems(cfg)


def bits_problems(name: str, precision: str, *, computes: bool) -> Iterator[str]:
    """What is wrong with a precision of the setting `name`.

    `computes`: whether weights of that precision are wanted, which needs a package; a plan is numbers alone.
    """
    about = settings_in(JobConfig)[name]
    if not about.allows(precision):
        yield f"{name}={precision}: {about.expected(precision)}"
    elif computes and precision in BITS and find_spec(QUANTIZER) is None:
        yield (
            f"{name}={precision}: it needs the package {QUANTIZER}, which is not installed:"
            f" {extra_command('quantized')}; or leave it at auto"
        )


def device_problems(offload: str | None, network_precision: str, device: str) -> Iterator[str]:
    """What a device cannot do: the one of the settings, or the kind that `auto` has become."""
    kind = device.partition(":")[0]
    if offload not in (None, "none") and kind not in ("cuda", "auto"):
        stream = " and no streams" if offload == "group_stream" else ""
        yield f"offload={offload}: device={kind} has no memory of its own{stream}; leave it out"
    if network_precision != "auto" and kind == "mps":
        yield (
            f"network_precision={network_precision}: device=mps has no such numbers; take device=cuda or"
            " cpu, or leave it out"
        )


def _together_problems(cfg: JobConfig) -> Iterator[str]:
    """What does not go together."""
    grouped = cfg.offload in GROUPED
    few = f"network_precision={cfg.network_precision}"
    if cfg.checkpointing is False and (grouped or cfg.network_precision == "fp8"):
        first = f"offload={cfg.offload}" if grouped else few
        yield (
            f"checkpointing=false: with {first} a block's weights are there only while it computes, and the"
            " backward pass computes it again; leave checkpointing= out"
        )
    if cfg.network_precision in BITS and cfg.offload not in (None, "none"):
        yield f"offload={cfg.offload}: with {few} the network stays on the GPU; leave out one of both"
    if cfg.network_precision != "auto" and cfg.trainer.strategy == "fsdp":
        yield f"{few}: trainer.strategy=fsdp shares out weights of one precision; leave out one of both"
    if cfg.network_precision in BITS and trains(cfg):
        yield from _method_problems(cfg, few)


def _method_problems(cfg: JobConfig, few: str) -> Iterator[str]:
    method = str(cfg.method["_target_"])
    try:
        takes_shapes = class_value(method, "takes_sharded", cfg.plugins)
    except InputError:
        return  # which is a problem of its own
    if not takes_shapes:
        name = method.rpartition(".")[-1]
        yield f"{few}: {name} needs whole weights; take method=lora, or network_precision=fp8"
