"""`python run.py dashboard`: the workspace of a project in Weights & Biases, built from code. No torch."""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from motionexp.config.commands import DashboardConfig, command_settings
from motionexp.errors import InputError, extra_command
from motionexp.files import user_path, write_whole

FILE = "dashboard.json"
KINDS = ("style", "object", "background", "multiple", "caption", "subject", "scene")
"""Of edits, in the suites: a sample's video has the key `samples/KIND-SEED`."""
CURVES = (
    *("motion similarity", "background leakage", "flow similarity", "CLIP leakage"),
    *("text alignment", "frame consistency", "pick score"),
)
PLANES = (("background leakage", "motion similarity"), ("CLIP leakage", "flow similarity"))
"""(x, y): leakage and motion, of the bundled world and of real clips."""


def dashboard(words: Sequence[str]) -> None:
    """Build the workspace of a project, or, without a login, write it as JSON into the output folder.

    Args:
        words: `project=`, `entity=` and `output=`.

    Raises:
        InputError: another word, or wandb-workspaces is not installed.
    """
    cfg, _ = command_settings("dashboard", DashboardConfig, words)
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise InputError(
            f"dashboard: needs the extra dashboard, which is not installed: {extra_command('dashboard')}"
        )
    import wandb

    project = cfg.project or os.environ.get("WANDB_PROJECT") or "motionexp"
    entity = cfg.entity or os.environ.get("WANDB_ENTITY") or ""
    is_logged_in = wandb.login(prompt=False)
    workspace = make_workspace(entity or (wandb.Api().default_entity if is_logged_in else ""), project)
    if is_logged_in:
        workspace.save()
        print(f"dashboard: {workspace.url}")
        return
    path = user_path(cfg.output) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, to_json(workspace).encode())
    print(f"dashboard: {path} (nobody is logged in: after `wandb login` the same command builds it)")


def make_workspace(entity: str, project: str) -> Any:
    """The workspace: curves over tau with bands, motion against leakage, samples, trainings and sweeps."""
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    curves = [
        panels.LinePlot(
            title=f"{name} over tau, mean and standard error over references",
            x="tau",
            y=[f"scores/{name}"],
            title_x="tau",
            groupby=panels.Config("curve"),  # see `Logged.curve`: a panel groups by one key
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
        )
        for name in CURVES
    ]
    planes = [
        panels.ScatterPlot(
            title=f"{y} against {x}",
            x=panels.SummaryMetric(f"scores/{x}"),
            y=panels.SummaryMetric(f"scores/{y}"),
        )
        for x, y in PLANES
    ]
    samples = [
        panels.MediaBrowser(
            title="reference and samples",
            media_keys=["reference", *(f"samples/{kind}-0" for kind in KINDS)],
            num_columns=1 + len(KINDS),
        ),
        panels.MediaBrowser(title="side by side", media_keys=["grid"]),
    ]
    sweeps = [
        panels.WeavePanelSummaryTable(table_name="failures"),
        panels.WeavePanelSummaryTable(table_name="table"),
        panels.MediaBrowser(title="figures", media_keys=["figure"]),
    ]
    sections = {
        "Scores over tau": curves,
        "Motion against leakage": planes,
        "Samples by reference": samples,
        "Training": [panels.LinePlot(title="loss", x="step", y=["loss"])],
        "Sweeps: failures, tables, figures": sweeps,
    }
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="motionexp",
        sections=[
            workspaces.Section(name=name, panels=parts, is_open=True) for name, parts in sections.items()
        ],
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Config("reference")]),
    )


def to_json(workspace: Any) -> str:
    """What would be saved, as JSON that W&B's own schema has read back.

    Raises:
        pydantic.ValidationError: a panel is none that the schema has.
    """
    # The package has no public way to a workspace's content without a login.
    model = workspace._to_model()
    text: str = model.model_dump_json(by_alias=True, indent=2)
    type(model).model_validate_json(text)
    return text + "\n"
