"""Training the adapters of several references in one batch: `train_together=`."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from motionexp.diffusion import ranks
from motionexp.jobs.plan import CellPlan
from motionexp.methods.lora_stack import LoRAStack, StackMember
from motionexp.methods.training import FitResult, fit, start_seed

if TYPE_CHECKING:
    from motionexp.jobs.job import Job


def fit_together(job: "Job", group: Sequence[CellPlan]) -> None:
    """Train the adapters of a group of cells, and save those that are not stored yet.

    The group is trained as a whole, whatever of it is stored: its members change the last bits. The caller
    holds the lock of one of the cells that lack their adapter; the losses are in the cells' records alone.
    """
    training, seed = job.plan.training, group[0].training_seed
    examples = [job.example(video) for plan in group for video in plan.trained_on]
    settings = {name: value for name, value in job.plan.tuning.items() if name != "_target_"}
    starts = [start_seed(seed, [example]) for example in examples]
    stack = LoRAStack(job.backbone, job.window, starts, **settings)

    def save(result: FitResult) -> None:
        for number, plan in enumerate(group):
            if not plan.cell.has_adapter:
                of_one = replace(
                    result,
                    losses=[losses[number] for losses in result.losses],
                    trained=result.trained // len(group),
                    seconds=result.seconds / len(group),
                )
                job.keep_adapter(plan, StackMember(stack, number), of_one)

    try:
        result = fit(
            job.backbone,
            stack,
            examples,
            replace(training, seed=seed, batch_size=training.batch_size * len(group)),
            group[0].cell.adapter,
            on_keep=save,
            on_step=None if job.progress is None else job.progress.fitting(training.steps),
        )
        if ranks.is_first():
            save(result)
    finally:
        stack.remove()
    if result.checkpoint is not None and ranks.is_first():
        result.checkpoint.unlink()


def hold_others(job: "Job", group: Sequence[CellPlan], held: CellPlan, locks: ExitStack) -> None:
    """Lock the cells of a group that lack their adapter, in order; `held` is locked already."""
    for plan in group:
        if plan is not held and not plan.cell.has_adapter:
            about = {
                "reference": plan.reference.name,
                "tau": job.window.low,
                "adapter_id": plan.cell.folder.name,
            }
            locks.enter_context(job.holding(plan.cell, about))
