"""The references of a report: what they show, and their frames, read again from where they came."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.config.targets import check_allowed, check_room
from motionexp.data.base import Reference
from motionexp.data.select import make_reader
from motionexp.errors import InputError
from motionexp.files import file_name
from motionexp.jobs.report.commands import stored_settings
from motionexp.jobs.report.samples import ShownSample

DATA = "motionexp.data"


@dataclass(frozen=True)
class ShownReference:
    """A reference with all its samples.

    Attributes:
        suite, name: of the reference.
        samples: of its motion.
        reference: with its frames; None where they cannot be read.
        problem: why they cannot.
    """

    suite: str
    name: str
    samples: Sequence[ShownSample]
    reference: Reference | None = None
    problem: str = ""

    @property
    def page(self) -> str:
        """The name of its page, without its suffix."""
        return file_name(f"{self.suite}-{self.name}")

    @property
    def caption(self) -> str:
        """Of the reference; empty where it cannot be read."""
        return self.reference.caption if self.reference else ""

    @property
    def frames(self) -> np.ndarray | None:
        """(F, H, W, 3) uint8; None where they cannot be read."""
        return self.reference.frames if self.reference else None


def references_of(samples: Sequence[ShownSample]) -> list[ShownReference]:
    """The references of samples in the samples' order; what cannot be read of them says why."""
    by_name: dict[tuple[str, str], list[ShownSample]] = {}
    for sample in samples:
        by_name.setdefault((sample.row.suite, sample.row.reference), []).append(sample)
    references = []
    for (suite, name), of_reference in by_name.items():
        try:
            references.append(ShownReference(suite, name, of_reference, read_reference(of_reference)))
        except (InputError, OSError) as error:
            references.append(ShownReference(suite, name, of_reference, None, str(error)))
    return references


def read_reference(samples: Sequence[ShownSample]) -> Reference:
    """The reference of samples, as the settings of one of their cells name it.

    Raises:
        InputError: it cannot be read, or it is another video by now.
    """
    row = samples[0].row
    data = next((data for sample in samples if (data := stored_settings(sample).get("data"))), None)
    if not isinstance(data, dict) or "_target_" not in data:
        raise InputError("the settings of its cell are not there")
    # A file names the class: only this package's own readers may run.
    check_room(data["_target_"], DATA, "data._target_")
    check_allowed(data["_target_"], setting="data._target_")
    try:
        model, frames = row.settings["model"], row.settings["frames"]
        reference = make_reader(data).read(row.reference, frames, model["height"], model["width"])
    except (TypeError, LookupError, ValueError) as error:
        raise InputError(f"the settings of its cell are not those of a job ({error!r:.80})") from error
    if row.reference_hash and reference.content_hash != row.reference_hash:
        raise InputError("it is another video, or has another caption, than the one that was tuned on")
    return reference
