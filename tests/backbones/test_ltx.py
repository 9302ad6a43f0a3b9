"""What LTX-Video has for itself: a shift that grows with a video."""

from pathlib import Path

import pytest

from motionexp.backbones.ltx import LTXBackbone
from tests.support.tiny_flow import save_tiny_ltx


def test_ltxs_shift_is_that_of_its_size(tmp_path: Path) -> None:
    backbone = LTXBackbone.from_pretrained(save_tiny_ltx(tmp_path / "tiny"))
    shifts = []
    for frames, side in ((1, 8), (5, 16), (9, 16)):
        backbone.frames, backbone.height, backbone.width = frames, side, side
        shifts.append(backbone.schedule.shift)
    assert shifts[0] == pytest.approx(2.71828**0.95, rel=1e-4)  # 4 tokens
    assert shifts == sorted(shifts)
    assert shifts[1] == pytest.approx(2.71828 ** (0.95 + 1.1 * 28 / 60), rel=1e-4)  # 32 tokens
