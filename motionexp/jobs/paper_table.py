"""An experiment on real models, by the lines of its `paper`: what it costs, and its table.

The table of its file is of the bundled models and their world; that of such a run is made from the jobs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from motionexp.config.ids import adapter_id
from motionexp.config.schema import JobConfig
from motionexp.data.select import make_reader, subjects_of
from motionexp.errors import InputError
from motionexp.jobs.sweeps import as_text, settings_of
from motionexp.results.layout import Column, Group, Layout, Reported, Setting, TableLayout
from motionexp.results.selection import SAMPLED, TRAINED


def check_real_data(name: str, jobs: Iterable[JobConfig]) -> None:
    """Raises InputError where a job of a line of `paper` is still on the bundled world."""
    for cfg in jobs:
        if cfg.data["_target_"].startswith("motionexp.data.shapes."):
            raise InputError(
                f"experiment={name}: model={cfg.model.name} is for real videos, and data= is still the"
                " bundled shapes; add data=tgve data.path=DIR (or data=davis or data=folder, with theirs)"
            )


def layout_of(name: str, layout: Layout, jobs: Sequence[JobConfig]) -> Layout:
    """An experiment's layout with the cost and the one table of these jobs: a line each, a block a model.

    Columns without a row are left out, as those of ground truth are on real videos, unless a paper reports
    them; what its tables report stands below.
    """
    reported = [each for table in layout.tables for each in table.reported]
    suites = dict.fromkeys(make_reader(cfg).suite for cfg in jobs)
    models = {cfg.model.name: [other for other in jobs if other.model.name == cfg.model.name] for cfg in jobs}
    settings = [each for own in models.values() for each in _settings(own)]
    named = {str(number): each for number, each in enumerate(settings, start=1)}
    precisions = {cfg.precision for cfg in jobs}
    table = TableLayout(
        file=f"experiment={name}",
        title=f"experiment={name}, measured on {' and '.join(suites)}",
        labels=["setting"],
        settings=list(named),
        groups=_groups(layout, models),
        columns=list(layout.columns),
        reported=[replace(each, labels=[", ".join(each.labels)]) for each in reported],
        notes=[f"{model}, in every job: {_shared(own)}." for model, own in models.items()],
    )
    return replace(
        layout,
        cost=cost_of(jobs),
        select={"suite": "|".join(suites), "model": "|".join(models)}
        # What `auto` comes out as only the machine knows.
        | ({} if "auto" in precisions else {"precision": "|".join(sorted(precisions))}),
        settings=named,
        columns=_columns(layout.columns, reported),
        tables=[table],
        figures=[],
        references="",
    )


def _settings(jobs: Sequence[JobConfig]) -> list[Setting]:
    """One for each job of a model, which selects its rows and no other, labelled by what differs."""
    settings = []
    for cfg, differs in zip(jobs, settings_of(jobs)[1], strict=True):
        names = ("tau", *SAMPLED) if cfg.tau == 1000 else ("method", "tau", *TRAINED, *SAMPLED)
        text = as_text(cfg)
        own = {key: differs[key] for key in differs if key in names} or {"tau": text["tau"]}
        method = "base" if cfg.tau == 1000 else text["method"]
        select = {key: text[key] for key in names} | {"method": method, "model": cfg.model.name}
        select["reference"] = "|".join(subjects_of(cfg)[0])
        select["seed"] = "|".join(map(str, range(cfg.seeds)))  # of a row: which of its edit's samples it is
        if cfg.edit_kinds is not None:
            select["edit_kind"] = "|".join(cfg.edit_kinds)
        label = " ".join(f"{key}={value}" for key, value in own.items())
        settings.append(Setting([label], select, base=cfg.tau == 1000))
    return settings


def _groups(layout: Layout, models: Iterable[str]) -> list[Group]:
    """One for each model, and where the experiment's own tables go by the kind of edit one for each kind."""
    selects = [group.select for table in layout.tables for group in table.groups]
    kinds = dict.fromkeys(select["edit_kind"] for select in selects if "edit_kind" in select)
    by_kind = [{"edit_kind": kind} for kind in kinds] or [dict[str, str]()]
    return [
        Group(", ".join([model, *kind.values()]), {"model": model, **kind})
        for model in models
        for kind in by_kind
    ]


def _columns(columns: Mapping[str, Column], reported: Iterable[Reported]) -> dict[str, Column]:
    kept = {key for each in reported for key in each.values}
    return {key: replace(column, optional=key not in kept) for key, column in columns.items()}


def _shared(jobs: Sequence[JobConfig]) -> str:
    return " ".join(f"{key}={value}" for key, value in settings_of(jobs)[0].items() if key != "model")


def cost_of(jobs: Sequence[JobConfig]) -> str:
    """What jobs take, counted: training steps, samples, network evaluations. No weights are looked at.

    An adapter that an earlier job trains, or keeps on its way, is counted once.
    """
    steps = samples = evaluations = 0
    trained = set[str]()
    for cfg in jobs:
        names, edits = subjects_of(cfg)
        made = len(names) * edits * cfg.seeds
        samples += made
        evaluations += made * cfg.steps * (2 if cfg.guidance_scale > 1 else 1)
        if cfg.adapter is not None or cfg.tau == 1000:
            continue
        for name in names:
            if _adapter(cfg, name) not in trained:
                steps += cfg.train_steps
                kept = (replace(cfg, train_steps=each) for each in (*cfg.keep_steps, cfg.train_steps))
                trained |= {_adapter(each, name) for each in kept}
    models = dict.fromkeys(cfg.model.name for cfg in jobs)
    commands = " or ".join(f"`python run.py model={model} dry_run=true`" for model in models)
    return (
        f"{steps:,} training steps, {samples:,} samples, {evaluations:,} network evaluations of sampling;"
        f" the hours are unknown until measured: {commands} on the machine itself times a step"
    )


def _adapter(cfg: JobConfig, reference: str) -> str:
    """An id that jobs share which train the same: `adapter_id` without the weights and the video."""
    return adapter_id(cfg, weights_hash=cfg.model.name, precision=cfg.precision, reference_hash=reference)
