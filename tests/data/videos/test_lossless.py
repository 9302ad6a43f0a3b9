"""Exact frames as a lossless video."""

import av
import numpy as np
import pytest

from motionexp.data.videos.lossless import lossless_video, read_lossless_video
from tests.support.made_videos import moving


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 17, 33), (5, 64, 64)])
def test_frames_and_what_is_said_about_them_are_equal_to_the_bit(shape):
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    about = {"caption": 'a "cat"\n\N{GREEK SMALL LETTER TAU}', "seconds": 1.25}
    read, said = read_lossless_video(lossless_video(frames, 7.5, about))
    assert read.dtype == np.uint8
    assert np.array_equal(read, frames)
    assert said == about


def test_it_is_smaller_than_raw_frames():
    frames = moving(8, 64, 64)
    assert len(lossless_video(frames, 8, {})) < frames.nbytes / 2


def test_a_part_of_a_file_is_damaged():
    content = lossless_video(moving(4, 16, 16), 8, {})
    for count in (0, 10, len(content) // 2, len(content) - 30):
        with pytest.raises((ValueError, OSError, KeyError)):
            read_lossless_video(content[:count])


@pytest.mark.parametrize(
    "kind", [av.error.PatchWelcomeError, av.error.BugError, av.error.DecoderNotFoundError]
)
def test_what_ffmpeg_refuses_is_damaged(kind, monkeypatch):
    def fail(*_: object) -> None:
        raise kind(1, "no")

    content = lossless_video(moving(2, 16, 16), 8, {})
    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(ValueError, match="no"):
        read_lossless_video(content)
