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


def test_a_cell_is_the_same_alone_and_in_any_order_and_resumed(make, tmp_path, monkeypatch):
    def cell(name: str, *references: str) -> JobConfig:
        output = str(tmp_path / name)
        return make(references=[*references], train_steps=4, checkpoint_every=1, output=output)

    alone = cell("alone", "two")
    expected = results(alone, run(alone))
    assert [len(part) for part in expected] == [4, 3]
    for cfg in (cell("first", "one", "two"), cell("last", "two", "one")):
        assert results(cfg, run(cfg)) == expected
    # Interrupted in the middle of its training.
    step, resumed = Tuning.training_step, cell("resumed", "two")

    def interrupted(self, batch, index):
        if self.global_step == 2:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Tuning, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(resumed)
    assert results(resumed, run(resumed)) == expected
