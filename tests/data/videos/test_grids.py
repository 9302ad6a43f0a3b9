"""Contact sheets and grids, pixel by pixel."""

import numpy as np
import pytest

from motionexp.data.videos import contact_sheet, enlarged, side_by_side
from motionexp.data.videos.grids import _font
from tests.support.made_videos import moving, psnr


def test_small_frames_are_enlarged_smoothly_by_a_whole_factor():
    frames = moving(2, 48, 64)
    before = frames.copy()
    large = enlarged(frames)
    assert large.shape == (2, 48 * 6, 64 * 6, 3)
    assert np.array_equal(frames, before)
    # Averaged back to the size that they had, the frames are there; and no pixel is a block of its own.
    blocks = large.reshape(2, 48, 6, 64, 6, 3)
    assert psnr(blocks.mean((2, 4)), frames) > 35
    assert blocks.std((2, 4)).mean() > 1
    assert enlarged(large) is large


def test_contact_sheet_has_each_frame_in_its_place_with_white_between():
    frames = moving(5, 20, 30)
    sheet = contact_sheet(frames, columns=3)
    tiles = enlarged(frames, 192)
    height, width = 200, 300
    assert sheet.shape == (height + 2 + height, width * 3 + 2 * 2, 3)
    left = np.ones(sheet.shape[:2], bool)
    for index, tile in enumerate(tiles):
        y, x = (height + 2) * (index // 3), (width + 2) * (index % 3)
        assert np.array_equal(sheet[y : y + height, x : x + width], tile)
        left[y : y + height, x : x + width] = False
    assert (sheet[left] == 255).all()
    assert np.array_equal(contact_sheet(tiles[:1]), tiles[0])


@pytest.mark.parametrize(("tile_side", "side"), [(192, 192), (200, 256)])
def test_side_by_side_enlarges_tiny_videos_and_labels_them(tile_side, side):
    first, second = moving(3), moving(3)[::-1]
    rows = [("a red ball", [first, second]), ("", [second, first])]
    grid = side_by_side(rows, ["reference", "τ = 0"], tile_side)
    assert grid.shape[0] == 3
    left, right, bottom = 8, side + 16, grid.shape[1] - side - 8
    top = bottom - side - 8
    for y, videos in ((top, (first, second)), (bottom, (second, first))):
        for x, video in zip((left, right), videos, strict=True):
            assert np.array_equal(grid[:, y : y + side, x : x + side], enlarged(video, tile_side))
    assert grid.shape[2] == 2 * side + 3 * 8
    labels = grid[:, :top]
    assert (labels == labels[:1]).all()
    assert (labels[0, :, : right - 8] < 128).any()
    assert (labels[0, :, right:] < 128).any()


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
    for videos in ([moving(4), moving(5)], [moving(4)]):
        with pytest.raises(ValueError, match="2 videos"):
            side_by_side([("", videos)], ["a", "b"])


def test_tiles_of_large_frames_are_reduced_so_that_a_sheet_can_be_looked_at():
    frames = moving(3, 480, 720)
    sheet = contact_sheet(frames)
    assert sheet.shape == (192, 3 * 288 + 2 * 2, 3)
    # Smoothly: a tile is the mean of the pixels that it stands for.
    means = frames[0].reshape(96, 5, 144, 5, 3).mean((1, 3))
    tile = sheet[:, :288].reshape(96, 2, 144, 2, 3).mean((1, 3))
    assert np.abs(tile - means).mean() < 2
    assert contact_sheet(frames[:1, :300, :300]).shape == (300, 300, 3)
