import numpy as np
import pytest

from motionexp.data.shapes import grammar
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.errors import InputError


@pytest.fixture(scope="module")
def read():
    readers = {looks: ShapesReferences("tuning", looks) for looks in (1, 2, 4)}
    return lambda looks, name: readers[looks].read(name, 16, 64, 64)


def test_companions_move_alike_and_look_otherwise(read):
    for name in ShapesReferences("tuning").names():
        reference = read(4, name)
        videos = reference.trained_on
        assert len(videos) == 4
        path = reference.truth.truth(16)
        for attribute in grammar.ATTRIBUTES:
            assert len({video.truth.attributes[attribute] for video in videos}) == 4, attribute
        for video in reference.companions:
            own = video.truth.truth(16)
            assert np.allclose(own.velocity, path.velocity)
            assert np.allclose(own.angle - own.angle[0], path.angle - path.angle[0])
            assert video.truth.nuisances != reference.truth.nuisances
            assert video.truth.contrast == reference.truth.contrast
            assert video.caption == video.truth.caption
            assert video.frames.shape == reference.frames.shape
            looks = {key: video.truth.attributes[key] for key in grammar.ATTRIBUTES}
            assert not grammar.is_held_out(**looks)


def test_more_looks_keep_the_first_ones_and_the_reference_itself(read):
    name = ShapesReferences("tuning").names()[4]
    one, two, four = (read(looks, name) for looks in (1, 2, 4))
    assert one.companions == ()
    assert one.trained_hash == one.content_hash
    assert {each.content_hash for each in (one, two, four)} == {one.content_hash}
    assert len({each.trained_hash for each in (one, two, four)}) == 3
    assert two.companions[0].content_hash == four.companions[0].content_hash
    assert ("appearances" in one.strata, two.strata["appearances"], four.strata["appearances"]) == (
        False,
        "2",
        "4",
    )
    assert two.edits == one.edits


def test_there_are_as_many_looks_as_the_world_has():
    with pytest.raises(InputError, match=r"data.appearances=5: a whole number from 1 to 4"):
        ShapesReferences("tuning", 5)
