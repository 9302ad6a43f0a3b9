"""What a cell writes beside a sample's exact frames."""

import av
import numpy as np
from PIL import Image

from motionexp.data.base import Edit
from motionexp.jobs.cell import Cell, SampleRequest
from motionexp.jobs.evaluation import Sample
from tests.support.made_videos import moving


def test_a_sample_is_stored_exactly_and_shown_enlarged(tmp_path):
    cell, request, frames = Cell(tmp_path), SampleRequest(Edit("style", "a red ball"), 0, "abc"), moving(4)
    cell.save_sample(request, Sample(request.edit, 0, frames, 0, 1.0, 0), 8)
    assert np.array_equal(cell.read_sample(request).frames, frames)
    with av.open(cell.sample_path(request, ".mp4")) as file:
        assert (file.streams.video[0].height, file.streams.video[0].width) == (256, 256)
    with Image.open(cell.sample_path(request, ".png")) as sheet:
        assert sheet.size == (4 * 192 + 3 * 2, 192)
