"""DiTFlow's test of its signal, on displacements whose agreement is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from motionexp.data.shapes.splits import ShapesReferences
from motionexp.scripts.attention_flow import agreement, agreements, moved_video
from tests.support.tiny_families import FAMILIES

GRID = (4, 4)


def exact_flow(step: tuple[float, float], frames: int = 3) -> torch.Tensor:
    times = torch.arange(frames, dtype=torch.float32)
    truth = (times[None, :] - times[:, None])[..., None] * torch.tensor(step)
    return truth[None, :, :, None].expand(1, frames, frames, 16, 2)


@pytest.mark.parametrize(("turned", "cosine"), [((0.0, 1.0), 1.0), ((0.0, -1.0), -1.0), ((1.0, 0.0), 0.0)])
def test_the_cosine_is_of_the_direction_alone(turned, cosine):
    assert agreement(5 * exact_flow(turned), (0.0, 1.0), GRID) == pytest.approx((cosine, 0.0))


def test_displacements_of_0_agree_with_nothing_and_tokens_that_leave_do_not_count():
    assert agreement(torch.zeros(1, 3, 3, 16, 2), (0.0, 1.0), GRID) == (0.0, 1.0)
    flow = exact_flow((0.0, 1.0)).clone()
    flow[0, 0, 1, 3::4] = torch.tensor([0.0, -1.0])  # of the last column, which leaves the frame
    assert agreement(flow, (0.0, 1.0), GRID) == pytest.approx((1.0, 0.0))


def test_a_moved_video_is_its_first_frame_moved():
    suite = ShapesReferences()
    reference = suite.read(suite.names()[0], 4, 64, 64)
    frames, step = moved_video(reference, 0)
    assert np.array_equal(frames[0], reference.frames[0])
    assert np.hypot(*step) == pytest.approx(32 / 3)
    back = np.roll(frames[3], (-round(3 * step[0]), -round(3 * step[1])), axis=(0, 1))
    assert np.array_equal(back, frames[0])


def test_every_block_with_attention_is_compared(tmp_path: Path):
    family = FAMILIES["cogvideox"]
    backbone = family.kind.from_pretrained(family.save(tmp_path / "m"))
    frames, height, width = family.video
    suite = ShapesReferences()
    whole = suite.read(suite.names()[0], frames, 64, 64)
    reference = replace(whole, frames=whole.frames[:, :height, :width])
    ((place, values), *more) = agreements(backbone, [reference])
    assert place == ("motion", 0)
    assert len(more) == len(backbone.blocks) - 1
    assert -1 <= values[0].cosine <= 1
