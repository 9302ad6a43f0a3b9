"""One resumable training loop for every bundled model."""

import json
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
class Schedule:
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


def in_bf16(module: nn.Module, *args: Tensor, **kwargs: Any) -> Any:
    """Call a module with its fp32 parameters cast to bf16; gradients reach the fp32 parameters.

    On a CPU with bf16 products this is faster than autocast, which casts around each operation.
    """
    weights = {name: value.to(torch.bfloat16) for name, value in module.named_parameters()}
    return functional_call(module, weights, args, kwargs)


def train(
    module: nn.Module,
    optimisers: Iterable[torch.optim.Optimizer],
    loss: Callable[[int], Tensor],
    schedule: Schedule,
    folder: Path,
    *,
    ema: float = 0.999,
    seconds: float | None = None,
) -> Averaged:
    """Train until ``schedule.steps``, going on from ``folder`` if an interrupted run left a checkpoint there.

    Args:
        module: what is trained.
        optimisers: their groups' ``lr`` is the peak learning rate.
        loss: computes the loss of a step; every random number in it must come from the step's index, so that a
            resumed run sees what an uninterrupted one would.
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
    optimisers = list(optimisers)
    averaged, start = Averaged(module, ema), 0
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, mmap=True)
        module.load_state_dict(state["module"])
        for optimiser, values in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        averaged.values, start = {k: v.clone() for k, v in state["averaged"].items()}, state["step"]
        print(f"going on from step {start} ({checkpoint})", flush=True)
    peaks = [[group["lr"] / group.get("factor", 1.0) for group in optimiser.param_groups] for optimiser in optimisers]
    began = saved = time.monotonic()
    running = 0.0

    def save(step: int) -> None:
        state = {"module": module.state_dict(), "optimisers": [o.state_dict() for o in optimisers]}
        partial = checkpoint.with_suffix(f".{os.getpid()}.tmp")
        torch.save(state | {"averaged": averaged.values, "step": step}, partial)
        partial.replace(checkpoint)

    for step in range(start, schedule.steps):
        factor = schedule.factor(step)
        for optimiser, peak in zip(optimisers, peaks, strict=True):
            for group, rate in zip(optimiser.param_groups, peak, strict=True):
                group["lr"], group["factor"] = rate * factor, factor
        value = loss(step)
        value.backward()
        number = float(value.detach())
        if not torch.isfinite(value.detach()):
            raise FloatingPointError(f"the loss is {number} at step {step}; {checkpoint} holds the last good state")
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        averaged.update(module, step)
        running = number if step == start else 0.98 * running + 0.02 * number
        now = time.monotonic()
        if step % REPORT_EVERY == 0:
            pace = (now - began) / (step - start + 1)
            left = pace * (schedule.steps - step) / 60
            print(f"step {step} loss {running:.5f} {pace:.3f} s/step, {left:.0f} min left", flush=True)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "loss": running, "time": time.time()}) + "\n")
        if now - saved > SAVE_SECONDS:
            save(step + 1)
            saved = now
        if seconds is not None and now - began > seconds:
            save(step + 1)
            print(f"stopped at step {step + 1} of {schedule.steps} after {seconds:.0f} s", flush=True)
            return averaged
    save(schedule.steps)
    return averaged
