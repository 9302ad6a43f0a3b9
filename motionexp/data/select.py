"""The reader that `data=` selects, and the references that `references=` selects. Imports no torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_object

from motionexp.config.schema import PROBED_REFERENCES, JobConfig
from motionexp.data.base import References
from motionexp.data.checks import shortened
from motionexp.data.shapes.render import SIZE
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.data.videos import read_image
from motionexp.errors import InputError, nearest

LISTED = "`python run.py list references`, with your data= and data.path=, names all"


def select_references(references: Any, names: Sequence[str], *, probed: bool = False) -> list[str]:
    """The names of the first `references` references, or the names that `references` lists.

    "all": every reference of the suite. None: the first one, and of a job that probes the first six, or as
    many as there are.

    Raises:
        InputError: the suite has fewer references, or none of that name.
    """
    if references is None:
        return list(names[: PROBED_REFERENCES if probed else 1])
    if references == "all":
        return list(names)
    if isinstance(references, int):
        if references > len(names):
            raise InputError(f"references={references}: there are {len(names)}; {LISTED}")
        return list(names[:references])
    chosen = [references] if isinstance(references, str) else [str(name) for name in references]
    existing = set(names)
    if unknown := [name for name in chosen if name not in existing]:
        near = nearest(unknown[0], names)
        hint = f"did you mean {near}? " if near else ""
        raise InputError(f"references: no {shortened(', '.join(unknown))}; {hint}{LISTED}")
    return chosen


def names_of(cfg: JobConfig, reader: References) -> list[str]:
    """The names of a job's references. Raises InputError as `select_references`."""
    # The linear probe draws videos of its own, and `references=` counts their groups.
    references = 1 if cfg.probe == "linear_probe" else cfg.references
    return select_references(references, reader.names(), probed=cfg.probe is not None)


def subjects_of(cfg: JobConfig) -> tuple[list[str], int]:
    """The names of a job's references, and the number of edits of the first; all have the same number."""
    reader, names = _reader_and_names(cfg)
    # New captions replace the edits of every reference.
    if cfg.edits is not None:
        return names, len(cfg.edits)
    kinds = (edit.kind for edit in reader.describe(names[0]).edits)
    return names, sum(cfg.edit_kinds is None or kind in cfg.edit_kinds for kind in kinds)


def check_source(cfg: JobConfig) -> None:
    """Check that the references exist, that the model takes their size, and that clip and image can be read.

    Raises:
        InputError: a reference does not exist, the clip or the image cannot be read, or the model is one of
            real videos and no data are named.
    """
    reader, names = _reader_and_names(cfg)
    size = cfg.model.height, cfg.model.width
    if reader.suite == ShapesReferences.suite and size != (SIZE, SIZE):
        if cfg.probe == "linear_probe":  # which takes no other videos
            raise InputError(
                f"probe=linear_probe: it draws videos of {SIZE} x {SIZE} pixels, and model={cfg.model.name}"
                f" makes {size[1]} x {size[0]}: take a bundled model, or probe=tampering with data= or video="
            )
        run = f"`python run.py model={cfg.model.name}"
        raise InputError(
            f"model={cfg.model.name} is for real videos of {size[1]} x {size[0]} pixels, and the bundled"
            f" world has {SIZE} x {SIZE}: name data= or video=, as in {run} data=tgve data.path=DIR` for a"
            f' benchmark, or {run} video=my.mp4 caption="what it shows"'
            " edits='[\"what to show instead\"]'` for a clip"
        )
    if cfg.video is not None:
        reader.read(names[0], cfg.frames, cfg.model.height, cfg.model.width)
    if cfg.image is not None:
        read_image(cfg.image, (cfg.model.height, cfg.model.width))


def _reader_and_names(cfg: JobConfig) -> tuple[References, list[str]]:
    reader = make_reader(cfg.data)
    return reader, names_of(cfg, reader)


def make_reader(data: Mapping[str, Any]) -> References:
    """The reader of the suite that `data=` selects."""
    arguments = dict(data)
    reader: References = get_object(arguments.pop("_target_"))(**arguments)
    return reader
