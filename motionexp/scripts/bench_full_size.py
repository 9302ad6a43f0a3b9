"""How fast Latte-1 and Wan 1.3B are tuned here, at their full size (`make bench-full-size`).

LoRA of rank 4 on v and o; weights are random, in the real ones' shapes, and nothing is downloaded. On a GPU:
of Latte, 16 frames of 512 x 512 pixels, seconds a step, memory, and the share of the GPU's bf16 peak: of 200
steps in each mode, as a job takes them; of a plain loop, as public trainers write it; and of a loop that
takes every measure that makes it fast, and of it with one of them left out. Then of Wan, 49 frames of 480 x
832 pixels, a few steps in each mode and with weights of 8 bits. Each row goes to `outputs/bench/full_size/`
as soon as it is measured: a run that is stopped has lost nothing. By the arithmetic of its steps all takes
less than ten minutes on one H200. Last, or alone where there is no GPU: the memory that `mode=low_memory`
plans for several models.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.memory import give_memory_back
from motionexp.backbones.random_weights import CHECKPOINTS, randomize, write_checkpoint
from motionexp.config.compose import load
from motionexp.config.schema import JobConfig
from motionexp.data.videos import write_mp4
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.jobs.dry_run import print_memory
from motionexp.jobs.evaluation import peak_memory
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.job import Job, encode
from motionexp.jobs.memory_plan import MemoryTracker, MetaRun, memory_plan
from motionexp.jobs.provenance import device_name
from motionexp.jobs.stated_costs import PEAKS
from motionexp.methods.base import OptimizerSettings
from motionexp.methods.lora import LoRA
from motionexp.methods.step import Step
from motionexp.methods.training import Example, fit
from motionexp.results.rows import ROWS_NAME, Row
from motionexp.scripts.bench import Times, as_row, wait, write
from motionexp.scripts.programs import exit_code

MODES = ("fast", "low_memory")
ROUNDS, STEPS, WARM_UP = 3, 10, 3
COMPILER = "inductor"
CAPTION = "a red plain circle is moving on sand"
EDITS = '["a blue plain star is moving on ice"]'
# The models whose memory is planned, with the most GB that `mode=low_memory` shall take.
PLANNED = {
    "latte": ([], 12),
    "wan_1_3b": (["frames=49"], 12),
    "cogvideox_5b": (["frames=49"], 16),
    "wan_14b": (["frames=49"], 24),
}
# How Wan 1.3B is tuned, one after the other.
OF_WAN = (["mode=low_memory"], ["mode=fast"], ["mode=low_memory", "network_precision=fp8"])
WAN_STEPS = 20
CLIP = (49, 64, 64, 3)  # as many frames as any of them takes; they are made larger


@dataclass(frozen=True)
class Measures:
    """What a loop of training steps does to be fast.

    Attributes:
        cached: latents and caption are encoded once, not in every step.
        half: frozen weights are in bf16, not in fp32 under autocast.
        stored: activations are stored for the backward pass, not computed again.
        cut: no gradient goes to what lies before the first trained layer. So it is by itself where nothing
            there asks for one, in `fit` and in the plain loop too.
        fused: attention never has its whole matrix of scores.
        compiled: each block of the network by torch.compile. `fit` does not do so.
    """

    cached: bool = True
    half: bool = True
    stored: bool = True
    cut: bool = True
    fused: bool = True
    compiled: bool = False


PLAIN = "plain loop"
# Those that encode in every step come first, for the encoders are in memory only as long as they run.
LOOPS = {
    PLAIN: Measures(cached=False, half=False, stored=False),
    "encoding in every step": Measures(cached=False),
    "all measures": Measures(),
    "fp32 weights under autocast": Measures(half=False),
    "checkpointing": Measures(stored=False),
    "gradient to the first layer": Measures(cut=False),
    "attention not fused": Measures(fused=False),
    "compiled beside": Measures(compiled=True),
}


class Loop:
    """Training steps of a LoRA on Latte with random weights.

    Args:
        folder: of the model; its weights are replaced by random ones.
        measures: what the steps do.
        encoded: what is trained on; called in every step.
        device: where.
    """

    def __init__(
        self, folder: Path, measures: Measures, encoded: Callable[[], Example], device: torch.device
    ) -> None:
        self.measures, self.encoded, self.device = measures, encoded, device
        self.backbone = LatteBackbone.from_pretrained(
            folder,
            device=device,
            dtype=torch.bfloat16 if measures.half else torch.float32,
            checkpointing=not measures.stored,
        )
        randomize(self.backbone.network)
        self.method = attached_lora(self.backbone)
        self.optimizer = OptimizerSettings().build(self.method.parameters.values())
        if measures.compiled:
            network = self.backbone.network
            for block in (*network.transformer_blocks, *network.temporal_transformer_blocks):
                block.compile(fullgraph=True, dynamic=False, backend=COMPILER)

    def step(self) -> None:
        """Encode if need be, draw noise and timestep, go forward and backward, update."""
        example = self.encoded()
        t = torch.randint(1000, (len(example.latents),), device=self.device)
        noise, conditioning = torch.randn_like(example.latents), example.conditioning.trimmed()
        tensors = Step.noised(self.backbone.schedule, example.latents, noise, t, conditioning)
        if not self.measures.cut:
            tensors.noisy.requires_grad_()
        with ExitStack() as conditions:
            if not self.measures.half:
                conditions.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            if not self.measures.fused:
                conditions.enter_context(sdpa_kernel(SDPBackend.MATH))
            loss = self.method.loss(tensors)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def rounds(self) -> Iterator[float]:
        """Mean seconds of a step of each round, after steps that do not count."""
        for round_ in range(-1, ROUNDS):
            wait(self.device)
            start, steps = time.perf_counter(), WARM_UP if round_ < 0 else STEPS
            for _ in range(steps):
                self.step()
            wait(self.device)
            if round_ >= 0:
                yield (time.perf_counter() - start) / steps


def attached_lora(backbone: Backbone) -> LoRA:
    """Attach a LoRA of rank 4 on v and o, switched on."""
    method = LoRA(backbone, Window(0))
    method.switch(True)
    return method


def step_flops(folder: Path, example: Example) -> int:
    """Arithmetic of a step's forward and backward pass, as torch counts it: nothing is computed again."""
    backbone = LatteBackbone.from_pretrained(folder, device="meta", dtype=torch.bfloat16)
    method = attached_lora(backbone)
    latents, conditioning = example.latents.to("meta"), example.conditioning.trimmed()
    conditioning = replace(conditioning, embeds=conditioning.embeds.to("meta"))
    tensors = Step(latents, latents, torch.zeros(1, device="meta"), latents, latents, conditioning)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(method.loss(tensors))
    return counter.get_total_flops()


@dataclass
class Scale:
    """What the figures of a step are measured against.

    Attributes:
        flops: arithmetic of a step, by `step_flops`.
        peak: FLOP a second of the device; NaN where they are not known.
        plain: seconds of a step of the plain loop; NaN until they are known.
    """

    flops: int
    peak: float
    plain: float = math.nan

    def times(self, part: str, seconds: float, memory: int) -> Times:
        """What is told of a step that takes so many seconds, and so many bytes at most."""
        return [
            ("training_step_seconds", part, seconds),
            ("times_as_fast_as_plain", part, self.plain / seconds),
            ("share_of_bf16_peak", part, self.flops / seconds / self.peak),
            ("peak_memory_gb", part, memory / 1e9),
        ]


def forget_peak(device: torch.device) -> None:
    """Free memory; from now on `peak_memory` is the most that a GPU has held since."""
    give_memory_back()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def loop_times(
    folder: Path, part: str, encoded: Callable[[], Example], device: torch.device, scale: Scale
) -> list[Times]:
    """Of each round of one of `LOOPS`; of the plain one it sets `scale.plain`."""
    forget_peak(device)
    try:
        loop = Loop(folder, LOOPS[part], encoded, device)
        seconds = list(loop.rounds())
    except torch.OutOfMemoryError:
        return [[("training_step_seconds", part, math.nan)]]
    if part == PLAIN:
        scale.plain = float(np.median(seconds))
    memory = peak_memory(device)
    return [scale.times(part, value, memory) for value in seconds]


def flops_of(job: Job) -> int:
    """As `step_flops`, of any model."""
    run = MetaRun(job.plan)
    with MemoryTracker(job.device):  # which knows what tensors without values cannot tell
        step = run.step(run.longest_caption())
    method = attached_lora(run.backbone)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(method.loss(step))
    return counter.get_total_flops()


def mode_times(job: Job, scale: Scale, part: str) -> Times:
    """Of a whole training as the job's own, and of its phases the memory, planned and measured."""
    backbone, reference = job.backbone, job.references[0]
    planned = {phase.name: phase.total for phase in memory_plan(job.plan)}
    phase_peaks: dict[str, int] = {}

    def record(phase: str) -> None:
        phase_peaks[phase] = peak_memory(job.device)
        forget_peak(job.device)

    forget_peak(job.device)
    conditioning = backbone.embed([reference.caption])
    backbone.release_text_encoder()
    record("captions")
    latents = backbone.encode(torch.from_numpy(reference.frames.copy())[None])
    backbone.release_vae_encoder()
    record("video")
    randomize(backbone.network)
    settings, method = job.plan.training, LoRA(backbone, job.window)
    with TemporaryDirectory() as name:
        example = Example(latents, conditioning, reference.content_hash)
        done = fit(backbone, method, [example], settings, Path(name), progress=False)
    method.remove()
    record("training")
    phases: Times = []
    for phase, memory in phase_peaks.items():
        on = f"{part}, {phase}"
        phases += [("peak_memory_gb", on, memory / 1e9), ("planned_memory_gb", on, planned[phase] / 1e9)]
    whole = scale.times(part, done.seconds / settings.steps, max(phase_peaks.values()))
    return [*whole, ("training_seconds", part, done.seconds), *phases]


def measure(cfgs: Sequence[JobConfig], of_wan: Sequence[JobConfig] = ()) -> Iterator[Row]:
    """Measure the loops, and between them whole trainings; gives their rows as soon as they are measured.

    Args:
        cfgs: settings of Latte in each mode.
        of_wan: settings of Wan.
    """
    job, folder = Job(cfgs[0], Console(quiet=True)), Path(cfgs[0].model.path)
    # 1. The loops that encode in every step, by encoders in bf16.
    coder = LatteBackbone.from_pretrained(folder, device=job.device, dtype=torch.bfloat16)
    coder.vae.to(torch.bfloat16)
    for encoder in (coder.text_encoder, coder.vae):
        randomize(encoder)
    example = encode(coder, job.references[0])
    scale = Scale(step_flops(folder, example), PEAKS.get(device_name(job.device), math.nan))
    for part in (part for part, measures in LOOPS.items() if not measures.cached):
        again = partial(encode, coder, job.references[0])
        yield from rows_of(job, loop_times(folder, part, again, job.device, scale))
    # 2. The encoders give their memory back; whole trainings have their own.
    coder.release_text_encoder()
    coder.vae = None
    for cfg in cfgs:
        yield from rows_of(job, [mode_times(Job(cfg, Console(quiet=True)), scale, f"mode={cfg.mode}")])
    # 3. The other loops.
    for part in (part for part, measures in LOOPS.items() if measures.cached):
        yield from rows_of(job, loop_times(folder, part, lambda: example, job.device, scale))
    # 4. Wan, of which nothing is plain.
    yield from wan_rows(of_wan)


def wan_rows(cfgs: Sequence[JobConfig]) -> Iterator[Row]:
    """The rows of trainings of Wan."""
    flops = 0
    for cfg in cfgs:
        job = Job(cfg, Console(quiet=True))
        flops = flops or flops_of(job)  # of one size, whatever the mode
        scale = Scale(flops, PEAKS.get(device_name(job.device), math.nan))
        bits = "" if cfg.network_precision == "auto" else f" network_precision={cfg.network_precision}"
        part = f"{cfg.model.name} mode={cfg.mode}{bits}"
        try:
            times = mode_times(job, scale, part)
        except torch.OutOfMemoryError:
            times = [("training_step_seconds", part, math.nan)]
        yield from rows_of(job, [[entry for entry in times if entry[0] != "times_as_fast_as_plain"]])
        job.backbone.unload()


def rows_of(job: Job, rounds: Sequence[Times]) -> Iterator[Row]:
    """The rows of what one loop or training gave in each round."""
    for repeat, times in enumerate(rounds):
        for entry in times:
            row = as_row(job, repeat, entry, method="lora", tau=job.window.low, steps=0)
            reason = ""
            if math.isnan(row.value):
                share = row.metric == "share_of_bf16_peak"
                reason = "the peak of this device is not known" if share else "out of memory"
            yield replace(row, suite="bench_full_size", reason=reason, train_steps=job.plan.training.steps)


def settings_of(name: str, folder: Path, overrides: Sequence[str]) -> JobConfig:
    """A job's settings on a random-weight checkpoint, which is written into the folder if it is missing."""
    model, clip = folder / name, write_clip(folder)
    if not model.exists():
        write_checkpoint(CHECKPOINTS[name], model)
    return load(
        [
            *(f"model={name}", f"model.path={model}", "model.revision=null", "precision=bf16", "tau=0"),
            *(f"video={clip}", f"caption={CAPTION}", f"edits={EDITS}", "output=outputs/bench/full_size"),
            *overrides,
        ]
    )


def write_clip(folder: Path) -> Path:
    """A clip of noise, written if it is missing."""
    clip = folder / "clip.mp4"
    if not clip.exists():
        write_mp4(clip, np.random.default_rng(0).integers(0, 256, CLIP, dtype=np.uint8), fps=8)
    return clip


def plan(cfg: JobConfig) -> int:
    """Print what a job would have in memory on a GPU, also where there is none; return the peak in bytes."""
    console, job = Console(), plan_job(cfg)
    console.print(f"\n{cfg.model.name}, {cfg.frames} frames of {cfg.model.height} x {cfg.model.width}")
    return max(phase.total for phase in print_memory(console, job, memory_plan(job)))


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Measure where there is a GPU, and print the plans."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        if torch.cuda.is_available():
            cfgs = [settings_of("latte", folder, [f"mode={mode}", *arguments]) for mode in MODES]
            few = ["frames=49", f"train_steps={WAN_STEPS}", *arguments]
            of_wan = [settings_of("wan_1_3b", folder, [*words, *few]) for words in OF_WAN]
            write(measure(cfgs, of_wan), Path(cfgs[0].output) / ROWS_NAME)
        clip = write_clip(folder)
        for model, (overrides, most) in PLANNED.items():
            words = [f"model={model}", f"video={clip}", f"caption={CAPTION}", f"edits={EDITS}", *overrides]
            peak = plan(load([*words, "mode=low_memory", "dry_run=true", "device=cuda", *arguments])) / 1e9
            print(f"planned: {peak:.1f} GB; wanted: less than {most} GB")
        if not torch.cuda.is_available():
            raise InputError(
                "make bench-full-size: it measures on a CUDA GPU, and this machine has none; only the"
                " plans above need none. `make bench` measures small models on any machine"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
