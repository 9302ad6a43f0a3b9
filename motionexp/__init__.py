"""One video's motion, carried over to new captions.

`import motionexp` alone imports no torch: the names of `__all__` are loaded when they are first asked for.
docs/python.md shows them at work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from motionexp.config.allocator import keep_freed_memory
from motionexp.config.threads import settle_threads

# ruff: noqa: F401  # the names are for type checkers; `__getattr__` loads them
if TYPE_CHECKING:
    from motionexp.backbones import load_backbone
    from motionexp.config.scoring_models import TGVE_MODELS
    from motionexp.data.base import Edit, FirstFrame
    from motionexp.data.clip import read_clip
    from motionexp.data.videos import write_mp4
    from motionexp.diffusion.sampling import SamplerSettings
    from motionexp.diffusion.schedule import Window
    from motionexp.errors import InputError
    from motionexp.jobs.evaluation import SampleSettings, sample, score
    from motionexp.jobs.job import encode
    from motionexp.jobs.summary import table
    from motionexp.methods.adapters import load_adapter, save_adapter
    from motionexp.methods.base import OptimizerSettings, TrainingSettings
    from motionexp.methods.full_rank import FullRank
    from motionexp.methods.lora import LoRA
    from motionexp.methods.training import fit
    from motionexp.methods.window_callback import window_callback
    from motionexp.metrics.scorer import Scorer
    from motionexp.results.rows import read_rows, to_frame

    __version__: str

_MODULES = {
    "Edit": "data.base",
    "FirstFrame": "data.base",
    "FullRank": "methods.full_rank",
    "InputError": "errors",
    "LoRA": "methods.lora",
    "OptimizerSettings": "methods.base",
    "SampleSettings": "jobs.evaluation",
    "SamplerSettings": "diffusion.sampling",
    "Scorer": "metrics.scorer",
    "TGVE_MODELS": "config.scoring_models",
    "TrainingSettings": "methods.base",
    "Window": "diffusion.schedule",
    "encode": "jobs.job",
    "fit": "methods.training",
    "load_adapter": "methods.adapters",
    "load_backbone": "backbones",
    "read_clip": "data.clip",
    "read_rows": "results.rows",
    "sample": "jobs.evaluation",
    "save_adapter": "methods.adapters",
    "score": "jobs.evaluation",
    "table": "jobs.summary",
    "to_frame": "results.rows",
    "window_callback": "methods.window_callback",
    "write_mp4": "data.videos",
}
__all__ = [*_MODULES]

settle_threads()  # torch reads these settings once, when it is imported
keep_freed_memory()


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, which `--help` and the settings' checks should not wait for.
    if name == "__version__":
        return import_module("motionexp.files").version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
