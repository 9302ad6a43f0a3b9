"""What there is to choose from: settings, options, references and words. Imports no torch."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from motionexp.config.checks import vocabulary
from motionexp.config.compose import CONF, EXPERIMENTS, GROUPS, load, options
from motionexp.config.metrics import chosen_metrics
from motionexp.config.schema import JobConfig, ModelConfig
from motionexp.config.score import ScoreConfig
from motionexp.config.scoring import ScoringConfig
from motionexp.data.select import make_reader
from motionexp.errors import InputError
from motionexp.results.layout_file import read_layout

USAGE = """\
Carry the motion of one video over to new captions.

  python run.py                                one reference, its edits, the default window
  python run.py -m tau=0,650,1000              a sweep: one job for each value; several keys: all combinations
  python run.py experiment=NAME                the sweep of experiments/NAME.yaml, then its tables
  python run.py adapter=FOLDER edits='["..."]' new captions with an adapter that is there already
  python run.py video=FILE caption="..." edits='["..."]' model=latte
                                               a clip of your own
  python run.py score folder=FOLDER data=tgve  videos that another system made, into the same rows
  python run.py submission folder=NEW samples=outputs/tgve/MODEL tau=700
                                               finished samples in TGVE's submission layout
  python run.py list references                the references of data=, with their captions and edits
  python run.py list words                     the words that model= knows
  python run.py --cfg job                      the resolved settings, and run nothing
  python run.py dry_run=true                   what would run, where it goes and what it costs
"""


HYDRA_FLAGS = [
    ("-m, --multirun", "a sweep: every job is checked before the first starts"),
    ("--cfg job", "print the resolved settings"),
    ("--hydra-help", "launchers, sweepers and all else that Hydra has"),
]


def help_text() -> str:
    """Every choice with a line of explanation."""
    settings = {each.name: each for each in fields(JobConfig)}
    parts = [USAGE]
    for group in GROUPS:
        lines = [
            (f"{group}={option}", first_comment(CONF / group / f"{option}.yaml")) for option in options(group)
        ]
        parts.append(_section(settings.pop(group).metadata["help"], lines))
    files = [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if read_layout(path).sweep]
    experiments = [(f"experiment={path.stem}", first_comment(path)) for path in files]
    parts.append(_section("sweeps with their tables", experiments))
    lines = [(f"{name}={_default(each)}", each.metadata["help"]) for name, each in settings.items()]
    parts.append(_section("settings, with their defaults", lines))
    lines = [(f"model.{each.name}", each.metadata["help"]) for each in fields(ModelConfig)]
    parts.append(_section("what a model's file says", lines))
    lines = [
        (f"scoring.{each.name}={_default(each)}", each.metadata["help"]) for each in fields(ScoringConfig)
    ]
    parts.append(_section("what scores look through", lines))
    parts.append(_section("metrics", [(spec.name, spec.question) for spec in chosen_metrics(None)]))
    lines = [(f"{each.name}={_default(each)}", each.metadata["help"]) for each in fields(ScoreConfig)
             if each.name not in GROUPS]  # fmt: skip
    parts += [_section("settings of `score`", lines), _section("flags", HYDRA_FLAGS)]
    return "\n".join(parts)


def first_comment(path: Path) -> str:
    """The first comment of a YAML file, without the line that Hydra reads: what the file is for."""
    comments = [line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("# ")]
    return next(line for line in comments if not line.startswith("@package"))


def _default(each: "Field[Any]") -> str:
    value = each.default_factory() if each.default_factory is not MISSING else each.default
    if isinstance(value, str) and "${" in value:
        return "(the model's)"
    if isinstance(value, list):
        return f"[{','.join(value)}]"
    return "null" if value is None else str(value).lower()


def _section(title: str, lines: Iterable[tuple[str, str]]) -> str:
    indent = " " * 33
    shown = [
        textwrap.fill(f"  {left:<30} {right}", 118, subsequent_indent=indent, break_on_hyphens=False)
        for left, right in lines
    ]
    return "\n".join([f"{title}:", *shown, ""])


def listed(arguments: Sequence[str]) -> str:
    """What `list references` or `list words` prints; overrides may follow, to choose the data or the model.

    Raises:
        InputError: another word than those two, or wrong overrides.
    """
    match arguments:
        case ["references", *overrides]:
            cfg = load(overrides)
            reader = make_reader(cfg)
            lines = []
            for name in reader.names():
                described = reader.describe(name)
                lines += [
                    f"{name}: {described.caption}",
                    *(f"    {edit.kind}: {edit.caption}" for edit in described.edits),
                ]
            return "\n".join(lines)
        case ["words", *overrides]:
            return "\n".join(vocabulary(load(overrides).model))
        case _:
            raise InputError(f"list {' '.join(arguments)}: list references, or list words")
