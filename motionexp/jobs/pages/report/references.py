"""The references of a report: what they show, and their frames, read again from where they came."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motionexp.data.base import Reference
from motionexp.errors import InputError
from motionexp.files import file_name
from motionexp.jobs.pages.report.commands import UNUSUAL, stored_settings
from motionexp.jobs.pages.report.samples import ShownSample
from motionexp.jobs.references import reference_of_row


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
    if data is None:
        raise InputError("the settings of its cell are not there")
    try:
        return reference_of_row(data, row.settings, row)
    except InputError:
        raise
    except UNUSUAL as error:
        raise InputError(f"the settings of its cell are not those of a job ({error!r:.80})") from error
