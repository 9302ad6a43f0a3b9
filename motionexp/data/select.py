"""Which references a job takes, and the reader that has them. Imports no torch."""

from collections.abc import Sequence
from typing import Any

from hydra.utils import get_object

from motionexp.config.schema import JobConfig, wanted_references
from motionexp.config.score import ScoreConfig
from motionexp.data.base import References
from motionexp.errors import InputError


def select_references(wanted: Any, names: Sequence[str]) -> list[str]:
    """The names that `references=` stands for: the first so many of the suite's, or those that it names.

    Raises:
        InputError: more than there are, or a name that is not there.
    """
    if isinstance(wanted, int):
        if wanted > len(names):
            raise InputError(f"references={wanted}: there are {len(names)}")
        return list(names[:wanted])
    chosen = [wanted] if isinstance(wanted, str) else list(wanted)
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise InputError(f"references: no {', '.join(unknown)}; `python run.py list references` names all")
    return chosen


def subjects_of(cfg: JobConfig) -> tuple[list[str], int]:
    """The names of a job's references, and how many edits each has; as many of all as of the first."""
    reader = make_reader(cfg)
    names = reader.names()
    names = select_references(wanted_references(cfg, len(names)), names)
    kinds = [edit.kind for edit in reader.describe(names[0]).edits]
    if cfg.edits is not None:
        return names, len(cfg.edits)
    return names, len([kind for kind in kinds if cfg.edit_kinds is None or kind in cfg.edit_kinds])


def check_source(cfg: JobConfig) -> None:
    """See that the references exist, and that a clip of the user's own can be read.

    Raises:
        InputError: says what is wrong.
    """
    reader = make_reader(cfg)
    names = reader.names()
    names = select_references(wanted_references(cfg, len(names)), names)
    if cfg.video is not None:
        reader.read(names[0], cfg.frames, cfg.model.height, cfg.model.width)


def make_reader(cfg: JobConfig | ScoreConfig) -> References:
    """The suite that `data=` names."""
    arguments = dict(cfg.data)
    reader: References = get_object(arguments.pop("_target_"))(**arguments)
    return reader
