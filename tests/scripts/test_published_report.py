"""The published videos belong to their rows, and are chosen as the report says."""

from collections import defaultdict

import numpy as np

from motionexp.config.options import options
from motionexp.data.videos import frame_count, read_frames
from motionexp.jobs.pages.report.content import Source
from motionexp.jobs.pages.report.probes import probes_of
from motionexp.jobs.pages.report.references import references_of
from motionexp.jobs.pages.report.samples import samples_of
from motionexp.results.published import read_published
from motionexp.scripts import published_report
from motionexp.scripts.published_report import KINDS, PROBED, RESULTS, ROWS, VIDEOS, choose
from tests.support import made_output

MOST_MEGABYTES = 10


def test_every_published_sample_has_its_small_video():
    samples = samples_of(read_published(ROWS), RESULTS)
    assert {sample.video for sample in samples} == {*VIDEOS.glob("*.mp4")}
    assert {sample.row.reference for sample in samples} == {*published_report.REFERENCES}
    assert {sample.row.edit_kind for sample in samples} == {*KINDS}
    assert {"base", *options("method")} == {sample.row.method for sample in samples}
    assert len({sample.row.model for sample in samples}) == 3
    assert sum(path.stat().st_size for path in VIDEOS.rglob("*")) < MOST_MEGABYTES * 1e6
    # Their references are still what they were tuned on.
    for reference in references_of(samples):
        assert reference.problem == ""


def test_every_method_is_published_at_several_windows():
    windows = defaultdict(set)
    for sample in samples_of(read_published(ROWS), RESULTS):
        windows[sample.row.method].add(sample.settings[0])
    assert min(len(windows[method]) for method in options("method")) == 3


def test_the_published_probe_plays_all_pairs():
    units = probes_of(read_published(ROWS), RESULTS, Source(RESULTS).cells()).units
    assert {unit.name for unit in units} == {f"{PROBED}, {kind}" for kind in ("multiple", "motion")}
    for unit in units:
        assert len(unit.pairs) == 55 + 1  # and the control
        assert unit.strip is not None


def test_videos_are_chosen_by_reference_kind_and_strength(tmp_path, monkeypatch):
    output = tmp_path / "out"
    rows = made_output.write_output(output)
    probed = made_output.write_probe(output)
    monkeypatch.setattr(published_report, "PROBED", probed[0].reference)
    monkeypatch.setattr(published_report, "REFERENCES", made_output.REFERENCES[:1])
    monkeypatch.setattr(published_report, "KINDS", ("style",))
    monkeypatch.setattr(published_report, "VIDEOS", tmp_path / "videos")
    monkeypatch.setattr(published_report, "ROWS", tmp_path / "videos" / "rows.parquet")
    choose([output, output])
    published = read_published(tmp_path / "videos" / "rows.parquet")
    [unit] = probes_of(published, tmp_path, Source(tmp_path).cells()).units
    assert (unit.kind, unit.model) == ("tampering", "tiny_latte")
    assert {*unit.pairs} == {("none", "none"), ("1000", "0"), ("900", "800")}
    assert {pair.values["text_alignment"] for pair in unit.pairs.values()} == {row.value for row in probed}
    assert unit.strip is not None
    chosen = samples_of(published, tmp_path)
    first = made_output.REFERENCES[0]
    ids = {row.sample_id for row in rows if (row.reference, row.edit_kind) == (first, "style")}
    assert {sample.row.sample_id for sample in chosen} == ids
    for sample in chosen:
        assert sample.video is not None
        frames = read_frames(sample.video, frames=frame_count(sample.video))
        exact = read_frames(
            output / next(row for row in rows if row.sample_id == sample.row.sample_id).sample_file, frames=16
        )
        assert frames.shape == (16, 128, 128, 3)
        # The same picture in half of the size, in fewer bytes.
        assert np.abs(frames.astype(float) - exact[:, ::2, ::2]).mean() < 12


def test_the_figures_of_probes_are_those_of_every_model():
    names = [*published_report.figures_of_probes()]
    assert {"shares", "gaps", "tiny_latte: tampering pairs", "tiny_unet3d: onsets"} < {*names}
    assert len(names) > 20
