"""Contact sheets and grids, pixel by pixel."""

import numpy as np
import pytest

from motionexp.data.videos import contact_sheet, side_by_side
from motionexp.data.videos.grids import _font
from tests.support.made_videos import moving


def test_contact_sheet_has_each_frame_in_its_place_with_white_between():
    frames = moving(5, 20, 30)
    sheet = contact_sheet(frames, columns=3)
    assert sheet.shape == (20 + 2 + 20, 30 * 3 + 2 * 2, 3)
    left = np.ones(sheet.shape[:2], bool)
    for index, frame in enumerate(frames):
        y, x = 22 * (index // 3), 32 * (index % 3)
        assert np.array_equal(sheet[y : y + 20, x : x + 30], frame)
        left[y : y + 20, x : x + 30] = False
    assert (sheet[left] == 255).all()
    assert np.array_equal(contact_sheet(frames[:1]), frames[0])


def test_side_by_side_enlarges_tiny_videos_without_smoothing_and_labels_them():
    one, other = moving(6), moving(6)[::-1]
    grid = side_by_side([("a red ball", [one, other]), ("", [other, one])], ["reference", "τ = 0"])
    assert grid.shape[0] == 6
    found = []
    for video in (one, other):
        enlarged = np.kron(video, np.ones((1, 3, 3, 1), np.uint8))
        places = [(y, x) for y in range(grid.shape[1] - 191) for x in (8, 208)]
        likely = [(y, x) for y, x in places if np.array_equal(grid[0, y, x : x + 192], enlarged[0, 0])]
        found.append(
            [(y, x) for y, x in likely if np.array_equal(grid[:, y : y + 192, x : x + 192], enlarged)]
        )
    (y1, _), (y2, _) = found[0]
    assert found == [[(y1, 8), (y2, 208)], [(y1, 208), (y2, 8)]]
    assert y2 == y1 + 192 + 8
    assert grid.shape[1:3] == (y2 + 192 + 8, 408)
    labels = grid[:, :y1]
    assert (labels == labels[:1]).all()
    assert (labels[0, :, :200] < 128).any()
    assert (labels[0, :, 208:] < 128).any()


def test_a_long_caption_takes_more_lines_and_stays_in_the_grid():
    video = moving(2)
    words = "a red striped ball is moving in a wide circle over the sand "
    heights = [side_by_side([(text, [video])], ["base"]).shape[1] for text in ("a ball", words, words * 3)]
    assert heights[0] < heights[1] < heights[2]
    label_only = side_by_side([(words * 3, [video])], ["base"])[0]
    assert (label_only[:, 200:] == 255).all()


def test_the_font_knows_tau():
    missing = bytes(_font().getmask("\U0010fffe"))
    assert bytes(_font().getmask("τ")) not in (missing, bytes(_font().getmask(" ")))


def test_a_grid_of_unlike_videos_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        side_by_side([("", [moving(4), moving(5)])], ["a", "b"])
    with pytest.raises(ValueError, match="2 videos"):
        side_by_side([("", [moving(4)])], ["a", "b"])
