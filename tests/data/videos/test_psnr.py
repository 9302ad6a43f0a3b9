import numpy as np

from motionexp.data.videos import psnr


def test_every_frame_has_its_own_ratio_and_equal_frames_the_highest():
    frames = np.full((3, 4, 4, 3), 100, np.uint8)
    changed = frames.copy()
    changed[0] += 5
    changed[1] -= 10
    expected = [20 * np.log10(255 / 5), 20 * np.log10(255 / 10), 58.92]
    np.testing.assert_allclose(psnr(changed, frames), expected, atol=0.005)
