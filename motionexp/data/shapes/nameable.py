"""The bundled world's references with captions that name their motion as well as its words can: the floor."""

from dataclasses import replace

from motionexp.data.base import Reference
from motionexp.data.shapes.render import FRAMES, SIZE
from motionexp.data.shapes.splits import ShapesReferences, nearest_nameable_caption


class NameableReferences(ShapesReferences):
    """`ShapesReferences` whose edits name the nameable motion nearest to the reference's, by ground truth.

    Sampled without tuning they are the row "best nameable caption". A reference whose own captions name its
    motion stays as it is; the others are of the stratum `captions: nameable`.

    Args:
        split: ``tuning`` or ``benchmark``.
    """

    def read(self, name: str, frames: int = FRAMES, height: int = SIZE, width: int = SIZE) -> Reference:
        """Render one reference, its edits' captions renamed."""
        reference = super().read(name, frames, height, width)
        edits = tuple(
            replace(edit, caption=nearest_nameable_caption(reference, edit)) for edit in reference.edits
        )
        if edits == reference.edits:
            return reference
        return replace(reference, edits=edits, strata={**reference.strata, "captions": "nameable"})
