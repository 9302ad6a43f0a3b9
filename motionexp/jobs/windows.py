"""The windows of a job: the one that a method is trained at, and the one that it acts at while sampling."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from motionexp.config.memory import BITS
from motionexp.diffusion.schedule import EVERYWHERE, Window
from motionexp.errors import InputError
from motionexp.jobs.plan import BackboneSettings
from motionexp.methods.adapters import attach_adapter
from motionexp.methods.external_lora import ExternalLoRA


class TunedWindow(NamedTuple):
    """What a method is tuned at.

    Attributes:
        window: the timesteps of its training.
        span: those of the networks that are tuned; see `TuningMethod.span`.
        method: its name.
        note: on a stored adapter's file; else empty.
    """

    window: Window
    span: Window
    method: str
    note: str = ""


def given_window(low: float, high: float, knots: Sequence[Sequence[float]] | None) -> Window:
    """The timesteps of a training, by `tau=`, `tau_high=` and `soft_window=`."""
    return Window(low, max(high, low), tuple((t, weight) for t, weight in knots or []))


def stored_window(
    adapter: Path, settings: BackboneSettings, low: float | None, high: float, plugins: Sequence[str]
) -> TunedWindow:
    """The window that a stored adapter was trained at.

    Args:
        adapter: its file or folder.
        settings: of the backbone.
        low, high: `tau=` and `tau_high=`, which may narrow the window; None: as stored.
        plugins: packages that may define the method.

    Raises:
        InputError: the adapter cannot be used with the model.
    """
    narrowed = None if low is None else Window(low)
    # Attached to a backbone on the meta device: the job's own network is loaded after the text encoder.
    meta = settings.make(torch.device("meta"))
    method = attach_adapter(adapter, meta, narrowed, plugins, default_window=EVERYWHERE)
    method.remove()
    if settings.sharded and not method.takes_sharded:
        raise InputError(
            f"trainer.strategy=fsdp: adapter={adapter} is {method.name}, which needs whole weights; take"
            " trainer.strategy=ddp"
        )
    if settings.network_precision in BITS and not method.takes_sharded:
        raise InputError(
            f"network_precision={settings.network_precision}: adapter={adapter} is {method.name}, which needs"
            " whole weights; take network_precision=fp8 or auto"
        )
    stored = method.window
    note = f"adapter={adapter}: {method.note}" if isinstance(method, ExternalLoRA) else ""
    if low is not None or high < stored.high:
        low = stored.low if low is None else low
        stored = Window(low, max(low, min(stored.high, high)))
    return TunedWindow(stored, method.span, method.name, note)


def sampling_window(trained: Window, low: float | None, high: float | None) -> Window:
    """The timesteps that the method acts at while sampling: a hard window if it is not the trained one.

    Args:
        trained: the window of the training.
        low, high: `sampling_tau=` and `sampling_tau_high=`; None: as trained.
    """
    if low is None and high is None:
        return trained
    return Window(trained.low if low is None else low, trained.high if high is None else high)
