"""The benchmark at full size, at tiny size and on the CPU; and the folders without weights that it loads."""

import math
import re
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from rich.console import Console
from safetensors import safe_open
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.random_weights import CHECKPOINTS, RandomCheckpoint, write_checkpoint
from motionexp.config.schema import JobConfig
from motionexp.jobs.job import Job, encode
from motionexp.methods.training import Example
from motionexp.scripts import bench_full_size as bench
from motionexp.scripts.bench_full_size import LOOPS, PLANNED, Loop, Scale
from tests.support.squares import Squares
from tests.support.tiny_families import FAMILIES
from tests.support.tiny_jobs import job_settings
from tests.support.tiny_models import FRAMES, SIZE, save_tiny_pipeline, tiny_pipeline

CPU = torch.device("cpu")
LATTE = "motionexp.backbones.latte.LatteBackbone"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def example(folder: Path) -> Example:
    return encode(LatteBackbone.from_pretrained(folder), Squares().read("one", FRAMES, SIZE, SIZE))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 2, "STEPS": 1, "WARM_UP": 1, "COMPILER": "eager"}.items():
        monkeypatch.setattr(bench, name, value)
    # As on a GPU: a CPU in bf16 takes the kernel that is not fused for so few tokens.
    monkeypatch.setattr("motionexp.backbones.precision.plain_attention", lambda *_: False)


def test_a_folder_without_weights_is_read_as_one_with_them(tmp_path: Path, folder: Path) -> None:
    whole = tiny_pipeline().components
    parts: dict[str, Any] = {
        part: partial(type(whole[part]).from_config, whole[part].config) for part in ("transformer", "vae")
    }
    parts["text_encoder"] = partial(type(whole["text_encoder"]), whole["text_encoder"].config)
    hole = write_checkpoint(RandomCheckpoint(LatteBackbone, parts, DDIMScheduler), tmp_path / "hole")
    for part in parts:
        (real,), (empty,) = ((where / part).glob("*.safetensors") for where in (folder, hole))
        assert real.name == empty.name
        shapes = []
        for file in (real, empty):
            with safe_open(file, framework="pt") as content:
                names = sorted(content.keys())
                shapes.append({name: content.get_slice(name).get_shape() for name in names})
        assert shapes[0] == shapes[1]
    backbone = LatteBackbone.from_pretrained(hole)
    assert not any(parameter.any() for parameter in backbone.network.parameters())
    bench.randomize(backbone.network)
    assert backbone.network.proj_out.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_latte_without_weights_has_the_real_ones_sizes_and_hardly_any_bytes(tmp_path: Path) -> None:
    latte = CHECKPOINTS["latte"]
    small = RandomCheckpoint(latte.kind, {"transformer": latte.parts["transformer"]}, latte.scheduler)
    (file,) = (write_checkpoint(small, tmp_path / "latte") / "transformer").glob("*.safetensors")
    assert file.stat().st_size == pytest.approx(2 * 1_057_246_880, rel=1e-3)
    assert file.stat().st_blocks * 512 < 1e6


ONEDNN_LINEAR = torch.ops.mkldnn._linear_pointwise


def linear_flops(x: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    """PyTorch counts none of oneDNN's products."""
    return 2 * math.prod(x) * weight[0]


def test_loops_differ_by_what_they_say(folder: Path, example: Example) -> None:
    flops = {}
    for part, measures in LOOPS.items():
        if measures.compiled:  # of which nothing can be counted
            continue
        encoded = Mock(return_value=example)
        loop = Loop(folder, measures, encoded, CPU)
        assert loop.backbone.network.dtype == (torch.bfloat16 if measures.half else torch.float32)
        before = [value.clone() for value in loop.method.parameters.values()]
        # The fused kernels compute the scores again in the backward pass.
        counter = FlopCounterMode(display=False, custom_mapping={ONEDNN_LINEAR: linear_flops})
        with sdpa_kernel(SDPBackend.MATH), counter:
            loop.step()
        flops[part] = counter.get_total_flops()
        assert encoded.call_count == 1
        assert not all(map(torch.equal, loop.method.parameters.values(), before))
    # Counted on tensors without numbers, a step has the arithmetic of the loop that computes nothing twice.
    least = flops["all measures"]
    assert bench.step_flops(folder, example) == least
    more = {part for part, count in flops.items() if count > least}
    assert more == {bench.PLAIN, "checkpointing", "gradient to the first layer"}
    assert flops[bench.PLAIN] == flops["checkpointing"]


def test_a_loop_is_measured_in_rounds_beside_the_plain_one(folder: Path, example: Example) -> None:
    scale = Scale(flops=1000, peak=1e6)
    plain = bench.loop_times(folder, bench.PLAIN, lambda: example, CPU, scale)
    compiled = bench.loop_times(folder, "compiled beside", lambda: example, CPU, scale)
    assert len(plain) == len(compiled) == 2
    for times in compiled:
        values = {metric: value for metric, _, value in times}
        assert all(np.isfinite(value) and value > 0 for value in values.values())
        assert values["share_of_bf16_peak"] == pytest.approx(1e-3 / values["training_step_seconds"])
        ratio = scale.plain / values["training_step_seconds"]
        assert values["times_as_fast_as_plain"] == pytest.approx(ratio)


def test_what_does_not_fit_is_a_row_that_says_so(
    folder: Path, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(loop: Loop) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Loop, "step", full)
    times = bench.loop_times(folder, "all measures", lambda: example, CPU, Scale(1, 1.0))
    (row,) = bench.rows_of(Job(settings(folder, tmp_path, "fast"), Console(quiet=True)), times)
    assert np.isnan(row.value)
    assert (row.suite, row.strata["part"], row.reason) == ("bench_full_size", "all measures", "out of memory")


def settings(folder: Path, output: Path, mode: str) -> JobConfig:
    changes = {"mode": mode, "edits": ["b"], "train_steps": 3, "metrics": ["text_alignment"]}
    return job_settings(LATTE, folder, (FRAMES, SIZE, SIZE), output=str(output), **changes)


@pytest.mark.slow
def test_all_is_measured_and_becomes_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops = {part: LOOPS[part] for part in (bench.PLAIN, "all measures")}
    monkeypatch.setattr(bench, "LOOPS", loops)
    cfgs = [settings(folder, tmp_path, mode) for mode in bench.MODES]
    family = FAMILIES["wan"]
    wan = "motionexp.backbones.wan.WanBackbone", family.save(tmp_path / "wan"), family.video
    monkeypatch.setattr(family.kind, "caption_tokens", family.captions[1])
    changes = {"edits": ["b"], "train_steps": 2, "metrics": ["text_alignment"], "network_precision": "fp8"}
    changes["model"] = {"frame_range": [5, 81]}
    rows = list(bench.measure(cfgs, [job_settings(*wan, output=str(tmp_path), **changes)]))
    parts = {row.strata["part"] for row in rows if row.metric == "training_step_seconds"}
    of_wan = "tiny mode=fast network_precision=fp8"
    assert parts == {*loops, "mode=fast", "mode=low_memory", of_wan}
    rows, wans = (
        [row for row in rows if row.strata["part"].startswith("tiny") == is_wan] for is_wan in (0, 1)
    )
    assert {row.train_steps for row in wans} == {2}
    assert {row.metric for row in wans} == {row.metric for row in rows} - {"times_as_fast_as_plain"}
    phases = [(row.metric, row.strata["part"]) for row in rows if "low_memory, " in row.strata["part"]]
    assert phases == [
        (metric, f"mode=low_memory, {phase}")
        for phase in ("captions", "video", "training")
        for metric in ("peak_memory_gb", "planned_memory_gb")
    ]
    by_metric = {(row.metric, row.strata["part"]): row for row in rows}
    seconds = by_metric["training_seconds", "mode=fast"].value
    assert by_metric["training_step_seconds", "mode=fast"].value == pytest.approx(seconds / 3)
    share = by_metric["share_of_bf16_peak", "mode=fast"]
    assert np.isnan(share.value)  # nobody has told a CPU's
    assert share.reason == "the peak of this device is not known"
    assert {row.train_steps for row in rows} == {3}


@pytest.mark.slow
def test_without_a_gpu_it_plans_and_then_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench, "PLANNED", {"latte": PLANNED["latte"]})  # the others take minutes
    assert bench.main([f"output={tmp_path / 'out'}"]) == 2
    printed = capsys.readouterr()
    assert re.search(r" 9\.5 GB.* 12 GB", printed.out)
    assert "make bench-full-size" in printed.err
    assert not (tmp_path / "out" / "rows.jsonl").exists()
