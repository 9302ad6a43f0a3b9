"""The rows of a model itself belong to the probes that ran on it."""

from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from motionexp.diffusion.flow_matching import FlowSchedule
from motionexp.jobs.probe_rows import schedule_rows


@pytest.mark.parametrize(("shift", "name"), [(8.0, "tiny_wan, shift 8"), (None, "tiny_wan")])
def test_rows_of_a_schedule_name_the_shift_as_the_rows_of_a_probe_do(shift, name, make, tmp_path):
    job = MagicMock(precision="fp32", references=[SimpleNamespace(suite="shapes")])
    job.plan.model, job.plan.size, job.plan.folder = make().model, (16, 64, 64), lambda suite: tmp_path
    job.plan.row_settings = {"shift": shift}
    job.backbone = SimpleNamespace(weights_hash="0" * 12, schedule=FlowSchedule(shift or 1.0), respacing="")
    job.locked, job.origin = lambda cell: nullcontext(), lambda: {"model": "tiny_wan"}
    rows = schedule_rows(job, 80)
    assert {row.sampled_model for row in rows} == {name}
    assert len(rows) > 90
