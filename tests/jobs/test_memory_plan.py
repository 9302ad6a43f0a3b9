"""Jobs in a process of their own: what they import, and the memory they take beside what a dry run tells."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LattePipeline, LatteTransformer3DModel
from transformers import T5Config, T5EncoderModel

from motionexp.backbones.latte import LatteBackbone
from motionexp.config import memory
from motionexp.config.compose import load
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.memory_plan import Phase, memory_plan, weight_bytes
from tests.support.memory_job import settings
from tests.support.tiny_models import save_tiny_pipeline, tiny_pipeline
from tests.support.training_runs import METHODS

ROOT = Path(__file__).parents[2]
IS_LINUX = Path("/proc/self/clear_refs").exists()


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


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    larger = {f"{halves} halves": save_larger_pipeline(folder / str(halves), halves) for halves in (2, 3)}
    return {"tiny": str(save_tiny_pipeline(folder / "tiny")), **{name: str(larger[name]) for name in larger}}


@pytest.fixture(scope="module")
def jobs(weights: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """See `memory_job`: what is imported, then two sizes, then the larger one in the other mode."""
    output = str(tmp_path_factory.mktemp("out") / "job")
    large = weights["3 halves"]
    return [
        [weights["tiny"], 4, 16, f"{output} tiny", {}],
        [weights["2 halves"], 8, 32, f"{output} small", {}],
        [large, 8, 48, f"{output} large", {}],
        [large, 8, 48, f"{output} low", {"mode": "low_memory"}],
    ]


@pytest.fixture(scope="module")
def printed(jobs: list[list[Any]]) -> dict[str, list[str]]:
    """The lines of a process that runs the jobs, by their first word. Without Linux it runs none."""
    # Else glibc keeps what is given back for later, in pieces: up to a third on top.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.memory_job", json.dumps(jobs if IS_LINUX else [])],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    return {
        word: [line[1] for line in lines if line[:1] == [word]] for word in ("imported", "frozen", "peak")
    }


def test_a_job_imports_neither_pictures_nor_loggers_nor_scorers(printed: dict[str, list[str]]) -> None:
    heavy = {"matplotlib", "wandb", "timm", "tensorboard", "open_clip", "motionexp.metrics.scorer"}
    assert {"motionexp.jobs.job", "torch"} <= set(printed["imported"])
    assert heavy & set(printed["imported"]) == set()
    assert torch.cuda.is_available() or "triton" not in printed["imported"]


def test_later_searches_for_garbage_leave_out_the_libraries_and_nothing_else(
    printed: dict[str, list[str]],
) -> None:
    first, second = map(int, printed["frozen"])
    assert 1e5 < second <= first


@pytest.mark.slow
@pytest.mark.skipif(not IS_LINUX, reason="resident memory is read from Linux")
def test_a_plan_tells_the_memory_that_a_job_takes(
    jobs: list[list[Any]], printed: dict[str, list[str]]
) -> None:
    """At two sizes, a factor of 27 / 8 apart, and in both modes; the text encoder is the larger half."""
    peaks = [int(peak) for peak in printed["peak"]]
    plans = [plan(job) for job in jobs[1:]]
    planned = [max(phase.total for phase in phases) for phases in plans]
    print("measured", peaks[1:], "planned", planned)
    assert peaks[1:] == [pytest.approx(peak, rel=0.15) for peak in planned]
    assert 2.5 < planned[1] / planned[0] < 4.2
    # The peaks are not the sum of text encoder and network: the one is gone before the other comes.
    weights = {part: size for phase in plans[2] for part, size in phase.weights.items()}
    assert peaks[3] < weights["text encoder (fp32)"] + weights["network (fp32)"]
    assert planned[2] < 0.9 * planned[1]


@pytest.mark.parametrize("precision", ["fp8", "4bit"])
def test_a_plan_for_a_gpu_elsewhere_knows_how_many_bits_weights_have(
    weights: dict[str, str], precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "find_spec", lambda name: name)
    phases = gpu_plan(weights["2 halves"], tmp_path, network_precision=precision)
    planned = phases["training"].weights[f"network ({precision})"]
    network = LatteBackbone.from_pretrained(weights["2 halves"], device="meta", dtype=torch.bfloat16).network
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Linear) and "transformer_blocks." in name and "norm" not in name
    }
    bits = {"fp8": 8, "4bit": 4.5}[precision]
    rounded = sum(layer.weight.numel() for layer in layers.values())
    biases = sum(layer.bias.numel() for layer in layers.values() if layer.bias is not None)
    saved = rounded * (16 - bits) / 8 + biases * (precision == "fp8")
    assert planned == pytest.approx(weight_bytes(network) - saved, rel=1e-6)
    assert saved > 0.3 * weight_bytes(network)


def test_a_plan_knows_which_blocks_wait_in_main_memory(weights: dict[str, str], tmp_path: Path) -> None:
    folder = weights["2 halves"]
    network = LatteBackbone.from_pretrained(folder, device="meta", dtype=torch.bfloat16).network
    blocks = [*network.transformer_blocks, *network.temporal_transformer_blocks]
    held = {}
    for offload in ("model", "group", "group_stream"):
        phases = gpu_plan(folder, tmp_path, offload=offload, checkpointing=True)
        held[offload] = phases["training"]
    (whole,), (rest,) = (held[name].weights.values() for name in ("model", "group"))
    assert whole == weight_bytes(network)
    assert rest == whole - sum(map(weight_bytes, blocks))
    largest = max(map(weight_bytes, blocks))
    ahead = [held[name].computing - held["model"].computing for name in ("group", "group_stream")]
    assert ahead[0] == largest
    assert largest < ahead[1] <= 2 * largest
    low = gpu_plan(folder, tmp_path, mode="low_memory")
    assert low["training"] == held["group_stream"]


def gpu_plan(folder: str, output: Path, **changes: Any) -> dict[str, Phase]:
    """The phases of a job on a GPU that is not here."""
    on_gpu = {"device": "cuda", "precision": "auto", "dry_run": True}
    phases = plan([folder, 8, 32, str(output), on_gpu | changes])
    return {phase.name: phase for phase in phases}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_planned_those_that_read_attention_too(name: str) -> None:
    job = plan_job(load([f"method={name}", "data.split=tuning", "references=1", "precision=fp32"]))
    training = next(phase for phase in memory_plan(job) if phase.name == "training")
    assert training.computing > 1e6
