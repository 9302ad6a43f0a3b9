"""The same sample id has the same bits: the settings alone decide which videos are denoised together."""

from collections.abc import Callable, Iterator
from itertools import combinations

import pytest
import torch

from motionexp.config.schema import JobConfig
from motionexp.diffusion.sampling import videos_per_batch
from motionexp.jobs import evaluation
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.plan import CellPlan
from motionexp.jobs.run import run

Make = Callable[..., JobConfig]
Latents = dict[tuple[str, int], torch.Tensor]
EDITS = ["a red square", "a long caption of a blue square", "a square 12"]


def settings_of(make: Make, **changes: object) -> JobConfig:
    return make(**{"references": 1, "tau": 1000.0, "edits": EDITS, **changes})


def limit(make: Make, videos: int) -> float:
    """The `memory_limit=`, in GiB, that holds this number of videos of a batch."""
    backbone = plan_job(make()).backbone
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    return (videos + 0.5) * 2 * backbone.predict_bytes(shape) / 2**30


def cell_of(cfg: JobConfig) -> CellPlan:
    (cell,) = plan_job(cfg).cells
    return cell


@pytest.fixture
def latents(monkeypatch: pytest.MonkeyPatch) -> Latents:
    """{caption and index: latents} of every video that was denoised last. Frames would hide the last bits."""
    denoised: Latents = {}
    original = evaluation._sample_batch

    def recording(backbone, gate, batch, *arguments):  # type: ignore[no-untyped-def]
        result = original(backbone, gate, batch, *arguments)
        denoised.update(
            {(edit.caption, index): video for (edit, index), video in zip(batch, result, strict=True)}
        )
        return result

    monkeypatch.setattr(evaluation, "_sample_batch", recording)
    return denoised


def interrupted_ways(cell: CellPlan) -> Iterator[tuple[str, ...]]:
    """All sets of samples that an interrupt may have left unmade."""
    ids = [request.sample_id for request in cell.requests]
    for count in range(1, len(ids)):
        yield from combinations(ids, count)


@pytest.mark.parametrize("videos", [1, 2])
def test_whatever_is_missing_a_sample_has_the_same_bits(make: Make, latents: Latents, videos: int) -> None:
    cfg = settings_of(make, memory_limit=limit(make, videos), metrics=[])
    cell = cell_of(cfg)
    assert [len(batch) for batch in cell.batches] == {1: [1, 1, 1], 2: [2, 1]}[videos]
    run(cfg)
    whole = dict(latents)
    assert len(whole) == len(EDITS)
    for missing in interrupted_ways(cell):
        latents.clear()
        for request in cell.requests:
            if request.sample_id in missing:
                cell.cell.sample_path(request, ".npz").unlink()
        run(cfg)
        assert len(latents) >= len(missing)
        assert not cell_of(cfg).missing
        assert all(torch.equal(video, whole[name]) for name, video in latents.items()), missing


def test_one_video_at_a_time_has_the_same_ids_and_bits_whatever_the_edits(
    make: Make, latents: Latents
) -> None:
    cfg = settings_of(make, metrics=[])
    run(cfg)
    whole, ids = dict(latents), {request.sample_id for request in cell_of(cfg).requests}
    for edits in ([EDITS[1]], [EDITS[2], EDITS[0]]):
        latents.clear()
        few = settings_of(make, edits=edits, metrics=[], output=f"{cfg.output}/{len(edits)}")
        run(few)
        assert len(latents) == len(edits)
        assert ids.issuperset(request.sample_id for request in cell_of(few).requests)
        assert all(torch.equal(video, whole[name]) for name, video in latents.items())


def test_who_shares_a_batch_is_part_of_the_id(make: Make) -> None:
    pairs = limit(make, 2)
    alone = {request.sample_id for request in cell_of(settings_of(make)).requests}
    first, second, last = [
        request.sample_id for request in cell_of(settings_of(make, memory_limit=pairs)).requests
    ]
    assert {first, second}.isdisjoint(alone)
    assert last in alone  # the only one of its batch
    swapped = settings_of(make, edits=[EDITS[1], EDITS[0]], memory_limit=pairs)
    assert {first, second}.isdisjoint(request.sample_id for request in cell_of(swapped).requests)


def test_free_memory_decides_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(settings_of(make, seeds=3))
    assert {len(batch) for batch in cell.batches} == {1}
    low = cell_of(settings_of(make, seeds=3, mode="low_memory"))
    assert [request.sample_id for request in low.requests] == [request.sample_id for request in cell.requests]


def test_a_batch_fills_the_memory_limit_up_to_sixteen_videos(make: Make) -> None:
    plan = plan_job(settings_of(make))
    backbone, sampler = plan.backbone, plan.sampling.sampler
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    need = 2 * backbone.predict_bytes(shape)  # with and without the caption
    memories = {None: 1, 10.0: 1, 4.0 * need: 4, 1e18: 16}
    assert {memory: videos_per_batch(backbone, shape, sampler, memory) for memory in memories} == memories


def test_a_probe_of_larger_batches_has_an_id_of_its_own(make: Make) -> None:
    folders = []
    for memory in (None, limit(make, 1), limit(make, 2)):
        probe = plan_job(make(probe="tampering", references=1, memory_limit=memory)).probe
        assert probe is not None
        folders.append(probe.cell("suite", "a caption", "a hash").folder)
    assert folders[0] == folders[1] != folders[2]
