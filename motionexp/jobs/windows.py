"""The windows of a job: the one that a method is trained at, and the one that it acts at while sampling."""

from pathlib import Path

import torch

from motionexp.config.schema import JobConfig, method_name
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs.plan import BackboneSettings
from motionexp.methods.adapters import attach_adapter
from motionexp.methods.base import EVERYWHERE
from motionexp.methods.external_lora import ExternalLoRA


def given_window(cfg: JobConfig) -> Window:
    """The timesteps of a training, as the settings say."""
    knots = tuple((t, weight) for t, weight in cfg.soft_window or [])
    return Window(cfg.tau, max(cfg.tau_high, cfg.tau), knots)


def window_and_method(
    cfg: JobConfig, adapter: Path | None, settings: BackboneSettings
) -> tuple[Window, str, str]:
    """The window at which the method is trained, or was; the method's name; and a note on an adapter's file.

    The settings may narrow the window of a stored adapter.

    Raises:
        InputError: the adapter cannot be used with the model.
    """
    if adapter is None:
        return given_window(cfg), method_name(cfg.method), ""
    narrowed = None if cfg.tau is None else Window(cfg.tau)
    # Attached to a backbone on the meta device: the job's own network is loaded after the text encoder.
    meta = settings.make(torch.device("meta"))
    method = attach_adapter(adapter, meta, narrowed, cfg.plugins, default_window=EVERYWHERE)
    method.remove()
    if settings.sharded and not method.takes_sharded:
        raise InputError(
            f"trainer.strategy=fsdp: adapter={cfg.adapter} is {method.name}, which needs whole weights; take"
            " trainer.strategy=ddp"
        )
    stored = method.window
    note = f"adapter={cfg.adapter}: {method.note}" if isinstance(method, ExternalLoRA) else ""
    if cfg.tau is not None or cfg.tau_high < stored.high:
        low = stored.low if cfg.tau is None else cfg.tau
        stored = Window(low, max(low, min(stored.high, cfg.tau_high)))
    return stored, method.name, note


def sampling_window(trained: Window, low: float | None, high: float | None) -> Window:
    """The timesteps that the method acts at while sampling: a hard window if it is not the trained one.

    Args:
        trained: the window of the training.
        low, high: `sampling_tau=` and `sampling_tau_high=`; None: as trained.
    """
    if low is None and high is None:
        return trained
    return Window(trained.low if low is None else low, trained.high if high is None else high)
