"""docs/models.md: what it says of each model is what `conf/model/` and the network itself say."""

import re
from pathlib import Path

import pytest
from hydra.utils import get_object

from motionexp.backbones import load_backbone
from motionexp.config.compose import load
from motionexp.config.options import options
from motionexp.config.schema import ModelConfig
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.methods.full_rank import FullRank
from motionexp.methods.lora import LoRA
from tests.backbones.test_configurations import HASHED_NAMES, REVISIONS, hashed_names

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text().partition("## Recipes")[0]
ROWS = {row[0].strip("`"): row[1:] for row in re.findall(r"^\| (`\w+`) \| (.*) \|$", PAGE, re.MULTILINE)
        for row in [[row[0], *row[1].split(" | ")]]}  # fmt: skip


NAMES = [name for name in options("model") if not name.startswith("tiny_")]


def sizes(backbone: Backbone) -> list[str]:
    """Parameters of the network, motion attentions, and what LoRA and full-rank tuning train."""
    numbers = (
        sum(parameter.numel() for parameter in backbone.network.parameters()),
        len(backbone.motion_projections(Window(0))["v"]),
        LoRA.trainable_parameters(backbone, rank=4),
        FullRank.trainable_parameters(backbone),
    )
    return [f"{number:,}" for number in numbers]


def facts(model: ModelConfig) -> list[str]:
    """Hub, revision, default tau and frames of a model's file, as the page writes them."""
    revision = model.revision or "—"
    if not re.fullmatch(r"[0-9a-f]{40}(\+[0-9a-f]{40})?", revision):
        revision = f"**moving**: {revision}"
    frames = str(model.frames)
    if model.frame_range:
        step = f", step {model.frame_step}" if model.frame_step > 1 else ""
        frames += f" ({model.frame_range[0]} to {model.frame_range[1]}{step})"
    short = "+".join(commit[:12] for commit in revision.split("+"))
    return [model.path, revision if "moving" in revision else short, f"{model.default_tau:g}", frames]


def test_every_model_of_the_hub_has_a_row() -> None:
    assert set(ROWS) == set(options("model"))
    assert {name for name, row in ROWS.items() if row[0].startswith("bundled:")} == set(ROWS) - set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_what_the_models_file_says(name: str) -> None:
    row, model = ROWS[name], load([f"model={name}"]).model
    assert row[:4] == facts(model)
    # What is verified by a hash is so in the table, and nothing else.
    hashed = hashed_names(model.path)
    status, _, files = row[8].partition(":")
    assert status.startswith("verified") == bool(hashed)
    assert status == "verified" or status.startswith(("verified at another", "agrees", "not found"))
    if hashed:
        assert {part for part in HASHED_NAMES if part in files.partition("; not")[0]} == hashed
    other = re.search("at another revision, ([0-9a-f]{8})", status)
    assert (other[1] if other else model.revision) == REVISIONS.get(model.path, model.revision)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_the_networks_sizes(name: str) -> None:
    model = load([f"model={name}"]).model
    # By the configuration that is stored here: no weights, and no network.
    backbone = get_object(model._target_)(model.path, revision=model.revision, device="meta")
    assert ROWS[name][4:8] == sizes(backbone)


@pytest.mark.parametrize("name", sorted(set(ROWS) - set(NAMES)))
def test_a_bundled_models_row_has_its_sizes(name: str) -> None:
    model = load([f"model={name}"]).model
    assert ROWS[name] == [model.path, *sizes(load_backbone(model.path, device="cpu"))]
