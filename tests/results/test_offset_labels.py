"""Labels of crowded points."""

import numpy as np
import pytest

from motionexp.results.figures.points import LABEL, MARKER, offsets

SIZE = np.array([130.0, 120.0])


def crowds():
    stream = np.random.RandomState(0)
    yield np.array([[65.0, 60.0]] * 3), "three on one place"
    yield np.array([[3.0, 3.0], [127.0, 117.0], [3.0, 117.0]]), "in the corners"
    yield stream.normal([65, 100], [4, 3], (8, 2)), "a blot below the upper edge"
    yield stream.uniform(20, 100, (18, 2)), "all over"


@pytest.mark.parametrize(("points", "what"), list(crowds()))
def test_labels_are_off_each_other_and_off_all_points_and_inside(points, what):
    labels = points + offsets(points, SIZE)
    assert np.all((labels >= LABEL / 2) & (labels <= SIZE - LABEL / 2)), what
    for number, label in enumerate(labels):
        assert np.any(np.abs(np.delete(labels, number, axis=0) - label) >= LABEL, axis=1).all(), what
        assert np.any(np.abs(points - label) >= (LABEL + MARKER) / 2, axis=1).all(), what


def test_a_lone_label_is_close_above_to_the_right():
    ((x, y),) = offsets(np.array([[65.0, 60.0]]), SIZE)
    assert x > 0 < y
    assert np.hypot(x, y) < 10


def test_the_same_points_have_the_same_labels():
    points = next(iter(crowds()))[0]
    assert np.array_equal(offsets(points, SIZE), offsets(points.copy(), SIZE))
