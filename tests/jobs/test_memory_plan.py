"""The memory that a dry run tells, beside the resident memory that the job then takes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from diffusers import LattePipeline, LatteTransformer3DModel
from transformers import T5Config, T5EncoderModel

from motionexp.jobs.inputs import plan_job
from motionexp.jobs.memory_plan import Phase, memory_plan
from tests.support.memory_job import settings
from tests.support.tiny_models import save_tiny_pipeline, tiny_pipeline

ROOT = Path(__file__).parents[2]


def save_larger_pipeline(folder: Path, halves: int) -> Path:
    """`tiny_pipeline` for `16 * halves` pixels.

    With two halves the network has 31 MB and the text encoder 43 MB; both grow with the cube of `halves`.
    """
    parts = tiny_pipeline().components
    heads, text = 2 * halves, 192 * halves
    changes = {"sample_size": 4 * halves, "num_layers": heads, "attention_head_dim": 64, "video_length": 8}
    changes |= {"num_attention_heads": heads, "caption_channels": text, "cross_attention_dim": 64 * heads}
    network = LatteTransformer3DModel.from_config({**parts["transformer"].config, **changes})
    config = T5Config(
        vocab_size=80, d_model=text, d_kv=64, d_ff=4 * text, num_layers=3 * halves, num_heads=3 * halves
    )
    larger = {**parts, "transformer": network, "text_encoder": T5EncoderModel(config)}
    LattePipeline(**larger).save_pretrained(folder)
    return folder


def plan(job: list[Any]) -> list[Phase]:
    return memory_plan(plan_job(settings(*job)))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux")
def test_a_plan_tells_the_memory_that_a_job_takes(tmp_path: Path) -> None:
    """At two sizes, a factor of 27 / 8 apart, and in both modes; the text encoder is the larger half."""
    tiny = str(save_tiny_pipeline(tmp_path / "tiny"))
    small, large = (str(save_larger_pipeline(tmp_path / f"{halves} halves", halves)) for halves in (2, 3))
    jobs: list[list[Any]] = [
        [tiny, 4, 16, str(tmp_path / "imports"), {}],
        [small, 8, 32, str(tmp_path / "small"), {}],
        [large, 8, 48, str(tmp_path / "large"), {}],
        [large, 8, 48, str(tmp_path / "low"), {"mode": "low_memory"}],
    ]
    # Else glibc keeps what is given back for later, in pieces: up to a third on top.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.memory_job", json.dumps(jobs)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    peaks = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak")]
    plans = [plan(job) for job in jobs[1:]]
    planned = [max(phase.total for phase in phases) for phases in plans]
    print("measured", peaks[1:], "planned", planned)
    assert peaks[1:] == [pytest.approx(peak, rel=0.15) for peak in planned]
    assert 2.5 < planned[1] / planned[0] < 4.2
    # The peaks are not the sum of text encoder and network: the one is gone before the other comes.
    weights = {part: size for phase in plans[2] for part, size in phase.weights.items()}
    assert peaks[3] < weights["text encoder (fp32)"] + weights["network (fp32)"]
    assert planned[2] < 0.9 * planned[1]
