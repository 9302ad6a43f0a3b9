"""The lines of an experiment's file as sweeps of jobs, and whether their rows can stand in one table."""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from motionexp.config.command_line import is_text, override_key
from motionexp.config.ids import FIT_VERSION
from motionexp.config.schema import JobConfig, method_name, trains
from motionexp.config.scoring_models import scoring_models
from motionexp.config.settings import names_in
from motionexp.errors import InputError
from motionexp.files import user_path
from motionexp.jobs.cell import read_fit_record
from motionexp.results.layout import Layout

MODEL = "model="
OF_METHOD = "method."
"""What the names of a method's own arguments begin with."""
NOT_IN_LINES = ("plugins", "hydra")  # either would let a file of settings run other code
KEY = re.compile(r"\+{0,2}[A-Za-z]\w*(\.\w+)*")


class Sweep(NamedTuple):
    """A line of an experiment's file: of `sweep` or `paper`, and the arguments of the `run.py -m` it is."""

    key: str
    number: int
    arguments: list[str]

    @property
    def where(self) -> str:
        """Where the line stands, in words."""
        return f"line {self.number} of `{self.key}`"


def sweeps_of(layout: Layout, name: str, overrides: Sequence[str]) -> list[Sweep]:
    """One sweep a line, with what was given on the command line, in place of what the line says of it.

    `model=` there chooses the lines that name one of its models, for these alone; a line that names none is
    for any.

    Raises:
        InputError: no line is for one of the models, or one that names none is left without.
    """
    models = [word.removeprefix(MODEL) for word in overrides if word.startswith(MODEL)][-1:]
    chosen = models[0].split(",") if models else []
    rest = [word for word in overrides if not word.startswith(MODEL)]
    replaced = {"model", *map(override_key, rest)}
    lines = [("sweep", number, line) for number, line in enumerate(layout.sweep, start=1)]
    if chosen:
        lines += [("paper", number, line) for number, line in enumerate(layout.paper, start=1)]
    sweeps, with_lines, matched = list[Sweep](), list[str](), set[str]()
    for key, number, line in lines:
        words = shlex.split(line)
        where = f"experiment={name}: line {number} of `{key}`"
        _check_words(words, where)
        # 1. The models that the line names; a line of `sweep` without any is for every chosen model.
        named = [word.removeprefix(MODEL) for word in words if word.startswith(MODEL)]
        of_line = named[0].split(",") if named else []
        if not of_line and (key == "paper" or not chosen):
            raise InputError(f"{where} names no model; add model= and one or more")
        with_lines += of_line
        # 2. Those of them that the command line chooses, with what else it overrides.
        models = [model for model in chosen if model in (of_line or chosen)] if chosen else of_line
        if models:
            words = [word for word in words if override_key(word) not in replaced]
            sweeps.append(Sweep(key, number, [*words, MODEL + ",".join(models), *rest]))
            matched.update(models)
    if unknown := [model for model in chosen if model not in matched]:
        raise InputError(
            f"experiment={name}: no line of it is for model={','.join(unknown)}; there are lines for"
            f" {', '.join(dict.fromkeys(with_lines))}. Add one to `paper`, with the settings that suit the"
            " model"
        )
    return sweeps


def _check_words(words: Sequence[str], where: str) -> None:
    """Refuses what a file from elsewhere must not do: run other code, or write or read beside the settings.

    Raises:
        InputError: names the word.
    """
    for word in words:
        key, _, value = word.partition("=")
        if not KEY.fullmatch(key) or key.lstrip("+").partition(".")[0] in NOT_IN_LINES:
            raise InputError(f"{where}: {word} is only for the command line")
        if key.lstrip("+") == "output" and (".." in Path(value).parts or value[:1] in ("/", "~")):
            raise InputError(f"{where}: {word}: only the command line can name a folder outside this one")
        if not is_text(key.lstrip("+")) and re.search(r"\$\{.*:", value, re.DOTALL):
            raise InputError(f"{where}: {word}: it can refer to settings only, as in alpha=${{rank}}")


def check_comparable_jobs(name: str, layout: Layout, jobs: Sequence[JobConfig]) -> None:
    """Refuses jobs whose rows could not stand in one table, before any of them runs.

    Raises:
        InputError: of one model other weights, other references, edits, numbers of samples or training
            seeds; or two precisions, two seeds, or other models behind the scores. The layout's `allow_mixed`
            may allow `weights_hash`, `references`, `training_seeds`, `precision`, `seed` and `metric_model`.
    """
    values: dict[tuple[str, str], list[Any]] = defaultdict(list)
    scored_alike = len({(str(cfg.scoring), cfg.model.closed_vocabulary) for cfg in jobs}) == 1
    for cfg in jobs:
        of_job = {
            ("precision", ""): cfg.precision,
            ("weights_hash", cfg.model.name): (cfg.model.path, cfg.model.revision),
            ("references", cfg.model.name): _subjects(cfg),
            ("training_seeds", cfg.model.name): cfg.training_seeds if trains(cfg) else None,
            # Rows number the samples of a seed: those of another seed would pass for the same.
            ("seed", ""): cfg.seed,
            # What looks the models up imports torch.
            ("metric_model", ""): None if scored_alike else _scored_by(cfg),
        }
        for key, value in of_job.items():
            if value not in values[key] and not (key[0] == "training_seeds" and value is None):
                values[key].append(value)
    mixed = [
        f"{kind}{f' of {model}' if model else ''}: {' and '.join(map(str, differing))}"
        for (kind, model), differing in values.items()
        if len(differing) > 1 and kind not in layout.allow_mixed
    ]
    if mixed:
        raise InputError(
            f"experiment={name}: jobs whose rows cannot be compared: {'; '.join(mixed)}. Run all lines on the"
            " same, or name the kind under `allow_mixed` in its file"
        )


def check_training_versions(jobs: Iterable[JobConfig]) -> None:
    """Refuses jobs whose adapters were trained by different versions, before any of them runs.

    Other versions draw other noise from the same seeds, so that their results are no repetitions.

    Raises:
        InputError: names an adapter of each version.
    """
    makers: dict[int, str] = {}
    for cfg in jobs:
        if cfg.adapter is not None:
            record = read_fit_record(user_path(cfg.adapter))
            if record:  # of motionexp: other trainers leave none
                makers.setdefault(record.get("version", 1), f"adapter={cfg.adapter}")
        elif trains(cfg):
            makers.setdefault(FIT_VERSION, "the adapters that this sweep trains")
    if len(makers) > 1:
        named = "; ".join(f"version {version}: {maker}" for version, maker in sorted(makers.items()))
        raise InputError(
            f"a sweep over adapters of several versions of the training ({named}): their results cannot be"
            " compared; train the older adapters again, or run a sweep for each version"
        )


def _subjects(cfg: JobConfig) -> dict[str, Any]:
    """What a job's samples are of, and which frames and which part of them are taken."""
    names = (
        "references",
        "edits",
        "edit_kinds",
        "image",
        "seeds",
        "video",
        "caption",
        "start",
        "fps",
        "stride",
        "fit",
    )
    values = {name: getattr(cfg, name) for name in names}
    values |= {name: cfg.data.get(name) for name in ("split", "path")}
    return {name: value for name, value in values.items() if value is not None}


def _scored_by(cfg: JobConfig) -> Any:
    """The models behind a job's scores, also where `scoring=` names none."""
    return scoring_models(cfg.scoring, cfg.model.closed_vocabulary)


def in_a_line(settings: Mapping[str, str]) -> str:
    """Settings as on a command line."""
    return " ".join(f"{key}={value}" for key, value in settings.items())


def settings_of(jobs: Sequence[JobConfig]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The listed settings that all jobs share, and of each job the settings in which they differ, as text.

    Of a method's own arguments, method.NAME, a job has those in which the jobs of this method differ.
    """
    plain = [as_text(cfg) for cfg in jobs]
    differ = [name for name in plain[0] if len({texts[name] for texts in plain}) > 1]
    listed = names_in(JobConfig, lambda about: about.listed)
    same = {name: plain[0][name] for name in listed if name not in differ and name in plain[0]}
    differences = [{name: texts[name] for name in differ} for texts in plain]
    return same, [of_job | more for of_job, more in zip(differences, _arguments(jobs), strict=True)]


def _arguments(jobs: Sequence[JobConfig]) -> list[dict[str, str]]:
    """{method.NAME: text} of each job, without arguments that are settings of the job too, as rank."""
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    arguments = []
    for cfg in jobs:
        method = {} if cfg.tau == 1000 else cfg.method
        names = method.keys() - {"_target_", *JobConfig.__dataclass_fields__}
        arguments.append({name: _text(method[name]) for name in method if name in names})
        for name, text in arguments[-1].items():
            values[method_name(cfg.method), name].add(text)
    return [
        {
            f"{OF_METHOD}{name}": text
            for name, text in of_job.items()
            if len(values[method_name(cfg.method), name]) > 1
        }
        for cfg, of_job in zip(jobs, arguments, strict=True)
    ]


def as_text(cfg: JobConfig) -> dict[str, str]:
    """Every setting as text: the method's class, how many references where they are named, which data."""
    values: dict[str, Any] = vars(cfg) | {"model": cfg.model.name, "scoring": asdict(cfg.scoring)}
    values |= {"method": method_name(cfg.method), "data": cfg.data["_target_"].rpartition(".")[-1]}
    values["data"] += "".join(
        f" {key}={value}" for key, value in cfg.data.items() if key in ("split", "appearances")
    )
    if isinstance(cfg.references, list):
        values["references"] = len(cfg.references)
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
