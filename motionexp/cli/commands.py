"""The commands of the program, as its help describes them. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from motionexp.config import export, prediction
from motionexp.config.card import CardConfig
from motionexp.config.commands import (
    DashboardConfig,
    ReportConfig,
    StatusConfig,
    SubmissionConfig,
    TableConfig,
    UiConfig,
)
from motionexp.config.schema import ScoreConfig
from motionexp.config.study import StudyConfig

OF_CLIPS = ("video", "caption", "edits", "start", "fps", "stride", "fit")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What help says of a command.

    Attributes:
        usage: {words after `python run.py`: what they do}.
        settings: the schema of its settings.
        of_jobs: the settings of a job on which it depends too.
        meanings: {setting of a job: its meaning here, where that is another one}; a group among them has no
            default here.
        selects: whether other words NAME=VALUE select samples by their rows.
        flags: {flag: what it does}.
    """

    usage: Mapping[str, str]
    settings: Any = None
    of_jobs: tuple[str, ...] = ()
    meanings: Mapping[str, str] = field(default_factory=dict)
    selects: bool = False
    flags: Mapping[str, str] = field(default_factory=dict)


COMMANDS: Mapping[str, Command] = {
    "score": Command(
        usage={"score folder=FOLDER data=tgve": "score the videos of another system"},
        settings=ScoreConfig,
    ),
    "submission": Command(
        usage={
            "submission folder=NEW samples=outputs/tgve/MODEL tau=700": "finished samples in TGVE's"
            " submission layout; layout=videos: as videos with prompts and references"
        },
        settings=SubmissionConfig,
        selects=True,
    ),
    "export": Command(
        usage={
            "export adapter=FOLDER format=comfyui folder=NEW": "an adapter for other tools, and its window:"
            " format=diffusers, comfyui, kohya or peft; recipe=, sampler=, steps=, shift=, timestep_spacing="
            " and frames= of the sampling there (docs/adapters.md)"
        },
        settings=export.ExportSettings,
        of_jobs=export.OF_JOBS,
        meanings={"model": "that the adapter was tuned on; without it, as the adapter's file says"},
    ),
    "table": Command(
        usage={
            "table output=FOLDER by=tau,rank model=latte": "a table of finished samples, by some of their"
            " settings; words select rows"
        },
        settings=TableConfig,
        selects=True,
    ),
    "report": Command(
        usage={
            "report output=FOLDER folder=NEW tau=700": "pages: videos in step, plots, tables, probes,"
            " failures; words select rows; compare=A,B shows two"
        },
        settings=ReportConfig,
        selects=True,
    ),
    "predict": Command(
        usage={
            "predict model=NAME data=NAME": "when each factor is set, from the VAE and the schedule alone"
        },
        of_jobs=prediction.SETTINGS,
        meanings={
            "references": "clips, by number or name; null: all. In the bundled world a number of pairs",
            "probe_steps": "sampling steps of the probe that is predicted",
        },
    ),
    "list": Command(
        usage={
            "list runs output=FOLDER tau=700": "runs: settings, state, scores, paths; words select",
            "list references": "the references of data=, with their captions and edits",
            "list words": "the words that the tokenizer of model= has",
        },
        of_jobs=("data", *OF_CLIPS, "model", "output", "plugins"),
        meanings={"output": "of list runs: folder of a sweep or of cells"},
    ),
    "status": Command(
        usage={"status output=FOLDER --watch": "cells done, running, failed and waiting; time left"},
        settings=StatusConfig,
        flags={"--watch": "again every few seconds, until all is done; Ctrl-C ends it"},
    ),
    "study": Command(
        usage={
            "study folder=NEW output=FOLDER": "a user study of finished samples, as a static page",
            "study tally NEW/answers/*.json": "its table: top-pick rates, agreement, rejected answers;"
            " key=NEW/key.json where the answers lie elsewhere",
        },
        settings=StudyConfig,
        selects=True,
    ),
    "ui": Command(
        usage={"ui output=FOLDER port=7860": "a page on this machine to try it on: needs motionexp[ui]"},
        settings=UiConfig,
    ),
    "card": Command(
        usage={"card adapter=FOLDER push=USER/NAME": "a hub repository's README.md with scores and videos"},
        settings=CardConfig,
        selects=True,
    ),
    "dashboard": Command(
        usage={"dashboard project=NAME": "the project's workspace in Weights & Biases, or its JSON"},
        settings=DashboardConfig,
    ),
}
"""By name, in the order in which help lists them."""
