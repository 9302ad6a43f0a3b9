"""An experiment on real models, by the lines of its `paper`: what it costs, and its table.

The table of its file is of the bundled models and their world; that of such a run is made from the jobs.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from motionexp.config.ids import adapter_id
from motionexp.config.sampling import is_guided
from motionexp.config.schema import JobConfig
from motionexp.data.select import make_reader, subjects_of
from motionexp.jobs.sweeps import OF_METHOD, as_text, in_a_line, settings_of
from motionexp.results.layout import Group, Layout, Setting, TableLayout
from motionexp.results.selection import SAMPLED, TRAINED


def layout_of(name: str, layout: Layout, jobs: Sequence[JobConfig]) -> Layout:
    """An experiment's layout with the cost and the one table of these jobs: a line each, a block a model.

    Columns without a row are left out, as those of ground truth are on real videos, unless a paper reports
    them; what its tables report stands below.
    """
    reported = [line for table in layout.tables for line in table.reported]
    with_values = {key for line in reported for key in line.values}
    suites = dict.fromkeys(make_reader(cfg.data).suite for cfg in jobs)
    models: dict[str, list[JobConfig]] = defaultdict(list)
    for cfg in jobs:
        models[cfg.model.name].append(cfg)
    settings = [setting for of_model in models.values() for setting in _settings(of_model)]
    named = {str(number): setting for number, setting in enumerate(settings, start=1)}
    precisions = {cfg.precision for cfg in jobs}
    table = TableLayout(
        file=f"experiment={name}",
        title=f"experiment={name}, measured on {' and '.join(suites)}",
        labels=["setting"],
        settings=list(named),
        groups=_groups(layout, models),
        columns=list(layout.columns),
        reported=[replace(line, labels=[", ".join(line.labels)]) for line in reported],
        notes=[f"In every job: {in_a_line(settings_of(of_model)[0])}." for of_model in models.values()],
    )
    return replace(
        layout,
        cost=cost_of(jobs),
        select={"suite": "|".join(suites), "model": "|".join(models)}
        # What `auto` comes out as only the machine knows.
        | ({} if "auto" in precisions else {"precision": "|".join(sorted(precisions))}),
        settings=named,
        columns={
            key: replace(column, optional=key not in with_values) for key, column in layout.columns.items()
        },
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
        arguments = {key: differs[key] for key in differs if key.startswith(OF_METHOD)}
        labelled = {key: differs[key] for key in differs if key in names} | arguments
        labelled = labelled or {"tau": text["tau"]}
        method = "base" if cfg.tau == 1000 else text["method"]
        select = {key: text[key] for key in names} | {"method": method, "model": cfg.model.name} | arguments
        select["reference"] = "|".join(subjects_of(cfg)[0])
        select["seed"] = "|".join(map(str, range(cfg.seeds)))  # of a row: which of its edit's samples it is
        if cfg.edit_kinds is not None:
            select["edit_kind"] = "|".join(cfg.edit_kinds)
        settings.append(Setting([in_a_line(labelled)], select, base=cfg.tau == 1000))
    return settings


def _groups(layout: Layout, models: Iterable[str]) -> list[Group]:
    """One for each model, and where the experiment's own tables go by the kind of edit one for each kind."""
    # Tables of lines: one of comparisons at scales alone has no settings.
    selects = [group.select for table in layout.tables if table.settings for group in table.groups]
    kinds = dict.fromkeys(select["edit_kind"] for select in selects if "edit_kind" in select)
    by_kind = [{"edit_kind": kind} for kind in kinds] or [dict[str, str]()]
    return [
        Group(", ".join([model, *kind.values()]), {"model": model, **kind})
        for model in models
        for kind in by_kind
    ]


def cost_of(jobs: Sequence[JobConfig]) -> str:
    """What jobs take, counted: training steps, samples, network evaluations. No weights are looked at.

    An adapter that an earlier job trains, or keeps on its way, is counted once.
    """
    steps = samples = evaluations = 0
    trained = set[str]()
    for cfg in jobs:
        names, edits = subjects_of(cfg)
        of_job = len(names) * edits * cfg.seeds
        samples += of_job
        evaluations += of_job * cfg.steps * (2 if is_guided(cfg.guidance_scale) else 1)
        if cfg.adapter is not None or cfg.tau == 1000:
            continue
        for name in names:
            # An id that jobs share which train the same: without the weights and the video.
            adapters = {
                count: adapter_id(
                    replace(cfg, train_steps=count),
                    weights_hash=cfg.model.name,
                    precision=cfg.precision,
                    reference_hash=name,
                )
                for count in (*cfg.keep_steps, cfg.train_steps)
            }
            if adapters[cfg.train_steps] not in trained:
                steps += cfg.train_steps
                trained |= {*adapters.values()}
    models = dict.fromkeys(cfg.model.name for cfg in jobs)
    commands = " or ".join(f"`python run.py model={model} dry_run=true`" for model in models)
    return (
        f"{steps:,} training steps, {samples:,} samples, {evaluations:,} network evaluations of sampling;"
        f" the hours are unknown until measured: {commands} on the machine itself times a step"
    )
