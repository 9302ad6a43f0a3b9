"""The bundled world's references with captions that name their motion as well as its words can: the floor."""

from dataclasses import dataclass, replace

from motionexp.data.base import Reference
from motionexp.data.shapes.splits import ShapesReferences, nearest_nameable_caption


@dataclass(frozen=True)
class NameableReferences:
    """`ShapesReferences` whose edits name the nameable motion nearest to the reference's, by ground truth.

    Sampled without tuning they are the row "best nameable caption". A reference whose own captions name its
    motion stays as it is; the others are of the stratum `captions: nameable`.

    Args:
        split: ``tuning`` or ``benchmark``.
    """

    split: str = "benchmark"

    @property
    def suite(self) -> str:
        """The suite's name: the videos are the same."""
        return self._own.suite

    @property
    def _own(self) -> ShapesReferences:
        return ShapesReferences(self.split)

    def names(self) -> list[str]:
        """Return the split's names in their fixed order."""
        return self._own.names()

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        """Render one reference, its edits' captions renamed."""
        reference = self._own.read(name, frames, height, width)
        edits = tuple(
            replace(edit, caption=nearest_nameable_caption(reference, edit)) for edit in reference.edits
        )
        if edits == reference.edits:
            return reference
        return replace(reference, edits=edits, strata={**reference.strata, "captions": "nameable"})
