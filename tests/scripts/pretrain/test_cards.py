"""What the cards of bundled models say."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from motionexp.diffusion.sampling import SamplerSettings
from motionexp.scripts.pretrain import cards
from motionexp.scripts.pretrain.cards import Facts, write_card, write_model_card

RIGHT = {"colour": 1.0, "surface": 0.95, "shape": 0.92, "background": 1.0, "motion": 0.86}


def run(folder: Path) -> Path:
    """A run of 150 steps: two minutes, with an hour's pause in the middle that resumed from step 100."""
    folder.mkdir(parents=True)
    times = [0.0, 30.0, 60.0, 3660.0, 3690.0, 3720.0]
    lines = [
        json.dumps({"step": 50 * row, "loss": 1 / (row + 1), "time": at}) for row, at in enumerate(times)
    ]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    torch.save({"step": 150}, folder / "checkpoint.pt")
    save_file({"weight": torch.zeros(1000, 12)}, folder / "model.safetensors")
    return folder


def test_a_card_says_what_was_measured(tmp_path: Path):
    quality = {"motion-dominant": {"colour": 0.98765, "all": 0.9}, "appearance-dominant": {"all": 1.0}}
    names = ("title", "library", "purpose", "command", "data", "seeds", "measured")
    facts = Facts(
        **{name: f"the {name}" for name in names},
        samples=20,
        training=run(tmp_path / "run"),
        quality=quality,
        origin="the weights in elsewhere",
    )
    write_card(tmp_path, facts)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: the library\n---\n# the title\n")
    assert "trained from the weights in elsewhere by `the command`" in card
    assert {
        "| parameters | 12,000 |",
        "| steps | 150 |",
        "| samples seen | 3,000 (20 a step) |",
        "| time | 2 minutes |",  # without the pause
        "| final loss | 0.1667 (mean of the last steps) |",
        "|  | colour | all |",
        "| motion-dominant | 0.988 | 0.900 |",
        "| appearance-dominant |  | 1.000 |",
    } <= set(card.splitlines())


@pytest.mark.parametrize(
    ("rates", "below"),
    [
        (RIGHT, ""),
        (RIGHT | {"surface": 0.891, "motion": 0.84}, "surface (0.891, aim 0.9), motion (0.840, aim 0.85)"),
    ],
)
def test_a_card_names_the_attributes_below_their_aim(rates, below, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    monkeypatch.setattr(cards, "BUNDLED", tmp_path / "bundled")
    results, card = {"samples, motion-dominant": rates}, tmp_path / "bundled" / "tiny_unet3d" / "README.md"
    card.parent.mkdir(parents=True)
    # Without a log of the training no card is written.
    write_model_card("tiny_unet3d", results, SamplerSettings(25, 3.0))
    assert not card.exists()
    run(tmp_path / "unet3d" / "training")
    write_model_card("tiny_unet3d", results, SamplerSettings(25, 3.0))
    assert "at 25 steps and guidance 3" in card.read_text()
    assert (f"in motion-dominant samples: {below}." in card.read_text()) == bool(below)
    assert ("aim" in card.read_text()) == bool(below)
