"""Pinned: the ids and losses of these versions of the stages, and cells of the first release."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from motionexp.backbones.latte import LatteBackbone
from motionexp.config.compose import load
from motionexp.config.ids import adapter_id, sample_id
from motionexp.config.schema import BUNDLED, JobConfig
from motionexp.errors import InputError
from motionexp.jobs.job import Job, encode
from motionexp.jobs.run import run
from motionexp.methods.adapters import load_adapter
from motionexp.methods.base import TrainingSettings
from motionexp.methods.training import Example, fit
from motionexp.results.rows import read_rows, score_id_of
from motionexp.results.versions import check_comparable, of_newest_version
from tests.support.kept_results import contents
from tests.support.training_runs import METHODS, attach

GOLDEN = Path(__file__).parent / "golden"
MODELS = ("tiny_latte", "tiny_unet3d", "tiny_cogvideox")
PINNED: Mapping[str, Any] = json.loads((GOLDEN / "golden.json").read_text())
# A step of tiny_unet3d takes a second: of its methods those that differ in kind.
ON_UNET3D = ("full_rank", "lora", "t_lora", "vmc")
CASES = [
    (model, method) for model in MODELS for method in METHODS if model != "tiny_unet3d" or method in ON_UNET3D
]
REFUSED = [case for case in CASES if "refused" in PINNED[case[0]].get(case[1], {})]
IDS_OF_FIRST_RELEASE = [(model, method) for model in MODELS for method in ("lora", "full_rank")]
# One minus a cosine is near zero, where the rounding of fp32 is 1e-7; so are squared differences of maps.
TOLERANCES = {"vmc": (1e-4, 1e-6), "motion_matcher": (0.05, 1e-9)}
CELL = ("rank=1", "projections=[v]", "tau=800", "train_steps=2", "steps=2", "precision=fp32", "device=cpu",
        'edits=["a red plain star is moving on ice"]', "metrics=[flow_similarity,trajectory]")  # fmt: skip


def ids_of(model: str, method: str) -> dict[str, list[str]]:
    """Two adapter ids, two sample ids and a score id, of made-up weights and videos."""
    changed = ["tau=300", "rank=8", "projections=[q,v]", "tau_high=900", "eta=0.5"]
    jobs = [load([f"model={model}", f"method={method}", *changes]) for changes in ([], changed)]
    adapters = [
        adapter_id(cfg, weights_hash="weights", precision="fp32", reference_hash="video") for cfg in jobs
    ]
    samples = [
        sample_id(cfg, adapter, caption="a caption", index=index)
        for index, (cfg, adapter) in enumerate(zip(jobs, adapters, strict=True))
    ]
    return {
        "adapter": adapters,
        "sample": samples,
        "score": [score_id_of(samples[0], "flow_similarity", 1, "")],
    }


@pytest.fixture(scope="module")
def job_of(tmp_path_factory) -> Callable[[str], tuple[Job, Example]]:
    """By model a job on the first reference, and that reference encoded, made once."""

    @cache
    def job(model: str) -> tuple[Job, Example]:
        output = tmp_path_factory.mktemp(model)
        cfg = load([f"model={model}", "precision=fp32", "device=cpu", "train_steps=4", f"output={output}"])
        job = Job(cfg, Console(quiet=True))
        (reference,) = job.references
        return job, encode(job.backbone, reference)

    return job


def losses_of(job: Job, example: Example, method: str, folder: Path) -> list[float]:
    """The losses of four training steps."""
    tuning = attach(method, job.backbone, job.window)
    try:
        settings = TrainingSettings(steps=4, batch_size=job.plan.training.batch_size, checkpoint_every=0)
        return fit(job.backbone, tuning, [example], settings, folder / "fit", progress=False).losses
    finally:
        tuning.remove()


@pytest.mark.parametrize(("model", "method"), IDS_OF_FIRST_RELEASE)
def test_ids_are_those_of_the_versions_of_their_stages(model, method):
    assert ids_of(model, method) == PINNED[model][method]["ids"]


@pytest.mark.parametrize(("model", "method"), REFUSED)
def test_a_model_without_what_a_method_needs_is_refused(model, method):
    with pytest.raises(
        InputError, match=rf"method={method}: {model} has no {PINNED[model][method]['refused']}"
    ):
        load([f"model={model}", f"method={method}"])


@pytest.mark.parametrize(("model", "method"), [case for case in CASES if case not in REFUSED])
def test_losses_are_those_of_the_training_version(model, method, job_of, tmp_path):
    losses = losses_of(*job_of(model), method, tmp_path)
    if method not in PINNED[model]:
        pytest.fail(f"method {method}: tests/golden/golden.json pins no losses on {model}: add {losses}")
    relative, absolute = TOLERANCES.get(method, (1e-4, 1e-9))
    assert losses == pytest.approx(PINNED[model][method]["losses"], rel=relative, abs=absolute)


def settings_of_cell(method: str, output: Path) -> JobConfig:
    return load([f"method={method}", *CELL, "base_model=false", f"output={output}"])


def test_a_cell_of_the_first_release_stays_and_is_trained_again(tmp_path):
    """Its training drew the same noise for every reference: no mean mixes it with a cell of today."""
    folder = tmp_path / "shapes" / "tiny_latte" / "96840ce9201c"
    shutil.copytree(GOLDEN / "cells" / folder.name, folder)
    before = contents(folder)
    rows = run(settings_of_cell("lora", tmp_path))
    assert contents(folder) == before
    assert {(row.training_seed, *row.versions.items()) for row in rows} == {
        (0, ("training", 2), ("sampling", 2))
    }
    stored = read_rows(tmp_path)
    assert len(stored) == len(rows) + len(read_rows(folder))
    with pytest.raises(InputError, match=r"training_version: 1, 2"):
        check_comparable(stored)
    assert {row.score_id for row in of_newest_version(stored)} == {row.score_id for row in rows}
    check_comparable(read_rows(folder))


def test_an_adapter_of_the_first_release_is_loaded():
    """Its file names the method `direct`, which is `full_rank` today."""
    backbone = LatteBackbone.from_pretrained(BUNDLED / "tiny_latte", name="tiny_latte")
    method = load_adapter(GOLDEN / "cells" / "3a92a6706a20" / "adapter", backbone)
    assert (method.name, method.settings["projections"]) == ("full_rank", ["v"])
    method.remove()
