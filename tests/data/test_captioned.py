from motionexp.data.shapes import grammar
from motionexp.data.shapes.splits import CaptionedReferences, ShapesReferences


def test_only_the_motion_words_of_unnamed_motions_change():
    own, named = ShapesReferences("tuning"), CaptionedReferences("tuning")
    assert named.names() == own.names()
    assert named.suite == own.suite
    changed = 0
    for name in own.names():
        before, after = own.read(name, 16, 64, 64), named.read(name, 16, 64, 64)
        assert after.content_hash == before.content_hash
        assert [edit.truth for edit in after.edits] == [edit.truth for edit in before.edits]
        if before.strata["motion"] == "captioned":
            assert after.edits == before.edits
            assert after.strata == before.strata
            continue
        changed += 1
        assert after.strata == {**before.strata, "captions": "captioned"}
        for old, new in zip(before.edits, after.edits, strict=True):
            assert grammar.GENERIC_PHRASE in old.caption
            assert any(phrase in new.caption for phrase in grammar.OBJECT_PHRASES.values())
            assert new.caption != old.caption
    assert changed == 10
