"""The references of a job, and those that chance is measured against."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from motionexp.config.images import takes_image
from motionexp.config.metrics import CHANCE_REFERENCES, needs_chance_references
from motionexp.config.schema import JobConfig
from motionexp.config.scoring import ScoringConfig
from motionexp.config.targets import check_allowed, check_room, node_problems, signature
from motionexp.config.yaml_file import read_yaml
from motionexp.data.base import Edit, FirstFrame, Reference, References
from motionexp.data.checks import shortened
from motionexp.data.select import make_reader, names_of
from motionexp.data.videos import read_image
from motionexp.errors import InputError, one_of
from motionexp.files import user_path
from motionexp.jobs.cell import read_fit_record
from motionexp.results.rows import Row

Size = tuple[int, int, int]  # of a video: frames, height, width
PROBED_KINDS = ("multiple", "motion")  # the whole appearance, and the motion: what a boundary takes


def read_references(cfg: JobConfig, reader: References, *, decode: bool = True) -> list[Reference]:
    """The job's references, with the captions of `edits=` if there are any.

    Without `decode` they have one black pixel: for a plan that needs names and captions alone.

    With a stored adapter and no named reference, it is the reference that the adapter was tuned on.

    Raises:
        InputError: a reference or an image does not exist or cannot be read, or the reference is not the one
            of the adapter, or edits have images that the model does not take, or lack those that it takes.
    """
    # Read before the references, for it is one file.
    image = _image_of(cfg)
    unnamed = cfg.adapter is not None and cfg.video is None and isinstance(cfg.references, int | None)
    tuned_on = _tuned_on(cfg, reader) if unnamed else None
    chosen = names_of(cfg, reader)
    read = _read if decode else _described
    references = [read(cfg, reader, name) for name in chosen] if tuned_on is None else [tuned_on]
    if cfg.edits is None:
        references = [replace(reference, edits=_chosen_edits(reference, cfg)) for reference in references]
    else:
        edits = tuple(Edit("caption", caption) for caption in dict.fromkeys(cfg.edits))
        references = [replace(reference, edits=edits) for reference in references]
    return [_with_images(reference, image, cfg) for reference in references]


def _image_of(cfg: JobConfig) -> FirstFrame | None:
    """The image of `image=`."""
    if cfg.image is None:
        return None
    size = cfg.model.height, cfg.model.width
    return FirstFrame(user_path(cfg.image).name, read_image(cfg.image, size))


def _with_images(reference: Reference, image: FirstFrame | None, cfg: JobConfig) -> Reference:
    """The reference whose edits have the image of `image=`, or else those of the suite; in a probe none.

    Raises:
        InputError: the model takes images and an edit has none, or the converse.
    """
    edits = [replace(edit, image=image or edit.image) for edit in reference.edits]
    if cfg.probe is not None:  # which conditions on the reference's own first frame
        return replace(reference, edits=tuple(replace(edit, image=None) for edit in edits))
    takes = takes_image(cfg.model, cfg.plugins)
    for edit in edits:
        if takes and edit.pixels is None:  # an image is read now, and not after hours of training
            raise InputError(
                f"reference {shortened(reference.name)}, edit {shortened(edit.caption)!r}: model="
                f"{cfg.model.name} makes videos that begin with a picture, and this edit has none: give all"
                " edits one in the file of captions, or by image=photo.png"
            )
        if not takes and edit.image is not None:
            raise InputError(
                f"reference {shortened(reference.name)}, edit {shortened(edit.caption)!r}: it has an image"
                f" ({shortened(edit.image.name)}), and model={cfg.model.name} makes videos of captions alone:"
                " take an image-to-video model, or another file of captions (data.captions=)"
            )
    return replace(reference, edits=tuple(edits))


def _chosen_edits(reference: Reference, cfg: JobConfig) -> tuple[Edit, ...]:
    """The edits of `edit_kinds=`. Its default is all edits, or those of PROBED_KINDS in a probe."""
    edits = reference.edits
    kinds: Collection[str] | None = cfg.edit_kinds
    if cfg.probe == "tampering":
        edits = (*edits, *reference.motion_edits)
    available = [edit.kind for edit in edits]
    if kinds is None and cfg.probe is not None and set(PROBED_KINDS) & set(available):
        kinds = PROBED_KINDS
    elif unknown := [kind for kind in kinds or () if kind not in available]:
        raise InputError(
            f"edit_kinds=[{','.join(unknown)}]: {one_of(unknown[0], dict.fromkeys(available))}, the kinds of"
            f" reference {reference.name}"
        )
    return tuple(edit for edit in edits if kinds is None or edit.kind in kinds)


def _read(cfg: JobConfig, reader: References, name: str) -> Reference:
    return reader.read(name, cfg.frames, cfg.model.height, cfg.model.width)


def _described(cfg: JobConfig, reader: References, name: str) -> Reference:
    """A reference whose video is not decoded, unless the suite has other ones for the frames of the job.

    The images of its edits are read: they are few, and their aspect can be wrong.
    """
    if reader.suite == "shapes" or not reader.long_enough(name, cfg.frames):
        return _read(cfg, reader, name)
    about = reader.describe(name)
    pixel = np.zeros((1, 1, 1, 3), np.uint8)
    edits = tuple(replace(edit, image=_of_size(edit.image, cfg)) for edit in about.edits)
    return Reference(name, reader.suite, pixel, cfg.model.fps, about.caption, edits, truth=about.truth)


def _of_size(image: FirstFrame | None, cfg: JobConfig) -> FirstFrame | None:
    """An edit's image, which is read in the size of the job's videos when it is first needed."""
    if image is None or image.file is None:
        return image
    return replace(image, source=partial(read_image, image.file, (cfg.model.height, cfg.model.width)))


def _tuned_on(cfg: JobConfig, reader: References) -> Reference | None:
    """The reference that a stored adapter was tuned on; None for an adapter of another trainer.

    Raises:
        InputError: the suite lacks that reference, or has another video of that name.
    """
    record = read_fit_record(user_path(cfg.adapter or ""))
    if not record:
        return None
    name = str(record["reference"])
    if record["suite"] == reader.suite and name in reader.names():
        reference = _read(cfg, reader, name)
        if record.get("reference_hash") in (None, reference.content_hash):
            return reference
    settings = "video= and caption=" if record["suite"] == "clip" else "data= and data.split="
    raise InputError(
        f"adapter={cfg.adapter}: it was tuned on {shortened(name)} ({shortened(record['suite'])}), and its"
        f" samples would be compared with another video: give that video again ({settings}), or name one"
        " (references=NAME)"
    )


def trained_together(references: Sequence[Reference], size: int) -> list[tuple[str, ...]]:
    """The hashes of the references that each reference is trained with: `size` of them after each other."""
    hashes = [reference.trained_hash for reference in references]
    return [tuple(hashes[place // size * size :][:size]) for place in range(len(hashes))]


def clip_in_words(cfg: JobConfig, clip: Reference) -> str:
    """Which part of a clip a job takes, in words."""
    end = cfg.start + len(clip.frames) / clip.fps
    return (
        f"{cfg.video}: {len(clip.frames)} frames, {clip.fps:g} a second, from {cfg.start:g} s to {end:g} s"
        " (start=, fps= and stride= choose others)"
    )


def chance_references(
    metrics: Sequence[str] | None,
    scoring: ScoringConfig,
    reader: References,
    size: Size,
    loaded: Collection[Reference] = (),
) -> list[Reference]:
    """The references that chance is measured against: the suite's first ones that are long enough.

    There are none if no metric has a level of chance. `loaded` ones, of this size, are not read again.
    """
    if not needs_chance_references(metrics) and not scoring.sanity_baselines:
        return []
    by_name = {reference.name: reference for reference in loaded}
    names = (name for name in reader.names() if reader.long_enough(name, size[0]))
    # One more than are needed: a reference is not compared with itself.
    return [by_name.get(name) or reader.read(name, *size) for name in islice(names, CHANCE_REFERENCES + 1)]


def stored_reference(cell: Path, row: Row) -> Reference:
    """The reference that a row's sample is of, read again as its job read it.

    Args:
        cell: the folder of the sample's cell, which holds the settings of its job.

    Raises:
        InputError: the cell has no settings, or as `reference_of_row`.
    """
    path = cell / "config.yaml"
    settings: Any = read_yaml(path) if path.is_file() else None
    try:
        return reference_of_row(settings["data"], settings, row)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (TypeError, LookupError, ValueError) as error:
        raise InputError(f"{path}: it has no settings of a job, by which the reference is read") from error


def reference_of_row(data: Any, settings: Mapping[str, Any], row: Row) -> Reference:
    """The reference that a row is of, by stored settings, which come from a file.

    Args:
        data: the settings of its reader.
        settings: with the frames and the model's size.

    Raises:
        InputError: code of a plugin would run, a setting cannot be used, or the video is another one now.
        LookupError, TypeError, ValueError: an entry is missing, or is none of settings.
    """
    target, data = str(data["_target_"]), dict(data)
    frames, size = settings["frames"], (settings["model"]["height"], settings["model"]["width"])
    # A file names the class: only this package's own readers may run.
    check_room(target, "motionexp.data", "data._target_")
    check_allowed(target)
    problems = [*node_problems("data", data, signature(target))]
    if not all(type(number) is int and number > 0 for number in (frames, *size)):
        problems.append("frames and size must be whole numbers")
    if problems:
        raise InputError(problems[0])
    reference = make_reader(data).read(row.reference, frames, *size)
    if row.reference_hash not in ("", reference.content_hash):
        raise InputError(
            f"the video or the caption of {row.reference} is another one now than its samples had"
        )
    return reference
