"""Where losses, scores and videos of a cell go, read back with the readers of each logger."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from motionexp.config.ids import sampling_id
from motionexp.config.run_settings import RunSettings
from motionexp.errors import InputError
from motionexp.jobs import loggers as loggers_module
from motionexp.jobs.cell import Cell
from motionexp.jobs.job import Job
from motionexp.jobs.logged import Logged
from motionexp.jobs.loggers import JobLogs, check_login
from motionexp.jobs.run import run
from motionexp.jobs.sweep_folder import SweepFolder
from motionexp.jobs.sweep_plan import SWEEP_FOLDER
from motionexp.jobs.sweep_table import log_summary
from motionexp.results.cell_state import read_progress
from motionexp.results.settings_table import settings_tables
from tests.support.kept_results import cells
from tests.support.made_rows import rank_row
from tests.support.made_sweeps import planned, write_cell, write_plan
from tests.support.squares import Squares
from tests.support.tiny_models import FRAMES, SIZE

SWEEP = "0a1b2c3d4e5f"
METRICS = {"metrics/brightness", "metrics/darkness"}
SAMPLES = {"samples/style-0", "samples/object-0"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", "")  # which monkeypatch takes away again
    monkeypatch.delenv("WANDB_DATA_DIR")
    monkeypatch.setenv(SWEEP_FOLDER, f"outputs/sweeps/{SWEEP}")


def wandb_runs(output: str) -> list[Path]:
    """The folders of offline runs."""
    return sorted((Path(output) / "wandb").glob("offline-run-*"))


def records(folder: Path) -> dict[str, list[dict]]:
    """What W&B's own reader finds in the folder of a run, by type."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    by_type: dict[str, list[dict]] = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        by_type.setdefault(record["type"], []).append(record[record["type"]])
    return by_type


def test_three_loggers_get_the_loss_the_scores_and_the_videos(make, monkeypatch):
    cfg = make(logger=["csv", "tensorboard", "wandb"], log_adapter=True)
    rows = run(cfg)
    (cell,) = cells(cfg)
    losses = json.loads((cell / "adapter" / "fit.json").read_text())["losses"]
    _check_csv(cell / "logs" / "csv", cfg, rows, losses)
    _check_tensorboard(cell / "logs" / "tensorboard", rows, losses)
    (folder,) = wandb_runs(cfg.output)
    _check_wandb(folder, cell, rows, losses)
    assert not (Path.home() / ".local" / "share" / "wandb" / cell.name).exists()
    progress = read_progress(cell / "progress.json")
    assert progress is not None
    assert (progress.stage, progress.steps) == ("score", 2)
    # Again: nothing is written twice. With other content the run is replaced, under the same id.
    run(cfg)
    assert wandb_runs(cfg.output) == [folder]
    monkeypatch.setenv(SWEEP_FOLDER, "outputs/sweeps/ffff")
    run(replace(cfg, logger="wandb"))
    (again,) = wandb_runs(cfg.output)
    assert again.name.split("-", 3)[3] == folder.name.split("-", 3)[3]
    (file,) = again.glob("run-*.wandb")
    header = file.read_bytes()
    assert b"ffff" in header
    assert SWEEP.encode() not in header


def _check_csv(folder: Path, cfg, rows, losses) -> None:
    with open(folder / "losses.csv") as file:
        assert [float(line["loss"]) for line in csv.DictReader(file)] == pytest.approx(losses, rel=1e-4)
    with open(folder / "scores.csv") as file:
        lines = {line["sample"]: line for line in csv.DictReader(file)}
    assert set(lines) == {row.sample_id for row in rows}
    for row in rows:
        line = lines[row.sample_id]
        assert float(line[row.metric]) == pytest.approx(row.value)
        assert (line["reference"], line["edit"], line["seed"]) == ("one", row.edit_kind, "0")
        assert (Path(cfg.output) / line["video"]).exists()


def _check_tensorboard(folder: Path, rows, losses) -> None:
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses, rel=1e-4)
    assert set(tags["scalars"]) == METRICS | {"loss"}
    assert set(tags["images"]) == {"reference", "grid"} | SAMPLES
    for tag in SAMPLES:
        (image,) = events.Images(tag)
        with Image.open(io.BytesIO(image.encoded_image_string)) as gif:
            assert (gif.format, gif.n_frames) == ("GIF", FRAMES)
    (table,) = events.Tensors("samples/text_summary")
    assert all(row.sample_id.encode() in table.tensor_proto.string_val[0] for row in rows)


def _check_wandb(folder: Path, cell: Path, rows, losses) -> None:
    read = records(folder)
    (begun,) = read["run"]
    assert begun["run_group"] == SWEEP
    assert begun["job_type"] == "lora"
    assert folder.name.endswith(begun["run_id"])
    config = {key: value for update in (begun, *read["config"]) for key, value in
              update.get("config", update)["update"].items()}  # fmt: skip
    about = {
        "cell": cell.name,
        "reference": "one",
        "tau": 500,
        "rank": 4,
        "model": "tiny",
        "precision": "fp32",
    }
    assert {key: config[key] for key in about} == about
    history = [record["item"] for record in read["history"]]
    assert [item["loss"] for item in history if "loss" in item] == pytest.approx(losses, rel=1e-4)
    (results,) = (item for item in history if "tau" in item)
    for metric in METRICS:
        values = [row.value for row in rows if f"metrics/{row.metric}" == metric]
        assert results[metric] == pytest.approx(sum(values) / len(values))
    summary = {key for record in read["summary"] for key in record.get("update", {})}
    assert summary >= METRICS
    # Every medium is there, with its caption.
    captions = {
        "reference": "one square",
        "samples/style-0": "one red (seed 0)",
        "samples/object-0": "one blue (seed 0)",
    }
    for key in (*captions, "grid"):
        path = folder / "files" / results[f"{key}.path"]
        assert path.stat().st_size == results[f"{key}.size"]
        assert captions.get(key, "one tau=500") == results[f"{key}.caption"]
    (file,) = (folder / "files" / "media" / "table").glob("samples_*.json")
    table = json.loads(file.read_text())
    columns = table["columns"]
    assert columns[:3] == ["reference video", "reference", "training seed"]
    assert {line[columns.index("sample")] for line in table["data"]} == {row.sample_id for row in rows}
    (adapter,) = (record for record in read["artifact"] if record["type"] == "adapter")
    paths = {entry["path"] for entry in adapter["manifest"]["contents"]}
    assert paths == {"adapter.safetensors", "fit.json"}
    staged = [entry["local_path"] for record in read["artifact"] for entry in record["manifest"]["contents"]]
    assert all(path.startswith(str(cell.parents[2])) for path in staged), "nothing is copied into the home"
    (end,) = read["exit"]
    assert end["exit_code"] == 0


def test_a_sweep_has_a_run_with_its_tables_its_figure_and_its_failures(tmp_path, make):
    rows = [
        rank_row(metric, reference, tau, 4, value=value)
        for metric in ("velocity_similarity", "nuisance_similarity", "nuisance_chance", "text_alignment")
        for reference in range(3)
        for tau, value in ((0.0, 0.5), (700.0, 0.25), (1000.0, 0.1))
    ]
    tables = settings_tables(rows, ["tau"], "3 jobs by tau")
    cell = write_cell(tmp_path, 3, "failed", error="the loss is nan")
    cfg = make(logger="wandb", output=str(tmp_path))
    sweep = SweepFolder.of([cfg]).path.name
    write_plan(tmp_path, [planned(3, 0)], sweep)
    log_summary([cfg], tables)
    (folder,) = wandb_runs(str(tmp_path))
    read = records(folder)
    assert (read["run"][0]["run_group"], read["run"][0]["run_id"]) == (sweep, sweep)
    (results,) = (record["item"] for record in read["history"])
    content = {
        name: json.loads((folder / "files" / results[f"{name}.path"]).read_text())
        for name in ("table", "means", "failures")
    }
    assert content["failures"]["data"][0][::2] == [str(cell), "the loss is nan"]
    assert [line[1] for line in content["table"]["data"][:3]] == ["base model", "0", "700"]
    means = {tuple(line[:3]): line[3] for line in content["means"]["data"]}
    assert means["tiny_latte on shapes", "700", "motion similarity ↑"] == pytest.approx(0.25)
    with Image.open(folder / "files" / results["figure.path"]) as figure:
        assert figure.width > 1000


class Recorded:
    """A logger that notes what it gets."""

    written: ClassVar[list[object]] = []

    def __init__(self, folder: Path) -> None:
        self.written.append("begin")

    def loss(self, step: int, loss: float) -> None:
        self.written.append(step)

    def results(self, logged: Logged) -> None:
        self.written.append(logged.name)

    def close(self, error: str = "") -> None:
        self.written.append(error or "end")


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(loggers_module, "CsvLog", Recorded)
    Recorded.written = []
    return Recorded.written


def test_a_logger_that_was_not_asked_before_gets_what_is_stored(make, recorded, monkeypatch):
    cfg = make()
    with monkeypatch.context() as before:
        before.setattr(JobLogs, "finish", lambda *_: None)
        run(cfg)
    recorded.clear()
    run(cfg)
    assert recorded == ["begin", 1, 2, "one tau=500", "end"]
    recorded.clear()
    run(cfg)
    assert recorded == []


def test_a_cell_that_fails_ends_its_runs_with_the_error(make, recorded, monkeypatch):
    monkeypatch.setattr(Cell, "save_sample", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(make())
    assert recorded == ["begin", 1, 2, "ZeroDivisionError: division by zero"]


def test_the_base_model_s_cell_has_a_run_which_others_name(make, recorded):
    cfg = make(base_model=True)
    runs: list[Logged] = []
    original = Recorded.results
    Recorded.results = lambda self, logged: runs.append(logged)  # type: ignore[method-assign]
    try:
        run(cfg)
    finally:
        Recorded.results = original  # type: ignore[method-assign]
    tuned, base = runs
    assert base.is_base
    assert tuned.config["base_run"] == base.run_id
    assert base.name.endswith("base model")
    assert (tuned.config["curve"], base.config["curve"]) == (tuned.curve, base.curve)


def test_a_curve_over_tau_is_of_one_model_method_and_other_settings(make):
    def curve(**changes: object) -> str:
        cfg = make(**changes)
        reference = Squares().read("one", FRAMES, SIZE, SIZE)
        return Logged(RunSettings.of(cfg), reference, Cell(Path("cell"))).curve

    full_rank = {"_target_": "motionexp.methods.full_rank.FullRank", "projections": ["v", "o"]}
    curves = [curve(tau=tau) for tau in (300.0, 700.0)]
    assert len(set(curves)) == 1
    assert curves[0].startswith("tiny on squares: lora")
    others = [curve(rank=16), curve(method=full_rank), curve(tau=1000.0), curve(adapter_scale=0.5)]
    assert len({curves[0], *others}) == 5
    assert "full_rank" in others[1]
    assert "base" in others[2]


def test_a_run_is_of_a_cell_and_its_sampling_and_not_of_where_it_goes(make):
    cfg = make()
    one = sampling_id(cfg)
    assert one != sampling_id(replace(cfg, steps=3))
    assert one != sampling_id(replace(cfg, adapter_scale=0.5))
    for name, value in {"logger": "wandb", "log_adapter": True, "output": "x", "seeds": 4}.items():
        assert one == sampling_id(replace(cfg, **{name: value}))
    base = replace(cfg, tau=1000.0)
    assert sampling_id(base) == sampling_id(replace(base, adapter_scale=0.5))


def test_a_server_without_a_login_is_refused_before_anything_runs(monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda *, prompt: False)
    with pytest.raises(InputError, match="logger=wandb"):
        check_login(["csv", "wandb"])
    check_login(["csv"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_login(["wandb"])


def test_edits_of_one_kind_have_keys_of_their_own(make):
    cfg = make(edits=["one red", "one blue", "a/../b"], seeds=2, metrics=["brightness"])
    job = Job(cfg, None)  # type: ignore[arg-type]
    (plan,) = job.plan.cells
    finished = Finished(plan.requests)
    logged = Logged(RunSettings.of(cfg), Squares().read("one", FRAMES, SIZE, SIZE), plan.cell, 0, finished)  # type: ignore[arg-type]
    assert sorted(logged.keys().values()) == [
        f"samples/caption{number}-{seed}" for number in ("", "_2", "_3") for seed in (0, 1)
    ]


class Finished:
    """The requests of a finished cell."""

    def __init__(self, requests) -> None:
        self.requests, self.rows, self.baselines, self.base = requests, [], None, None
