"""One video's motion, carried over to new captions.

The steps of a job, each loaded when it is first asked for: `load_backbone`, `encode` and `fit` (with a method
of `motionexp.methods`), `sample`, `score`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from motionexp.config.threads import settle_threads

if TYPE_CHECKING:
    from motionexp.backbones import load_backbone
    from motionexp.jobs.evaluation import sample, score
    from motionexp.jobs.job import encode
    from motionexp.methods.training import fit

__all__ = ["encode", "fit", "load_backbone", "sample", "score"]
_MODULES = {
    "encode": "motionexp.jobs.job",
    "fit": "motionexp.methods.training",
    "load_backbone": "motionexp.backbones",
    "sample": "motionexp.jobs.evaluation",
    "score": "motionexp.jobs.evaluation",
}

settle_threads()  # torch reads these settings once, when it is imported


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, which `--help` and the settings' checks should not wait for.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
