"""Jobs of models that are conditioned on an image."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from motionexp.backbones.wan_image import WanImageBackbone
from motionexp.config.schema import JobConfig
from motionexp.data.base import FirstFrame, Reference
from motionexp.data.select import make_reader
from motionexp.errors import InputError
from motionexp.jobs import cell as cells
from motionexp.jobs.cell import Cell
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.job import Job
from motionexp.jobs.memory_plan import memory_plan
from motionexp.jobs.probe_job import probe
from motionexp.jobs.references import read_references
from motionexp.jobs.run import run
from tests.support.squares import Squares
from tests.support.tiny_image_models import WAN_IMAGE, save_tiny_wan_image
from tests.support.tiny_jobs import job_settings

SIZE = WAN_IMAGE.video[1:]
EDITS = ["a red", "a blue"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, and two pictures of twice its size."""
    folder = tmp_path_factory.mktemp("pictures")
    save_tiny_wan_image(folder / "model")
    for name, colour in (("a.png", (200, 40, 40)), ("b.png", (40, 40, 200))):
        picture = np.full((2 * SIZE[0], 2 * SIZE[1], 3), colour, np.uint8)
        picture[4:20, 8:40] = 255 - picture[4:20, 8:40]
        Image.fromarray(picture).save(folder / name)
    return folder


@pytest.fixture
def settings(folder: Path, tmp_path: Path) -> Callable[..., JobConfig]:
    """Checked settings of a job with the picture a.png; see `job_settings`."""
    target = "motionexp.backbones.wan_image.WanImageBackbone"
    return partial(
        job_settings,
        target,
        folder / "model",
        WAN_IMAGE.video,
        output=str(tmp_path / "out"),
        image=str(folder / "a.png"),
        edits=EDITS,
    )


@pytest.fixture
def make(settings: Callable[..., JobConfig]) -> Callable[..., JobConfig]:
    return lambda **changes: settings(model={"frame_range": [5, 9], "frame_step": 4}, **changes)


def samples(output: str) -> dict[str, np.ndarray]:
    return {file.name: np.load(file)["frames"] for file in Path(output).rglob("media/*.npz")}


def test_a_second_run_loads_no_encoder_and_gives_the_same_bits(
    make: Callable[..., JobConfig], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = make()
    rows = run(cfg)
    image = FirstFrame("a.png", np.asarray(Image.open(folder / "a.png").resize(SIZE[::-1], 3)))
    assert {row.edit_image for row in rows} == {f"a.png {image.content_hash[:12]}"}
    first = samples(cfg.output)
    assert len(first) == len(EDITS)
    for path in Path(cfg.output).rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            path.unlink()
    next(Path(cfg.output).rglob("adapter.safetensors")).unlink()

    def refused(*_: Any) -> None:
        raise AssertionError("an encoder was loaded")

    for name in ("encode", "encode_image", "embed"):
        monkeypatch.setattr(WanImageBackbone, name, refused)
    run(cfg)
    again = samples(cfg.output)
    assert again.keys() == first.keys()
    assert all(np.array_equal(again[name], frames) for name, frames in first.items())
    # Another picture is another sample of the same adapter.
    plans = [plan_job(make(image=str(folder / name))) for name in ("a.png", "b.png")]
    adapters, ids = (
        [plan.cells[0].cell for plan in plans],
        [{request.sample_id for request in plan.cells[0].requests} for plan in plans],
    )
    assert adapters[0] == adapters[1]
    assert not ids[0] & ids[1]


def test_a_reference_is_tuned_on_with_its_own_first_frame(make: Callable[..., JobConfig]) -> None:
    job = Job(make(), Console(quiet=True))
    (reference,) = job.references
    condition = job.example(reference).conditioning.image
    own = job.backbone.encode_image(torch.from_numpy(reference.frames[0].copy()))
    assert condition is not None
    torch.testing.assert_close(condition.channels, own.channels)
    torch.testing.assert_close(condition.embeds, own.embeds)
    phases = {phase.name: phase for phase in memory_plan(job.plan)}
    encoder = job.backbone.image_encoder  # type: ignore[attr-defined]
    tensors = [*encoder.parameters(), *encoder.buffers()]
    assert phases["image"].weights["image encoder (fp32)"] == sum(tensor.nbytes for tensor in tensors)
    assert {"training", "sampling, 1 at once"} <= phases.keys()


def test_a_probe_conditions_on_the_references_own_first_frame(
    make: Callable[..., JobConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    encode = WanImageBackbone.encode_image

    def noted(self: WanImageBackbone, image: torch.Tensor) -> Any:
        seen.append(image.numpy())
        return encode(self, image)

    monkeypatch.setattr(WanImageBackbone, "encode_image", noted)
    rows = probe(make(probe="inversion", probe_steps=10, image=None, edits=None, references=1))
    assert {row.edit_image for row in rows} == {""}
    assert rows
    (first,) = seen
    np.testing.assert_array_equal(first, Squares().read("one", *WAN_IMAGE.video).frames[0])


def test_edits_without_an_image_are_refused(make: Callable[..., JobConfig]) -> None:
    cfg = make(image=None, edits=None)
    with pytest.raises(InputError, match=r"one red.*image="):
        read_references(cfg, make_reader(cfg.data))


class SomeImages(Squares):
    """The first edit of each reference has an image."""

    def read(self, name: str, frames: int, height: int, width: int) -> Reference:
        reference = super().read(name, frames, height, width)
        first, *more = reference.edits
        first = replace(first, image=FirstFrame("a.png", reference.frames[0]))
        return replace(reference, edits=(first, *more))


def test_a_suite_of_which_some_edits_have_images_is_refused_by_every_model(
    make: Callable[..., JobConfig],
) -> None:
    cfg = make(image=None, edits=None, references=1)
    with pytest.raises(InputError, match="one blue"):
        read_references(cfg, SomeImages())
    for_captions = replace(cfg, model=replace(cfg.model, _target_="motionexp.backbones.wan.WanBackbone.load"))
    with pytest.raises(InputError, match=r"one red.*a\.png"):
        read_references(for_captions, SomeImages())
    # A probe takes none of them.
    (reference,) = read_references(replace(for_captions, probe="inversion"), SomeImages())
    assert all(edit.image is None for edit in reference.edits)


def test_the_picture_is_the_first_column_of_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(cells, "side_by_side", lambda *content: shown.append(content))
    monkeypatch.setattr(cells, "write_mp4", lambda *_: None)
    reference = Squares().read("one", 5, *SIZE)
    image = FirstFrame("a.png", np.full((*SIZE, 3), 9, np.uint8))
    with_image = replace(reference, edits=tuple(replace(edit, image=image) for edit in reference.edits))

    class Stored:
        cell = Cell(tmp_path)
        frames = reference.frames

        def read(self, _: object) -> Any:
            return self

    monkeypatch.setattr(Cell, "has_sample", lambda *_: True)
    for each in (reference, with_image):
        cells.write_grid(tmp_path / "grid.mp4", each, [("τ", Stored(), [None, None])])  # type: ignore[list-item,arg-type]
    assert [columns for _, columns in shown] == [["reference", "τ"], ["image", "reference", "τ"]]
    video = shown[1][0][0][1][0]
    assert video.shape == (5, *SIZE, 3)
    assert (video == 9).all()
