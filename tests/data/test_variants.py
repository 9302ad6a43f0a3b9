"""Variants of the bundled references: extra references, motion edits, captions of the nearest motion."""

import numpy as np
import pytest

from motionexp.data.shapes import grammar
from motionexp.data.shapes.scenes import edited
from motionexp.data.shapes.splits import (
    CaptionedReferences,
    DiTFlowPrompts,
    ShapesReferences,
    SimplifiedCaptions,
)
from motionexp.data.shapes.variants import other_motions
from motionexp.errors import InputError


@pytest.fixture(scope="module")
def read():
    readers = {count: ShapesReferences("tuning", count) for count in (1, 2, 4)}
    return lambda count, name: readers[count].read(name, 16, 64, 64)


def test_extra_references_share_the_motion_and_no_attribute(read):
    for name in ShapesReferences("tuning").names():
        reference = read(4, name)
        videos = reference.trained_on
        assert len(videos) == 4
        path = reference.truth.truth(16)
        for attribute in grammar.ATTRIBUTES:
            assert len({video.truth.attributes[attribute] for video in videos}) == 4, attribute
        for video in reference.extra_references:
            moved = video.truth.truth(16)
            assert np.allclose(moved.velocity, path.velocity)
            assert np.allclose(moved.angle - moved.angle[0], path.angle - path.angle[0])
            assert video.truth.nuisances != reference.truth.nuisances
            assert (video.truth.contrast, video.caption) == (reference.truth.contrast, video.truth.caption)
            assert video.frames.shape == reference.frames.shape
            appearance = {key: video.truth.attributes[key] for key in grammar.ATTRIBUTES}
            assert not grammar.is_held_out(**appearance)


def test_more_appearances_leave_the_first_ones_and_the_reference_as_they_are(read):
    name = ShapesReferences("tuning").names()[4]
    one, two, four = (read(count, name) for count in (1, 2, 4))
    assert one.extra_references == ()
    assert one.trained_hash == one.content_hash
    assert {reference.content_hash for reference in (one, two, four)} == {one.content_hash}
    assert len({reference.trained_hash for reference in (one, two, four)}) == 3
    assert two.extra_references[0].content_hash == four.extra_references[0].content_hash
    assert [reference.strata.get("appearances") for reference in (one, two, four)] == [None, "2", "4"]
    assert two.edits == one.edits
    with pytest.raises(InputError, match=r"data\.appearances=5: .* 4"):
        ShapesReferences("tuning", 5)


@pytest.mark.parametrize("split", ["tuning", "benchmark"])
def test_one_edit_changes_the_motion_words_and_nothing_else(split):
    reader = ShapesReferences(split)
    for name in reader.names()[::7]:
        reference = reader.read(name, 16, 64, 64)
        (edit,) = reference.motion_edits
        assert edit.kind == "motion"
        attributes = reference.truth.attributes
        assert {key for key, value in edit.truth.items() if value != attributes[key]} == {"motion"}
        assert grammar.OBJECT_PHRASES[edit.truth["motion"]] in edit.caption
        assert edit.caption != reference.caption
        words = {word for values in grammar.ATTRIBUTES.values() for word in values}
        assert set(edit.caption.split()) & words == set(reference.caption.split()) & words


def test_the_new_motion_is_clearly_another():
    for name in ShapesReferences("benchmark").names()[::9]:
        scene = ShapesReferences("benchmark").read(name).truth
        old = scene.truth(16).velocity.ravel()
        for motion in other_motions(scene):
            new = edited(scene, {"motion": motion}).truth(16).velocity.ravel()
            assert np.dot(old, new) <= 0.3 * np.linalg.norm(old) * np.linalg.norm(new)


def test_the_edit_is_the_same_each_time():
    reader = ShapesReferences("tuning")
    name = reader.names()[0]
    edits = reader.read(name, 16, 64, 64).motion_edits
    assert edits == reader.read(name, 17, 64, 64).motion_edits
    assert edits[0].caption == "a cyan striped square grows on water"


def test_only_the_motion_words_of_motions_without_caption_change():
    plain, named = ShapesReferences("tuning"), CaptionedReferences("tuning")
    assert named.names() == plain.names()
    changed = 0
    for name in plain.names():
        before, after = plain.read(name, 16, 64, 64), named.read(name, 16, 64, 64)
        assert after.content_hash == before.content_hash
        assert [edit.truth for edit in after.edits] == [edit.truth for edit in before.edits]
        if before.strata["motion"] == "captioned":
            assert (after.edits, after.strata) == (before.edits, before.strata)
            continue
        changed += 1
        assert after.strata == {**before.strata, "captions": "captioned"}
        for old, new in zip(before.edits, after.edits, strict=True):
            assert grammar.GENERIC_PHRASE in old.caption
            assert any(phrase in new.caption for phrase in grammar.OBJECT_PHRASES.values())
            assert new.caption != old.caption
    assert changed == 10


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("21-wander-violet-moon", "a moon is moving"),
        ("55-circle-clockwise-pink-star", "a star circles clockwise"),
        ("poster-67-zigzag-red-circle", "a circle is moving"),
    ],
)
def test_a_simplified_caption_names_shape_and_motion_and_edits_stay_whole(name, caption):
    whole, simple = ShapesReferences("benchmark").read(name), SimplifiedCaptions("benchmark").read(name)
    assert simple.caption == caption
    assert simple.edits == whole.edits
    assert np.array_equal(simple.frames, whole.frames)
    assert simple.strata == {**whole.strata, "captions": "simplified"}
    # Another caption makes another adapter.
    assert simple.content_hash != whole.content_hash


def test_ditflows_prompts_are_the_caption_another_subject_and_another_scene():
    plain, prompts = ShapesReferences("benchmark"), DiTFlowPrompts("benchmark")
    name = plain.names()[0]
    before, after = plain.read(name), prompts.read(name)
    edits = {edit.kind: edit for edit in before.edits}
    assert after.content_hash == before.content_hash
    assert [(edit.kind, edit.caption) for edit in after.edits] == [
        ("caption", before.caption),
        ("subject", edits["object"].caption),
        ("scene", edits["multiple"].caption),
    ]
    assert after.edits[0].truth == before.truth.attributes
    assert after.strata == {**before.strata, "prompts": "ditflow"}
