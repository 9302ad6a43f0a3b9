"""The run of a cell in Weights & Biases: offline below the output, unless WANDB_MODE says otherwise."""

import os
import shutil
from pathlib import Path
from typing import Any

import wandb

from motionexp.jobs.cell import ADAPTER_FILE, read_fit_record
from motionexp.jobs.logged import Logged, Video

PROJECT = "motionexp"


def begin(output: Path, run_id: str, *, name: str, group: str, kind: str, config: dict[str, Any]) -> Any:
    """Begin a run whose files lie in `OUTPUT/wandb`, in place of an older one of the same id.

    Args:
        output: the folder of results.
        run_id: of the run, within the project.
        name: that is shown.
        group: of runs; empty: none.
        kind: the job type.
        config: plain values.
    """
    is_offline = os.environ.get("WANDB_MODE", "offline") == "offline"
    output.mkdir(parents=True, exist_ok=True)
    # Tables with videos copy these: beside the runs, and not into the user's home.
    os.environ.setdefault("WANDB_DATA_DIR", str((output / "wandb").absolute()))
    if is_offline:
        # A run is written whole: of two files of one run the older one has nothing that the newer one lacks.
        for folder in (output / "wandb").glob(f"offline-run-*-{run_id}"):
            shutil.rmtree(folder)
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        dir=output,
        id=run_id,
        name=name,
        group=group or None,
        job_type=kind,
        config=config,
        mode=None if "WANDB_MODE" in os.environ else "offline",
        # Offline there is no server that has the run's earlier part.
        resume=None if is_offline else "allow",
        reinit="create_new",
        settings=wandb.Settings(console="off", x_disable_stats=True, silent=True),
    )


class WandbLog:
    """The run of one cell."""

    def __init__(self, output: Path, logged: Logged, with_adapter: bool) -> None:
        self._with_adapter = with_adapter
        self._run = begin(
            output,
            logged.run_id,
            name=logged.name,
            group=logged.sweep,
            kind="base model" if logged.is_base else logged.method,
            config=logged.config,
        )
        self._run.define_metric("loss", step_metric="step")
        self._run.define_metric("scores/*", step_metric="tau")
        self._run.define_metric("metrics/*", step_metric="tau")

    def loss(self, step: int, loss: float) -> None:
        """A point of the curve over training steps."""
        self._run.log({"loss": loss, "step": step})

    def results(self, logged: Logged) -> None:
        """Scores, videos, the table that links reference, edits and seeds, and the adapter if asked for."""
        self._run.config.update(logged.config, allow_val_change=True)
        videos = {key: _media(video) for key, video in logged.videos().items()}
        columns, lines = logged.columns, logged.lines()
        place, keys = columns.index("video"), logged.keys()
        table = wandb.Table(columns=["reference video", *columns], allow_mixed_types=True)
        for line in lines:
            key = keys.get(line[columns.index("sample")], "")
            line[place] = videos.get(key)
            table.add_data(videos["reference"], *line)
        self._run.log({**logged.means(), "tau": logged.tau, **videos, "samples": table})
        if self._with_adapter and (logged.cell.adapter / ADAPTER_FILE).exists():
            self._run.log_artifact(_artifact(logged))

    def close(self, error: str = "") -> None:
        """End the run; with an error as a failed one."""
        if error:
            self._run.summary["error"] = error
        self._run.finish(exit_code=int(bool(error)))


def _media(video: Video) -> Any:
    # Of a path: W&B would need moviepy to encode frames.
    return wandb.Video(str(video.path), caption=video.caption, format="mp4")


def _artifact(logged: Logged) -> Any:
    record = read_fit_record(logged.cell.adapter)
    about = {name: value for name, value in record.items() if name != "losses"}
    artifact = wandb.Artifact(f"adapter-{logged.cell.folder.name}", type="adapter", metadata=about)
    for path in sorted(logged.cell.adapter.iterdir()):
        if path.suffix in (".safetensors", ".json"):
            # Not copied into the user's home.
            artifact.add_file(str(path), policy="immutable")
    return artifact
