"""The same cell gives the same bits: alone, in any order, resumed or not; `tests.chaos` adds processes."""

from pathlib import Path

import numpy as np
import pytest

from motionexp.config.schema import JobConfig
from motionexp.jobs.run import run
from motionexp.methods.training import Tuning
from motionexp.results.rows import Row
from tests.support.kept_results import contents

OF_THE_RUN = ("seconds", "peak_memory")


def results(cfg: JobConfig, rows: list[Row]) -> tuple[dict, dict]:
    """Of the reference `two`: rows without times, and the adapter and the frames of each sample by name."""
    of_two = [row for row in rows if row.reference == "two"]
    fields = {
        row.score_id: {name: row.get(name) for name in Row.__slots__ if name not in OF_THE_RUN}
        for row in of_two
    }
    (cell,) = Path(cfg.output).rglob(of_two[0].adapter_id)
    arrays = {path.name: np.load(path)["frames"].tobytes() for path in cell.rglob("*.npz")}
    adapter = {name: digest for name, digest in contents(cell).items() if name.endswith(".safetensors")}
    return fields, arrays | adapter


@pytest.mark.parametrize(
    "references", [["two"], ["one", "two", "three"], ["three", "two", "one"]], ids=["alone", "first", "last"]
)
def test_a_cell_is_the_same_alone_and_in_any_order(references, make, tmp_path, monkeypatch):
    whole = make(references=["two"], train_steps=4, checkpoint_every=1, output=str(tmp_path / "whole"))
    cfg = make(references=references, train_steps=4, checkpoint_every=1)
    expected = results(whole, run(whole))
    if references == ["two"]:  # and interrupted in the middle of its training
        step = Tuning.training_step

        def interrupted(self, batch, index):
            if self.global_step == 2:
                raise KeyboardInterrupt
            return step(self, batch, index)

        with monkeypatch.context() as patch:
            patch.setattr(Tuning, "training_step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(cfg)
    assert len(expected[0]) == 4
    assert len(expected[1]) == 3
    assert results(cfg, run(cfg)) == expected
