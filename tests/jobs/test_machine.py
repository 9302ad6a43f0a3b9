"""Too little memory or disk, damaged caches and samples, and two processes."""

import dataclasses
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from motionexp.data.base import Edit
from motionexp.errors import InputError
from motionexp.files import seal, write_whole
from motionexp.jobs import dry_run, job
from motionexp.jobs.cell import EXACT_FRAMES, Cell, SampleRequest
from motionexp.jobs.dry_run import plan
from motionexp.jobs.encoding_cache import EncodingCache
from motionexp.jobs.evaluation import Sample
from motionexp.jobs.finished import _gpu_kind
from motionexp.jobs.machine import clear_memory_errors, smaller
from motionexp.jobs.run import run
from motionexp.jobs.sanity_baselines import baseline_cell, baseline_rows
from motionexp.metrics.feature_cache import FeaturePass
from motionexp.metrics.scorer import Scorer
from motionexp.results.rows import read_lines
from tests.support.squares import METRICS, Drifting, Squares

# memory and disk


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(1 << 55),
        lambda: np.empty(1 << 55, np.uint8),
        lambda: (_ for _ in ()).throw(
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        ),
        lambda: (_ for _ in ()).throw(OSError(12, "Cannot allocate memory")),
    ],
)
def test_too_little_memory_names_the_settings_that_take_less(make, allocate):
    cfg = make(batch_size=4, memory_limit=8)
    with (
        pytest.raises(
            MemoryError, match=r"mode=low_memory, batch_size=1 trainer.accumulate=4, .*memory_limit="
        ),
        clear_memory_errors(smaller(cfg)),
    ):
        allocate()
    with pytest.raises(MemoryError) as caught, clear_memory_errors(smaller(make(mode="low_memory"))):
        allocate()
    assert "mode=" not in str(caught.value)


def test_other_errors_are_not_taken_for_too_little_memory(make):
    with pytest.raises(RuntimeError, match="shapes differ"), clear_memory_errors(""):
        raise RuntimeError("shapes differ")


def test_a_job_that_runs_out_of_memory_keeps_what_it_has(make, monkeypatch):
    def sample(*arguments, **settings):
        torch.empty(1 << 55)

    cfg = make()
    with monkeypatch.context() as patch:
        patch.setattr(job, "sample", sample)
        with pytest.raises(MemoryError, match="mode=low_memory"):
            run(cfg)
    (status,) = Path(cfg.output).rglob("status.json")
    assert Cell(status.parent).status()["state"] == "failed"
    assert Cell(status.parent).has_adapter


def test_a_plan_returns_what_the_machine_lacks(make, monkeypatch):
    assert plan(make()) == []
    monkeypatch.setattr(dry_run, "free_memory", lambda device: 1e3)
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    memory, disk = plan(make())
    assert "mode=low_memory" in memory
    assert "output=" in disk


# damage


def flips(path: Path, count: int):
    """The file with one flipped bit, at many places; whole again afterwards."""
    whole = path.read_bytes()
    for place in np.random.default_rng(0).choice(8 * len(whole), count, replace=False).tolist():
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        yield place
    path.write_bytes(whole)


@pytest.mark.parametrize("kind", EXACT_FRAMES)
def test_a_flipped_bit_of_a_sample_is_refused_or_changes_nothing(kind, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    cell, request = Cell(tmp_path), SampleRequest(Edit("style", "a cat"), 0, "id")
    cell.save_sample(request, Sample(request.edit, 0, frames, 3, 1.5, 7), 8, kind)
    refused = 0
    for _ in flips(cell.sample_path(request, EXACT_FRAMES[kind]), 600):
        try:
            sample = cell.read_sample(request)
        except InputError:
            refused += 1
        else:
            assert np.array_equal(sample.frames, frames)
            assert (sample.adapter_steps, sample.seconds, sample.peak_memory) == (3, 1.5, 7)
    assert refused > 200


@pytest.mark.parametrize(
    "content",
    [
        {"about": np.array("{}")},
        {"frames": np.zeros((2, 8, 8, 3), np.uint8), "about": np.array('{"caption": "a"}')},
        {"frames": np.zeros((2, 8, 8, 3), np.uint8), "about": np.array("[" * 100_000)},
        {"frames": np.zeros((2, 8, 8), np.uint8), "about": np.array("{}")},
        {"frames": np.zeros((2, 8, 8, 3), np.float32), "about": np.array("{}")},
    ],
)
def test_a_sample_without_its_parts_is_refused(content, tmp_path):
    cell, request = Cell(tmp_path), SampleRequest(Edit("style", "a cat"), 0, "id")
    cell.media.mkdir()
    np.savez_compressed(cell.sample_path(request, ".npz"), **content)
    with pytest.raises(InputError, match=r"id\.npz: damaged"):
        cell.read_sample(request)


class Encoder:
    """Stands for a backbone: latents and captions of few numbers."""

    weights_hash, device = "weights", torch.device("cpu")

    def encode(self, frames):
        return torch.arange(6.0).reshape(1, 1, 1, 2, 3)


def test_a_flipped_bit_of_a_cached_encoding_is_refused_or_made_again(tmp_path):
    reference = Squares().read("one", 4, 16, 16)

    def read() -> torch.Tensor:
        return EncodingCache(tmp_path, Encoder(), "fp32").latents(reference)

    right = read()
    (path,) = tmp_path.iterdir()
    refused = 0
    for _ in flips(path, 300):
        try:
            assert torch.equal(read(), right)
        except InputError:
            refused += 1
    assert refused > 200
    # A file of a former version has no seal.
    write_whole(path, save({"latents": right + 1}))
    assert torch.equal(read(), right)
    assert b"sha256:" in path.read_bytes()


def test_a_flipped_bit_of_cached_features_is_refused_or_made_again(tmp_path):
    frames = Squares().read("one", 4, 16, 16).frames

    def read() -> np.ndarray:
        return FeaturePass(None, None, Drifting(), tmp_path).tracks(frames).position

    right = read()
    (path,) = tmp_path.iterdir()
    refused = 0
    for _ in flips(path, 300):
        try:
            assert np.array_equal(read(), right)
        except InputError:
            refused += 1
    assert refused > 200


def test_a_seal_is_of_all_bytes():
    content = save({"a": torch.zeros(2)}, {"seal": "sha256:" + "0" * 64})
    assert seal(content) != seal(content[:-1] + b"\1")


# two processes


class SlowScorer(Scorer):
    """Leaves the other sweep time to come to the lock."""

    def score(self, *arguments, **named):
        time.sleep(0.1)
        return super().score(*arguments, **named)


def test_two_sweeps_score_the_sanity_baselines_of_a_reference_once(tmp_path):
    reference = dataclasses.replace(Squares().read("one", 4, 16, 16), edits=(Edit("style", "one red"),))
    fields = {"suite": "squares", "reference": "one", "model": "tiny", "seconds": {}}
    start, waited, rows = threading.Barrier(2), [], []

    def sweep() -> None:
        scorer = SlowScorer(METRICS)
        start.wait()
        cell = baseline_cell(tmp_path, reference)
        rows.append(baseline_rows(cell, reference, scorer, fields, lambda: waited.append(True)))

    # Threads stand for processes: a lock is held by an opened file.
    threads = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waited == [True]
    assert rows[0] == rows[1]
    (path,) = tmp_path.rglob("rows.jsonl")
    assert len(list(read_lines(path))) == len(rows[0])


def test_a_gpu_counts_by_its_kind_and_by_its_number_only_among_several_kinds(tmp_path):
    devices, nvidia = tmp_path / "dev", tmp_path / "nvidia"
    devices.mkdir()

    def kind(**environment):
        return _gpu_kind(devices, nvidia, environment)

    assert kind() == kind(CUDA_VISIBLE_DEVICES="") == kind(CUDA_VISIBLE_DEVICES="0")
    for number, name in enumerate(["A100", "A100"]):
        (devices / f"nvidia{number}").touch()
        (nvidia / "gpus" / str(number)).mkdir(parents=True)
        (nvidia / "gpus" / str(number) / "information").write_text(f"Model: {name}\nIRQ: {number}\n")
    assert kind() == kind(CUDA_VISIBLE_DEVICES="1") != kind(CUDA_VISIBLE_DEVICES="")
    (nvidia / "gpus" / "1" / "information").write_text("Model: V100\n")
    assert kind(CUDA_VISIBLE_DEVICES="0") != kind(CUDA_VISIBLE_DEVICES="1")
