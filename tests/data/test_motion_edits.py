import numpy as np
import pytest

from motionexp.data.shapes import grammar
from motionexp.data.shapes.scenes import edited
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.data.shapes.variants import other_motions


@pytest.mark.parametrize("split", ["tuning", "benchmark"])
def test_one_edit_changes_the_motion_words_and_nothing_else(split):
    reader = ShapesReferences(split)
    for name in reader.names()[::7]:
        reference = reader.read(name, 16, 64, 64)
        (edit,) = reference.motion_edits
        assert edit.kind == "motion"
        own = reference.truth.attributes
        assert {key for key, value in edit.truth.items() if value != own[key]} == {"motion"}
        assert grammar.OBJECT_PHRASES[edit.truth["motion"]] in edit.caption
        assert edit.caption != reference.caption
        looks = {word for values in grammar.ATTRIBUTES.values() for word in values}
        assert set(edit.caption.split()) & looks == set(reference.caption.split()) & looks


def test_the_new_motion_is_clearly_another():
    for name in ShapesReferences("benchmark").names()[::9]:
        scene = ShapesReferences("benchmark").read(name).truth
        own = scene.truth(16).velocity.ravel()
        for motion in other_motions(scene):
            new = edited(scene, {"motion": motion}).truth(16).velocity.ravel()
            if np.linalg.norm(new) * np.linalg.norm(own) > 0:
                assert np.dot(own, new) / np.linalg.norm(own) / np.linalg.norm(new) < 0.3


def test_the_edit_is_the_same_each_time():
    reader = ShapesReferences("tuning")
    name = reader.names()[0]
    edits = reader.read(name, 16, 64, 64).motion_edits
    assert edits == reader.read(name, 17, 64, 64).motion_edits
    assert edits[0].caption == "a cyan striped square grows on water"
