import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from motionexp.scripts.pretrain import loop
from motionexp.scripts.pretrain.loop import Averaged, in_bf16, rate_factor, train

STEPS = 12
KILLED = """
import os
from pathlib import Path

from motionexp.scripts.pretrain import loop
from tests.scripts.pretrain.test_loop import run

loop.SAVE_SECONDS = 0.0
run(Path(os.environ["FOLDER"]), kill_at=5)
"""


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))


def losses(network: nn.Module, kill_at: int | None = None):
    """A loss whose data come from the step alone; at step `kill_at` the process dies."""

    def loss(step: int) -> Tensor:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        values = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        return (network(values) - values.sum(1, keepdim=True)).square().mean()

    return loss


def run(folder: Path, *, seconds: float | None = None, kill_at: int | None = None) -> dict[str, Tensor]:
    """Train from the folder's checkpoint, if there is one; return the weights and their averages."""
    network = module()
    optimisers = [
        torch.optim.SGD(network[0].parameters(), lr=0.03, momentum=0.9),
        torch.optim.AdamW(network[2].parameters(), lr=0.02),
    ]
    args = Namespace(steps=STEPS, seconds=seconds)
    options = {"ema": 0.9, "warmup": 3, "decay": 0.5, "folder": folder}
    train(args, network, optimisers, losses(network, kill_at), **options)
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)["module"]
    return network.state_dict() | {f"{name}, not averaged": value for name, value in weights.items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    return run(tmp_path_factory.mktemp("whole"))


def test_stopped_after_every_step_it_ends_with_the_same_weights(tmp_path: Path, whole):
    for _ in range(STEPS - 1):
        stopped = run(tmp_path, seconds=0.0)
        assert not equal(stopped, whole)
    assert equal(run(tmp_path), whole)


def test_killed_it_goes_on_to_the_same_weights(tmp_path: Path, whole, capsys: pytest.CaptureFixture[str]):
    environment = os.environ | {"FOLDER": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = run(tmp_path)
    assert "step 5" in capsys.readouterr().out
    assert equal(resumed, whole)


def test_a_save_cut_short_leaves_the_checkpoint_before_it(
    tmp_path: Path, whole, monkeypatch: pytest.MonkeyPatch
):
    run(tmp_path, seconds=0.0)

    def cut(state: object, path: Path) -> None:
        path.write_bytes(b"half of a")
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", cut)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path)
    assert equal(run(tmp_path), whole)


def test_a_loss_that_is_not_finite_stops_and_keeps_what_was_good(tmp_path: Path, whole):
    network = module()
    good = losses(network)

    def loss(step: int) -> Tensor:
        return good(step) * (float("nan") if step == 4 else 1.0)

    run(tmp_path, seconds=0.0)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    optimisers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (network[0], network[2])]
    args = Namespace(steps=STEPS, seconds=None, output=tmp_path / "second")
    with pytest.raises(FloatingPointError, match="step 4"):
        train(args, network, optimisers, loss)
    assert all(value.isfinite().all() for value in network.parameters())
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_the_rate_warms_up_stays_and_falls_to_nothing():
    factors = [rate_factor(step, 100, warmup=10, decay=0.5) for step in (0, 4, 9, 30, 50, 75, 99, 100)]
    assert factors == [0.1, 0.5, 1.0, 1.0, 1.0, 0.5, 0.02, 0.0]


def test_the_average_follows_the_parameters():
    network = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(network.weight)
    averaged, expected = Averaged(network, decay=0.5), torch.zeros(1, 2)
    for step in range(6):
        nn.init.constant_(network.weight, step + 1.0)
        averaged.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1.0)
    torch.testing.assert_close(averaged.values["weight"], expected)
    averaged.copy_to(network)
    torch.testing.assert_close(network.weight.detach(), expected)


def test_bf16_reaches_the_fp32_parameters():
    network = module()
    values = torch.randn(4, 6)
    output = in_bf16(network, values.bfloat16())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), network(values), atol=0.02, rtol=0.02)
    output.float().sum().backward()
    assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in network.parameters())


def test_the_log_says_how_it_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop, "REPORT_EVERY", 5)
    run(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 5, 10]
    assert records[0]["loss"] == pytest.approx(losses(module())(0).item())
