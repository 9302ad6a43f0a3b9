"""What every bundled model's training shares: the command line, the optimisers and one resumable loop."""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from motionexp.scripts.pretrain.videos import FOLDER

REPORT_EVERY = 50
SAVE_SECONDS = 60.0


def rate_factor(step: int, steps: int, warmup: int = 200, decay: float = 0.3) -> float:
    """Return the factor on the peak learning rate: linear warm-up, constant, linear decay to zero.

    Args:
        step: from 0. steps: of the whole run. warmup: steps. decay: share of the run at its end.
    """
    left = (steps - step) / max(decay * steps, 1)
    return min(1.0, (step + 1) / warmup, max(left, 0.0))


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


def options(
    description: str | None,
    name: str,
    *,
    steps: int,
    rate: float = 2e-3,
    batch: int = 32,
    videos: int = 20_000,
) -> argparse.ArgumentParser:
    """Return the options that all trainings have, with a training's defaults.

    Args:
        description: the module's docstring.
        name: of the folder in ``outputs/pretrain``.
        steps: of the whole training. rate: peak learning rate. batch: samples in a step.
        videos: how many pretraining videos are used.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch, help="samples in a step")
    parser.add_argument("--rate", type=float, default=rate, help="peak learning rate")
    parser.add_argument("--videos", type=int, default=videos, help="how many pretraining videos are used")
    parser.add_argument("--seconds", type=float, help="stop after this time; the next call continues")
    parser.add_argument("--output", type=Path, default=FOLDER / name)
    return parser


def muon_and_adamw(
    model: nn.Module,
    rate: float,
    is_matrix: Callable[[str], bool],
    **adamw: Any,
) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices whose names ``is_matrix`` accepts, and AdamW for all else.

    Args:
        model: whose parameters are trained.
        rate: peak learning rate.
        is_matrix: takes a parameter's name; only parameters of two dimensions are asked for.
        adamw: settings of AdamW in place of its defaults here.
    """
    defaults: dict[str, Any] = {"lr": rate, "betas": (0.9, 0.99), "weight_decay": 0.0}
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, value in model.named_parameters():
        # Muon orthogonalizes updates, which is defined for matrices alone.
        (matrices if value.ndim == 2 and is_matrix(name) else rest).append(value)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, **defaults | adamw),
    ]


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
        self.checkpoint, self.start = folder / "checkpoint.pt", 0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True, mmap=True)
            self.module.load_state_dict(state["module"])
            for optimiser, values in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(values)
            self.averaged.values = {name: value.clone() for name, value in state["averaged"].items()}
            self.start = int(state["step"])
            print(f"going on from step {self.start} ({self.checkpoint})", flush=True)
        # A checkpoint holds rates after the schedule's factor: divide by it to get the peak rates again.
        self.peaks = [
            [group["lr"] / group.get("factor", 1.0) for group in optimiser.param_groups]
            for optimiser in self.optimisers
        ]

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
        # Checked before the update, so that the parameters and the checkpoint stay finite.
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
    args: argparse.Namespace,
    model: nn.Module,
    optimisers: Iterable[torch.optim.Optimizer],
    loss: Callable[[int], Tensor],
    *,
    ema: float = 0.999,
    warmup: int = 200,
    decay: float = 0.3,
    folder: Path | None = None,
) -> None:
    """Train as the command line says, going on from a checkpoint that an interrupted run left.

    The model then has the averaged parameters.

    Args:
        args: of `options`; with ``seconds`` training stops early, with a checkpoint to go on from.
        model: what is trained.
        optimisers: their groups' ``lr`` is the peak learning rate.
        loss: computes the loss of a step; its random numbers must come from the step's index, so that a
            resumed run sees the same.
        ema: decay of the average of the parameters. warmup, decay: as in `rate_factor`.
        folder: gets ``checkpoint.pt``, overwritten about once a minute, and ``log.jsonl``; default
            ``training`` in the output folder.

    Raises:
        FloatingPointError: the loss is not finite; the checkpoint before it is kept.
    """
    print(f"{sum(value.numel() for value in model.parameters()):,} parameters", flush=True)
    folder = folder or args.output / "training"
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(model, optimisers, folder, ema)
    began = saved = time.monotonic()
    running = 0.0
    for step in range(run.start, args.steps):
        # 1. The update; the reported loss is a running mean.
        number = run.step(loss(step), step, rate_factor(step, args.steps, warmup, decay))
        running = number if step == run.start else 0.98 * running + 0.02 * number
        now = time.monotonic()
        # 2. The report.
        if step % REPORT_EVERY == 0:
            pace = (now - began) / (step - run.start + 1)
            left = pace * (args.steps - step) / 60
            print(f"step {step} loss {running:.5f} {pace:.3f} s/step, {left:.0f} min left", flush=True)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "loss": running, "time": time.time()}) + "\n")
        # 3. The checkpoint.
        stop = args.seconds is not None and now - began > args.seconds
        if stop or now - saved > SAVE_SECONDS or step + 1 == args.steps:
            run.save(step + 1)
            saved = now
        if stop:
            print(f"stopped at step {step + 1} of {args.steps} after {args.seconds:.0f} s", flush=True)
            break
    run.averaged.copy_to(model)
