"""The jobs of a report that takes several models in turn."""

import sys
from collections.abc import Callable, Iterator, Sequence

from omegaconf import OmegaConf

from motionexp.config.compose import CONF, options
from motionexp.config.schema import BUNDLED, JobConfig
from motionexp.hub import BUNDLED_PREFIX


def jobs_of(arguments: Sequence[str], settings_of: Callable[[Sequence[str]], JobConfig]) -> list[JobConfig]:
    """Settings for each model of `model=NAME,NAME`, or for every bundled one where none is named.

    Args:
        arguments: overrides of a job.
        settings_of: makes settings of them, with the report's own defaults.

    Raises:
        InputError: what `settings_of` finds, for any of the models.
    """
    return [settings_of(each) for each in _with_models(arguments)]


def _with_models(arguments: Sequence[str]) -> Iterator[list[str]]:
    """A bundled model whose weights are not there is said on stderr and left out."""
    named = [each.removeprefix("model=") for each in arguments if each.startswith("model=")]
    rest = [each for each in arguments if not each.startswith("model=")]
    if named:
        yield from ([f"model={name}", *rest] for name in named[-1].split(","))
    elif any(each.startswith("model.") for each in rest):
        yield rest
    else:
        yield from ([f"model={name}", *rest] for name in _bundled())


def _bundled() -> Iterator[str]:
    for name in options("model"):
        path = str(OmegaConf.select(OmegaConf.load(CONF / "model" / f"{name}.yaml"), "path"))
        if not path.startswith(BUNDLED_PREFIX):
            continue
        folder = BUNDLED / path.removeprefix(BUNDLED_PREFIX)
        if (folder / "model_index.json").is_file():
            yield name
        else:
            print(f"model={name}: no weights in {folder} yet (make pretrain); skipped", file=sys.stderr)
