import numpy as np
import pytest

from motionexp.data.shapes import grammar
from motionexp.data.shapes.motion_edits import MotionEdits, other_motions
from motionexp.data.shapes.scenes import edited
from motionexp.data.shapes.splits import ShapesReferences


@pytest.mark.parametrize("split", ["tuning", "benchmark"])
def test_one_edit_changes_the_motion_words_and_nothing_else(split):
    own, moved = ShapesReferences(split), MotionEdits(split)
    assert moved.names() == own.names()
    assert moved.suite == own.suite
    for name in own.names()[::7]:
        before, after = own.read(name, 16, 64, 64), moved.read(name, 16, 64, 64)
        assert after.content_hash == before.content_hash
        (edit,) = after.edits
        assert edit.kind == "motion"
        changed = {key for key, value in edit.truth.items() if value != before.truth.attributes[key]}
        assert changed == {"motion"}
        assert grammar.OBJECT_PHRASES[edit.truth["motion"]] in edit.caption
        assert edit.caption != before.caption
        words = set(edit.caption.split()) & {
            word for values in grammar.ATTRIBUTES.values() for word in values
        }
        assert words == set(before.caption.split()) & {w for v in grammar.ATTRIBUTES.values() for w in v}


def test_the_new_motion_is_clearly_another():
    for name in ShapesReferences("benchmark").names()[::9]:
        scene = ShapesReferences("benchmark").read(name).truth
        own = scene.truth(16).velocity.ravel()
        for motion in other_motions(scene):
            new = edited(scene, {"motion": motion}).truth(16).velocity.ravel()
            if np.linalg.norm(new) * np.linalg.norm(own) > 0:
                assert np.dot(own, new) / np.linalg.norm(own) / np.linalg.norm(new) < 0.3


def test_the_edit_is_the_same_each_time():
    reader = MotionEdits("tuning")
    name = reader.names()[0]
    assert reader.read(name, 16, 64, 64).edits == reader.read(name, 17, 64, 64).edits
