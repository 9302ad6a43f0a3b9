"""What the cards of bundled models say."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from motionexp.diffusion.sampling import SamplerSettings
from motionexp.scripts.pretrain import cards

RIGHT = {"colour": 1.0, "surface": 0.95, "shape": 0.92, "background": 1.0, "motion": 0.86}


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes the card of a model whose motion-dominant samples have these rates; returns its text."""
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    monkeypatch.setattr(cards, "BUNDLED", tmp_path / "bundled")

    def written(name: str, rates: dict[str, float]) -> str:
        training, model = (
            tmp_path / cards.TRAINING[name] / "training",
            tmp_path / "bundled" / name,
        )
        for folder in (training, model):
            folder.mkdir(parents=True)
        log = [{"step": 50 * n, "time": 60.0 * n, "loss": 0.5} for n in range(1, 4)]
        (training / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        torch.save({"step": 151}, training / "checkpoint.pt")
        save_file({"weight": torch.zeros(3, 4)}, model / "model.safetensors")
        cards.write_model_card(name, {"samples, motion-dominant": rates}, SamplerSettings(25, 3.0))
        return (model / "README.md").read_text()

    return written


def test_a_card_says_what_is_short_of_its_aim(card) -> None:
    text = card("tiny_cogvideox", {**RIGHT, "surface": 0.891, "motion": 0.84})
    assert "in motion-dominant samples: surface (0.891, aim 0.9), motion (0.840, aim 0.85)." in text
    assert "at 25 steps and guidance 3" in text
    assert "| parameters | 12 |" in text
    assert "| steps | 151 |" in text
    assert "| time | 2 minutes |" in text


def test_a_card_of_a_model_that_reaches_its_aims_says_nothing_of_them(card) -> None:
    text = card("tiny_unet3d", RIGHT)
    assert "aimed" not in text
    assert "| samples, motion-dominant | 1.000 | 0.950 | 0.920 | 1.000 | 0.860 |" in text


def test_without_a_training_s_log_a_card_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    cards.write_model_card("tiny_latte", {"samples, motion-dominant": RIGHT}, SamplerSettings(25, 2.0))
    assert not list(tmp_path.iterdir())
