"""Where losses, scores and videos of cells go: CSV files, TensorBoard and Weights & Biases, one or several.

Each logger writes one run for each cell, under an identity that the cell's settings give it. A run is written
whole: a cell that continues, or that is made again, replaces what it wrote before. Imports no torch.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from motionexp.data.videos import as_gif
from motionexp.errors import InputError
from motionexp.jobs.cell import read_fit_record, read_json, write_json
from motionexp.jobs.logged import Logged, write_csv
from motionexp.results.formats import printable

LOGGED = "logged.json"
"""In a cell's folder of logs: {logger: hash of what it has written}."""


def check_login(names: Sequence[str]) -> None:
    """Raises InputError for W&B where WANDB_MODE asks for its server and nobody is logged in."""
    if "wandb" in names and os.environ.get("WANDB_MODE") == "online":
        import wandb

        if not wandb.login(prompt=False):
            raise InputError(
                "logger=wandb: WANDB_MODE=online, and there is no key: run `wandb login` first, or leave"
                " WANDB_MODE out and upload the runs later with `wandb sync` (docs/usage.md)"
            )


class CellLog(Protocol):
    """What one logger writes of one cell."""

    def loss(self, step: int, loss: float) -> None:
        """Write the loss of a training step."""

    def results(self, logged: Logged) -> None:
        """Write the scores and videos of the finished cell."""

    def close(self, error: str = "") -> None:
        """End the run; `error` says why the cell failed."""


class CsvLog:
    """`csv/losses.csv` and `csv/scores.csv`; the videos are named by their paths."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "csv"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._losses = open(self._folder / "losses.csv", "w", buffering=1)  # noqa: SIM115  # `close` closes it
        self._losses.write("step,loss\n")

    def loss(self, step: int, loss: float) -> None:
        """A line, which another program can read at once."""
        self._losses.write(f"{step},{loss:.6g}\n")

    def results(self, logged: Logged) -> None:
        """A line for each sample, a column for each score."""
        write_csv(self._folder / "scores.csv", logged.columns, logged.lines())

    def close(self, error: str = "") -> None:
        """Close the file of losses."""
        self._losses.close()


class TensorBoardLog:
    """`tensorboard/`: loss, mean scores, videos as moving pictures, and a table of all scores."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # which imports torch

        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def loss(self, step: int, loss: float) -> None:
        """A point of the curve."""
        self._writer.add_scalar("loss", loss, step)

    def results(self, logged: Logged) -> None:
        """TensorBoard plays a GIF among its images. Images have no captions there, so that tags name them."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for name, mean in logged.means().items():
            self._writer.add_scalar(name, mean, 0)
        for name, video in logged.videos().items():
            frames = video.frames()
            gif = as_gif(frames, video.fps)
            _, height, width, channels = frames.shape
            image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=gif)
            summary = Summary(value=[Summary.Value(tag=name, image=image)])
            self._writer._get_file_writer().add_summary(summary, 0)
        self._writer.add_text("samples", logged.markdown(), 0)
        self._writer.add_text(
            "config", f"```json\n{json.dumps(logged.config, indent=2, default=str)}\n```", 0
        )

    def close(self, error: str = "") -> None:
        """End the file; the error is a text."""
        if error:
            self._writer.add_text("error", printable(error), 0)
        self._writer.close()


class JobLogs:
    """The loggers of a job, which go from cell to cell.

    Args:
        names: of loggers.
        adapters: whether W&B stores the adapters too.
        output: the folder of results, which has the folder `wandb`.
    """

    def __init__(self, names: Sequence[str], adapters: bool, output: Path) -> None:
        self.names, self.adapters, self.output = tuple(names), adapters, output
        self._open: dict[str, CellLog] = {}

    @contextmanager
    def ended_by_errors(self) -> Iterator[None]:
        """Within the block an error ends the runs that are open, as failed."""
        try:
            yield
        except BaseException as error:
            self._close(" ".join(f"{type(error).__name__}: {error}".split()))
            raise

    def training(self, logged: Logged) -> Callable[[int, float], None]:
        """Begin the runs of a cell that is trained; returns what notes the loss of a step."""
        self._begin(self.names, logged)

        def note(step: int, loss: float) -> None:
            for log in self._open.values():
                log.loss(step, loss)

        return note

    def finish(self, logged: Logged) -> None:
        """Write what loggers lack of a finished cell, and end its runs."""
        path = logged.cell.folder / "logs" / LOGGED
        before = read_json(path) or {}
        digests = {name: logged.digest(self.adapters and name == "wandb") for name in self.names}
        missing = [
            name for name in self.names if name not in self._open and before.get(name) != digests[name]
        ]
        if not missing and not self._open:
            return
        with self.ended_by_errors():
            self._begin(missing, logged)
            losses = read_fit_record(logged.cell.adapter).get("losses", ()) if missing else ()
            for step, loss in enumerate(losses, start=1):
                for name in missing:
                    self._open[name].loss(step, loss)
            for log in self._open.values():
                log.results(logged)
        self._close()
        write_json(path, {**before, **digests})

    def _begin(self, names: Sequence[str], logged: Logged) -> None:
        folder = logged.cell.folder / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        # What they wrote is replaced: until they are through they have nothing.
        stored = read_json(folder / LOGGED) or {}
        if rest := {name: digest for name, digest in stored.items() if name not in names}:
            write_json(folder / LOGGED, rest)
        else:
            (folder / LOGGED).unlink(missing_ok=True)
        for name in names:
            self._open[name] = self._make(name, folder, logged)

    def _make(self, name: str, folder: Path, logged: Logged) -> CellLog:
        match name:
            case "csv":
                return CsvLog(folder)
            case "tensorboard":
                return TensorBoardLog(folder)
            case "wandb":
                from motionexp.jobs.wandb_run import WandbLog  # which imports wandb

                return WandbLog(self.output, logged, self.adapters)
            case _:
                raise InputError(f"logger={name}: one of csv, tensorboard, wandb")

    def _close(self, error: str = "") -> None:
        logs, self._open = self._open, {}
        for log in logs.values():
            log.close(error)
