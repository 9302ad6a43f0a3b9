import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from motionexp.scripts.pretrain.cards import Facts, read_log, write_card


def run(folder: Path) -> Path:
    """A run of 150 steps: two minutes, with an hour's pause in the middle that resumed from step 100."""
    times = [0.0, 30.0, 60.0, 3660.0, 3690.0, 3720.0]
    lines = [
        json.dumps({"step": 50 * row, "loss": 1.0 / (row + 1), "time": time})
        for row, time in enumerate(times)
    ]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    torch.save({"step": 150}, folder / "checkpoint.pt")
    return folder


def test_pauses_are_no_training_time(tmp_path: Path):
    assert read_log(run(tmp_path)) == (150, 120.0, 1 / 6)


def test_a_card_says_what_was_measured(tmp_path: Path):
    facts = Facts(
        title="Small thing",
        library="open_clip",
        purpose="For tests.",
        command="python -m thing",
        data="ten frames",
        samples=20,
        seeds="weights 0",
        training=run(tmp_path),
        quality={"motion-dominant": {"colour": 0.98765, "all": 0.9}, "appearance-dominant": {"all": 1.0}},
        measured="Share of frames.",
        origin="the weights in elsewhere",
    )
    save_file({"weight": torch.zeros(1000, 12)}, tmp_path / "model.safetensors")
    write_card(tmp_path, facts)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: open_clip\n---\n# Small thing\n")
    assert "trained from the weights in elsewhere by `python -m thing`" in card
    for line in (
        "| parameters | 12,000 |",
        "| steps | 150 |",
        "| samples seen | 3,000 (20 a step) |",
        "| time | 2 minutes |",
        "| final loss | 0.1667 (mean of the last steps) |",
        "|  | colour | all |",
        "| motion-dominant | 0.988 | 0.900 |",
        "| appearance-dominant |  | 1.000 |",
    ):
        assert line in card.splitlines()
