"""docs/python.md: every block of code runs, and in diffusers' pipelines the samples are motionexp's."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import motionexp as mx
from motionexp.cli import main
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.metrics.flow_similarity import flow_similarity
from tests.support.python_page import EXPORT, PANDAS, STORED, TABLE, TEXT, WITH_LOADER, WITH_PEFT
from tests.support.training_runs import change

ROOT = Path(__file__).parents[1]
CAPTION = "a blue plain moon is moving on sand"
# Fewer steps than on the page: t is 750, 500, 250 and 0, or one more.
FASTER = {"steps=100": "steps=2", "steps=25": "steps=4", "learning_rate=1e-2": "learning_rate=0.2"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the checkout, with an outputs/ of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("docs", "motionexp"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def names(place: Path) -> dict[str, Any]:
    """The variables of the page after its first program."""
    variables: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(printed):
        execute(TABLE, variables)
    return variables | {"printed": printed.getvalue()}


@pytest.fixture(autouse=True)
def _in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def execute(block: str, variables: dict[str, Any]) -> None:
    for slow, fast in FASTER.items():
        block = block.replace(slow, fast)
    exec(block, variables)


def check_window(frames: list[Any], backbone: Any, folder: str, start: Tensor) -> None:
    """The pipeline's frames are those of the adapter in its window, and not those without a window.

    `start`: (1, C, F, h, w), the noise that the pipeline has drawn.
    """

    def sampled(window: mx.Window) -> Tensor:
        method.window = window
        settings = SamplerSettings(4, 2.0)
        return sample_latents(backbone, *captions, start, settings, gate=method.set_active)

    captions = backbone.embed([CAPTION]), backbone.embed([""])
    method = mx.load_adapter(folder, backbone)
    windowed = sampled(method.window)
    for window in (mx.Window(0), mx.Window(1000)):
        assert (sampled(window) - windowed).abs().max() > 0.1
    method.remove()
    theirs = np.stack([np.asarray(frame) for frame in frames]).astype(int)
    assert np.abs(theirs - backbone.decode(windowed)[0].numpy()).max() <= 1


def noise(*shape: int) -> Tensor:
    """As the pipeline draws it with seed 0."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_clip_becomes_a_table_in_fifteen_lines(names: dict[str, Any]):
    lines = [line for line in TABLE.splitlines() if line.strip()]
    assert len(lines) <= 15
    assert [line for line in lines if "import" in line] == ["import motionexp as mx"]
    assert names["reference"].frames.shape == (16, 64, 64, 3)
    for video in ("outputs/python/0.mp4", "outputs/python/1.mp4"):
        assert Path(video).stat().st_size > 1000
    heading, *rows = [line.split() for line in names["printed"].splitlines()]
    assert heading == ["base", "model", "tuned"]
    assert "NaN" not in names["printed"]
    printed = next(row[1:] for row in rows if row[0] == "flow_similarity")
    for text, videos in zip(printed, (names["base"], names["tuned"]), strict=True):
        flows = [flow_similarity(video.frames, names["reference"].frames).value for video in videos]
        assert float(text) == pytest.approx(np.mean(flows), abs=0.006)
    assert not np.array_equal(names["base"][0].frames, names["tuned"][0].frames)


def test_a_saved_adapter_is_loaded_again(names: dict[str, Any]):
    tuned, edits = names["tuned"], names["reference"].edits
    execute(STORED, names)
    method = mx.load_adapter("outputs/python", names["backbone"])
    (again,) = mx.sample(names["backbone"], method, edits[1:], names["sampling"])
    method.remove()
    assert method.window == mx.Window(700)
    assert np.array_equal(again.frames, tuned[1].frames)


def test_a_callback_keeps_the_window_in_diffusers(names: dict[str, Any]):
    backbone = mx.load_backbone("bundled:tiny_cogvideox", device="cpu", precision="fp32")
    method = mx.LoRA(backbone, mx.Window(600))
    change(method, size=0.3)
    mx.save_adapter("outputs/cogvideox", backbone, method)
    method.remove()
    execute(WITH_LOADER, names)
    channels, count, *sides = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    # The pipeline has the frames before the channels.
    start = noise(1, count, channels, *sides).transpose(1, 2)
    check_window(names["frames"], backbone, "outputs/cogvideox", start)


def test_peft_loads_the_adapter_where_diffusers_does_not(names: dict[str, Any]):
    backbone = mx.load_backbone("bundled:tiny_latte", device="cpu", precision="fp32")
    assert main(EXPORT) == 0
    execute(WITH_PEFT, names)
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    check_window(names["frames"], backbone, "outputs/python", noise(1, *shape))


def test_rows_become_a_frame(names: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    shutil.copytree(ROOT / "tests" / "golden" / "cells", "outputs/cells")
    execute(PANDAS, names)
    assert "mean" in capsys.readouterr().out


def test_a_word_that_the_bundled_models_misread_is_refused(names: dict[str, Any]):
    dog = replace(names["tuned"][0], edit=mx.Edit("caption", "a dog is moving on sand"))
    with pytest.raises(mx.InputError, match=r"a dog is moving on sand.*'dog'"):
        mx.score([dog], names["reference"])
    with pytest.raises(mx.InputError, match=r"docs/clip.mp4.*'dog'"):
        mx.read_clip("docs/clip.mp4", dog.edit.caption, ["a moon is moving on sand"], names["backbone"])


def test_every_name_on_the_page_is_exported():
    assert set(re.findall(r"\bmx\.(\w+)", TEXT)) <= set(mx.__all__)
    for name in mx.__all__:
        assert getattr(mx, name) is not None
    with pytest.raises(AttributeError):
        mx.nothing  # noqa: B018


def test_the_import_needs_no_torch():
    code = "import sys, motionexp; print(motionexp.__version__, 'torch' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+ False\n", printed.stdout)
