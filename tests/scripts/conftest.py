"""A job on a tiny random model and a clip, as the overrides of a program."""

from pathlib import Path

import numpy as np
import pytest

from motionexp.data.videos import write_png
from tests.support.tiny_models import FRAMES, SIZE, save_tiny_pipeline

CAPTION = "a red ball"
VIDEO = np.random.default_rng(0).integers(0, 255, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def overrides(weights: Path, tmp_path: Path) -> list[str]:
    for index, frame in enumerate(VIDEO):
        write_png(tmp_path / "clip" / f"{index}.png", frame)
    return [
        *(f"model.path={weights}", "model.closed_vocabulary=false", f"model.frames={FRAMES}"),
        *(f"model.height={SIZE}", f"model.width={SIZE}", "device=cpu", f"output={tmp_path / 'out'}"),
        *(f"video={tmp_path / 'clip'}", f"caption={CAPTION}", 'edits=["a blue ball"]'),
    ]
