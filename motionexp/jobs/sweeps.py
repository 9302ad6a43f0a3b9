"""The lines of an experiment's file as sweeps of jobs, and whether their rows can stand in one table."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any, NamedTuple

from motionexp.config.schema import JobConfig, method_name
from motionexp.config.settings import names_in
from motionexp.errors import InputError
from motionexp.results.layout import Layout

MODEL = "model="
NOT_IN_LINES = ("plugins", "hydra")  # either would let a file of settings run other code
CLIP = ("start", "fps", "stride", "fit")
"""Settings that say which frames of a video are taken, and which part of them."""


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
    asked = [each.removeprefix(MODEL) for each in overrides if each.startswith(MODEL)]
    rest = [each for each in overrides if not each.startswith(MODEL)]
    given = {_key(each) for each in rest}
    lines = [("sweep", number, line) for number, line in enumerate(layout.sweep, start=1)]
    if asked:
        lines += [("paper", number, line) for number, line in enumerate(layout.paper, start=1)]
    sweeps, known, taken = list[Sweep](), list[str](), list[str]()
    for key, number, line in lines:
        words = shlex.split(line)
        if refused := [word for word in words if word.startswith("-") or _key(word).startswith(NOT_IN_LINES)]:
            raise InputError(
                f"experiment={name}: line {number} of `{key}`: {refused[0]} is only for the command line"
            )
        own = next((each.removeprefix(MODEL).split(",") for each in words if each.startswith(MODEL)), None)
        if own is None and (key == "paper" or not asked):
            raise InputError(
                f"experiment={name}: line {number} of `{key}` names no model; add model= and one or more"
            )
        known += own or []
        wanted = [each for each in asked[-1].split(",") if own is None or each in own] if asked else own
        if wanted:
            words = [each for each in words if _key(each) not in {"model", *given}]
            sweeps.append(Sweep(key, number, [*words, MODEL + ",".join(wanted), *rest]))
            taken += wanted
    if unknown := [each for each in asked[-1].split(",") if each not in taken] if asked else []:
        raise InputError(
            f"experiment={name}: no line of it is for model={','.join(unknown)}; there are lines for"
            f" {', '.join(dict.fromkeys(known))}. Add one to `paper`, with the settings that suit the model"
        )
    return sweeps


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def check_comparable_jobs(name: str, layout: Layout, jobs: Iterable[JobConfig]) -> None:
    """Refuses jobs whose rows could not stand in one table, before any of them runs.

    Raises:
        InputError: of one model other weights, other references, edits or numbers of samples; or two
            precisions, two seeds, or other models behind the scores. The layout's `allow_mixed` may allow
            `weights_hash`, `references`, `precision`, `seed` and `metric_model`.
    """
    jobs = list(jobs)
    kinds: dict[str, tuple[Callable[[JobConfig], str], Callable[[JobConfig], Any]]] = {
        "precision": (lambda cfg: "", lambda cfg: cfg.precision),
        "weights_hash": (lambda cfg: cfg.model.name, lambda cfg: (cfg.model.path, cfg.model.revision)),
        "references": (lambda cfg: cfg.model.name, _subjects),
        # Rows number the samples of a seed: those of another seed would pass for the same.
        "seed": (lambda cfg: "", lambda cfg: cfg.seed),
        "metric_model": (lambda cfg: "", _scored_by),
    }
    if len({(str(cfg.scoring), cfg.model.closed_vocabulary) for cfg in jobs}) == 1:
        del kinds["metric_model"]  # what looks them up imports torch
    seen: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for cfg in jobs:
        for kind, (of, value) in kinds.items():
            if value(cfg) not in seen[kind, of(cfg)]:
                seen[kind, of(cfg)].append(value(cfg))
    mixed = [
        f"{kind}{f' of {of}' if of else ''}: {' and '.join(map(str, values))}"
        for (kind, of), values in seen.items()
        if len(values) > 1 and kind not in layout.allow_mixed
    ]
    if mixed:
        raise InputError(
            f"experiment={name}: jobs whose rows cannot be compared: {'; '.join(mixed)}. Run all lines on the"
            " same, or name the kind under `allow_mixed` in its file"
        )


def _subjects(cfg: JobConfig) -> dict[str, Any]:
    """What a job's samples are of."""
    names = ("references", "edits", "edit_kinds", "seeds", "video", "caption", *CLIP)
    own = {name: getattr(cfg, name) for name in names}
    own |= {name: cfg.data.get(name) for name in ("split", "path")}
    return {name: value for name, value in own.items() if value is not None}


def _scored_by(cfg: JobConfig) -> Any:
    """The models behind a job's scores, also where `scoring=` names none."""
    from motionexp.jobs.inputs import scoring_models

    return scoring_models(cfg.scoring, cfg.model.closed_vocabulary)


def settings_of(jobs: Sequence[JobConfig]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The listed settings that all jobs share, and of each job the settings in which they differ, as text."""
    plain = [as_text(cfg) for cfg in jobs]
    differ = [name for name in plain[0] if len({each[name] for each in plain}) > 1]
    listed = names_in(JobConfig, lambda about: about.listed)
    same = {name: plain[0][name] for name in listed if name not in differ and name in plain[0]}
    return same, [{name: each[name] for name in differ} for each in plain]


def as_text(cfg: JobConfig) -> dict[str, str]:
    """Every setting as text: the method's class, how many references where they are named, which data."""
    values = {each.name: getattr(cfg, each.name) for each in fields(JobConfig)}
    values |= {"model": cfg.model.name, "scoring": asdict(cfg.scoring)}
    values |= {"method": method_name(cfg), "data": cfg.data["_target_"].rpartition(".")[-1]}
    values["data"] += "".join(
        f" {key}={value}" for key, value in cfg.data.items() if key in ("split", "appearances")
    )
    if isinstance(cfg.references, list):
        values["references"] = len(cfg.references)
    return {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in values.items()}
