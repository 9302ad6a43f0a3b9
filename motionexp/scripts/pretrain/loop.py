"""One resumable training loop for every bundled model."""

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

REPORT_EVERY = 50
SAVE_SECONDS = 60.0


@dataclass
class LearningRateSchedule:
    """Learning rate over a run: linear warm-up, constant, linear decay to zero over the last part.

    Attributes:
        steps: of the whole run. warmup: steps. decay: share of the run at its end.
    """

    steps: int
    warmup: int = 200
    decay: float = 0.3

    def factor(self, step: int) -> float:
        """Return the factor on the peak learning rate at a step."""
        left = (self.steps - step) / max(self.decay * self.steps, 1)
        return min(1.0, (step + 1) / self.warmup, max(left, 0.0))


class Averaged:
    """Exponential moving average of a module's parameters, in fp32."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().float().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the module; early steps weigh more, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        names, values = zip(*module.named_parameters(), strict=True)
        torch._foreach_lerp_([self.values[name] for name in names], [v.float() for v in values], 1 - decay)

    def copy_to(self, module: nn.Module) -> None:
        """Write the averaged values into a module."""
        with torch.no_grad():
            for name, value in module.named_parameters():
                value.copy_(self.values[name])


def in_bf16(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module with its fp32 parameters cast to bf16; gradients reach the fp32 parameters.

    On a CPU with bf16 products this is faster than autocast, which casts around each operation.
    """
    weights = {name: value.to(torch.bfloat16) for name, value in module.named_parameters()}
    return functional_call(module, weights, args, kwargs)


class _Run:
    """Module, optimisers and average of one training, and its checkpoint."""

    def __init__(
        self, module: nn.Module, optimisers: Iterable[torch.optim.Optimizer], folder: Path, ema: float
    ) -> None:
        self.module, self.optimisers = module, list(optimisers)
        self.averaged = Averaged(module, ema)
        self.checkpoint = folder / "checkpoint.pt"
        self.start = self._load() if self.checkpoint.exists() else 0
        self.peaks = [
            [group["lr"] / group.get("factor", 1.0) for group in optimiser.param_groups]
            for optimiser in self.optimisers
        ]

    def _load(self) -> int:
        state = torch.load(self.checkpoint, weights_only=True, mmap=True)
        self.module.load_state_dict(state["module"])
        for optimiser, values in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        self.averaged.values = {name: value.clone() for name, value in state["averaged"].items()}
        print(f"going on from step {state['step']} ({self.checkpoint})", flush=True)
        return int(state["step"])

    def save(self, step: int) -> None:
        """Write the checkpoint: whole, or the one before stays."""
        state = {
            "module": self.module.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "averaged": self.averaged.values,
            "step": step,
        }
        partial = self.checkpoint.with_suffix(f".{os.getpid()}.tmp")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def step(self, value: Tensor, step: int, factor: float) -> float:
        """Take one step down the gradient of ``value`` at ``factor`` times the peak rates; return it."""
        number = float(value.detach())
        if not math.isfinite(number):
            raise FloatingPointError(
                f"the loss is {number} at step {step}; {self.checkpoint} holds the last good state"
            )
        value.backward()
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            for group, rate in zip(optimiser.param_groups, peak, strict=True):
                group["lr"], group["factor"] = rate * factor, factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.averaged.update(self.module, step)
        return number


def train(
    module: nn.Module,
    optimisers: Iterable[torch.optim.Optimizer],
    loss: Callable[[int], Tensor],
    schedule: LearningRateSchedule,
    folder: Path,
    *,
    ema: float = 0.999,
    seconds: float | None = None,
) -> Averaged:
    """Train until ``schedule.steps``, going on from ``folder`` if an interrupted run left a checkpoint there.

    Args:
        module: what is trained.
        optimisers: their groups' ``lr`` is the peak learning rate.
        loss: computes the loss of a step; its random numbers must come from the step's index, so that a
            resumed run sees the same.
        schedule: learning rate and number of steps.
        folder: gets ``checkpoint.pt``, overwritten about once a minute, and ``log.jsonl``.
        ema: decay of the average of the parameters.
        seconds: stop early after this time, with a checkpoint from which training can go on.

    Returns:
        the averaged parameters.

    Raises:
        FloatingPointError: the loss is not finite; the checkpoint before it is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(module, optimisers, folder, ema)
    began = saved = time.monotonic()
    running = 0.0
    for step in range(run.start, schedule.steps):
        number = run.step(loss(step), step, schedule.factor(step))
        running = number if step == run.start else 0.98 * running + 0.02 * number
        now = time.monotonic()
        if step % REPORT_EVERY == 0:
            pace = (now - began) / (step - run.start + 1)
            _report(folder, step, running, pace, pace * (schedule.steps - step))
        stop = seconds is not None and now - began > seconds
        if stop or now - saved > SAVE_SECONDS or step + 1 == schedule.steps:
            run.save(step + 1)
            saved = now
        if stop:
            print(f"stopped at step {step + 1} of {schedule.steps} after {seconds:.0f} s", flush=True)
            break
    return run.averaged


def _report(folder: Path, step: int, loss: float, pace: float, left: float) -> None:
    print(f"step {step} loss {loss:.5f} {pace:.3f} s/step, {left / 60:.0f} min left", flush=True)
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": step, "loss": loss, "time": time.time()}) + "\n")
