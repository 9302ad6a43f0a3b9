"""Which references a job takes, and the reader of their suite. Imports no torch."""

from collections.abc import Sequence
from typing import Any

from hydra.utils import get_object

from motionexp.config.schema import JobConfig, ScoreConfig, wanted_references
from motionexp.data.base import References
from motionexp.errors import InputError


def select_references(references: Any, names: Sequence[str]) -> list[str]:
    """The names that `references=` selects: the first N of `names`, or the ones that it lists.

    Raises:
        InputError: N is larger than the number of names, or a listed name is not among them.
    """
    if isinstance(references, int):
        if references > len(names):
            raise InputError(f"references={references}: there are {len(names)}")
        return list(names[:references])
    chosen = [references] if isinstance(references, str) else list(references)
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise InputError(f"references: no {', '.join(unknown)}; `python run.py list references` names all")
    return chosen


def subjects_of(cfg: JobConfig) -> tuple[list[str], int]:
    """The names of a job's references, and the number of edits of the first, which counts for all."""
    reader = make_reader(cfg)
    names = reader.names()
    names = select_references(wanted_references(cfg, len(names)), names)
    kinds = [edit.kind for edit in reader.describe(names[0]).edits]
    if cfg.edits is not None:
        return names, len(cfg.edits)
    return names, len([kind for kind in kinds if cfg.edit_kinds is None or kind in cfg.edit_kinds])


def check_source(cfg: JobConfig) -> None:
    """Check that the references exist, and that the clip of `video=` can be read.

    Raises:
        InputError: names the reference, or what is wrong with the clip.
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
