"""What a job is told: the settings with their checks. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from omegaconf import II, MISSING

from motionexp.config.scoring import ScoringConfig
from motionexp.files import PACKAGE

BUNDLED = PACKAGE / "bundled"
# In tokenizer_config.json: the words of a model that knows no others, where its tokens do not tell them.
CLOSED_VOCABULARY = "closed_vocabulary"
PROJECTIONS = ("q", "k", "v", "o")
ATTENTIONS = ("motion", "spatial", "cross", "all")
PROBED_REFERENCES = 6
CHOICES = {
    "attention": ATTENTIONS,
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "sampler": ("ddim",),
    "fit": ("crop", "fit"),
    "logger": ("csv", "tensorboard", "wandb"),
    "probe": (None, "tampering", "partial_guidance"),
    "inversion_prompt": (None, "caption", "empty"),
}
INVERSION_PROMPTS = {"tampering": "caption", "partial_guidance": "empty"}
# On every spacing of timesteps: each model's own schedule decides on others, `probes.grid`.
ANY_SCHEDULES_STEPS = (10, 20, 40, 50, 100, 200)


def _key(default: Any, meaning: str) -> Any:
    """A setting with its line in `--help`; a list or a dict is copied for each job."""
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata={"help": meaning})
    return field(default=default, metadata={"help": meaning})


@dataclass
class ModelConfig:
    """A backbone and the settings that suit it: one file in `conf/model/`."""

    _target_: str = _key(MISSING, "a Backbone's from_pretrained: path, revision, device and dtype go in")
    name: str = _key(MISSING, "name in rows, tables and output paths")
    path: str = _key(MISSING, "bundled:NAME, a folder in a diffusers pipeline's layout, or a hub id")
    revision: str | None = _key(None, "commit of the hub's repository")
    frames: int = _key(MISSING, "frames that it was trained for")
    frame_range: list[int] | None = _key(None, "fewest and most for frames=; null: model.frames alone")
    frame_step: int = _key(1, "frames= is the fewest of frame_range and a multiple of this")
    height: int = _key(MISSING, "pixels")
    width: int = _key(MISSING, "pixels")
    fps: float = _key(MISSING, "frames a second of its training videos")
    max_caption_tokens: int = _key(MISSING, "longest caption that its text encoder takes, end token included")
    closed_vocabulary: bool = _key(False, "true: words outside its tokenizer's list are an error")
    default_tau: float = _key(MISSING, "the window's lower end unless tau= says otherwise")
    boundary: float | None = _key(None, "what tau=auto stands for: the boundary that probes found")
    boundary_weights: str | None = _key(None, "hash of the weights that the boundary was found on, 12 digits")
    video_vae: bool = _key(False, "its VAE is one of videos, which mode=low_memory runs in tiles")
    train_steps: int = _key(MISSING, "training steps")
    learning_rate: float = _key(MISSING, "for low-rank adapters")
    full_rank_learning_rate: float = _key(MISSING, "for method=full_rank")
    batch_size: int = _key(MISSING, "noise draws of the one video in a training step")
    steps: int = _key(MISSING, "sampling steps")
    guidance_scale: float = _key(MISSING, "classifier-free guidance")


@dataclass
class JobConfig:
    """Every setting of a job; `python run.py --help` prints this list.

    Where a default is `${model.…}` the model's own file in `conf/model/` says what suits it.
    """

    model: ModelConfig = _key(MISSING, "the backbone")
    method: dict[str, Any] = _key({}, "how the motion is carried over")
    data: dict[str, Any] = _key({}, "where the references come from")
    scoring: ScoringConfig = field(default_factory=ScoringConfig, metadata={"help": "models behind scores"})

    references: Any = _key(
        None,
        "how many references, or their names: 4, red-ball or [red-ball,blue-cube]; null: 1, and with probe=,"
        " whose boundary needs an interval, 6",
    )
    edits: list[str] | None = _key(None, "new captions; null: those that the reference brings along")
    seeds: int = _key(1, "samples for each edit")
    video: str | None = _key(None, "a clip of your own: mp4, gif, webm or a folder of frames")
    caption: str | None = _key(None, "what the clip of video= shows")
    start: float = _key(0.0, "where the clip starts, in seconds")
    fps: float | None = _key(None, "frames a second to take from the clip; null: by stride=")
    stride: int | None = _key(None, "take every so many frames of the clip; null: 1, or by fps=")
    frames: int = _key(II("model.frames"), "frames taken and made")
    fit: str = _key("crop", "crop: fill the model's size; fit: all of the picture, with bars")

    tau: Any = _key(
        "${window_of:${adapter},${model.default_tau}}",
        "train and apply at timesteps t >= tau only; 0: all of them, 1000: none, the base model;"
        " auto: model.boundary",
    )
    tau_from: str = _key("given", "no setting of yours: boundary, where tau=auto has become a number")
    tau_high: float = _key(1000.0, "the window's upper end: train and apply at t <= tau_high only")
    soft_window: Any = _key(
        None,
        "weights in place of a hard edge, [[t,weight],...] from t = tau up, linear between, 0 to 1: draw"
        " training timesteps by them, scale the adapter by them; null: 1 in all of the window",
    )
    sampling_tau: float | None = _key(None, "apply from another tau on than the one of training; null: tau")
    sampling_tau_high: float | None = _key(None, "apply up to another tau_high; null: tau_high")
    rank: int = _key(4, "rank of the low-rank adapter")
    alpha: float = _key(4.0, "its alpha: updates are scaled by alpha / rank")
    projections: list[str] = _key(["v", "o"], "which of q, k, v, o of the attention are tuned")
    attention: str = _key(
        "motion", "which attention is tuned: motion, or in its place spatial or cross, or all"
    )
    train_steps: int = _key(II("model.train_steps"), "training steps")
    keep_steps: list[int] = _key(
        [], "keep the adapter after so many training steps too, for train_steps= of so many to be there"
    )
    learning_rate: float = _key(II("model.learning_rate"), "AdamW's learning rate")
    weight_decay: float = _key(0.01, "AdamW's weight decay")
    batch_size: int = _key(II("model.batch_size"), "noise draws of the one video in a training step")
    seed: int = _key(0, "of everything random, in training and in sampling")
    checkpoint_every: int = _key(50, "training steps between checkpoints; 0: one at the end")
    logger: str = _key("csv", "csv, tensorboard, or wandb (offline): where the training's loss goes")
    preview_every: int = _key(0, "training steps between sample previews; 0: none")

    probe: str | None = _key(None, "tampering or partial_guidance: probe the base model, and train nothing")
    probe_steps: int = _key(50, "a probe's sampling steps, as many in each 100 timesteps: 10, 20, 50 or 100")
    inversion_guidance_scale: float = _key(1.0, "a probe's guidance while it inverts the reference; 1: none")
    inversion_prompt: str | None = _key(
        None, "what a probe inverts with: caption or empty; null: caption for tampering, else empty"
    )
    edit_kinds: list[str] | None = _key(
        None, "only edits of these kinds; null: all; with probe=, multiple and motion"
    )

    adapter: str | None = _key(None, "folder or file of a kept adapter: sample with it and do not train")
    adapter_scale: float = _key(1.0, "strength of the adapter while sampling; 1: as trained")
    adapter_in_unconditional: bool = _key(True, "the adapter also acts in guidance's unconditional branch")
    sampler: str = _key("ddim", "ddim is the only one")
    steps: int = _key(II("model.steps"), "sampling steps")
    eta: float = _key(0.0, "noise added back in each step: 0: none (deterministic), 1: as DDPM")
    guidance_scale: float = _key(II("model.guidance_scale"), "classifier-free guidance; 1: none")
    negative_prompt: str = _key("", "caption of the unconditional branch")

    metrics: list[str] | None = _key(None, "metrics to score; null: all that the data allow")
    device: str = _key("auto", "auto, cpu, cuda, cuda:N or mps")
    precision: str = _key("auto", "auto: what is fast on this machine; or fp32, bf16, fp16")
    mode: str = _key("fast", "fast, or low_memory: slower, the same results (but see model.video_vae)")
    checkpointing: bool | None = _key(None, "compute activations again in place of keeping them; null: mode=")
    offload: bool | None = _key(
        None, "network and VAE wait in main memory while the other computes; null: mode=, on a GPU"
    )
    text_precision: str = _key("auto", "the text encoder's weights: auto (as precision=), 8bit or 4bit")
    memory_limit: float | None = _key(
        None, "GiB that sampling may fill; null: half of what is free, with mode=low_memory one video's"
    )
    output: str = _key("outputs", "folder for everything that a run writes")
    dry_run: bool = _key(False, "true: print memory, cells, parameters, time, disk, paths; train nothing")


def wanted_references(cfg: JobConfig, count: int) -> Any:
    """What `references=` says; where it says nothing the first, or a probe's first six, out of `count`."""
    if cfg.references is not None:
        return cfg.references
    return min(count, PROBED_REFERENCES) if cfg.probe else 1


def inversion_prompt(cfg: JobConfig) -> str:
    """What a probe inverts its references with, `caption` or `empty`: as its paper unless it is given."""
    return cfg.inversion_prompt or INVERSION_PROMPTS[str(cfg.probe)]


def method_name(cfg: JobConfig) -> str:
    """The method's name in rows, ids and adapter files: that of the module which `method._target_` names."""
    return str(cfg.method["_target_"]).split(".")[-2]


def model_folder(model: ModelConfig) -> Path | None:
    """The local folder that `path` names: `bundled:NAME`, an absolute or an existing one; None: a hub id."""
    if model.path.startswith("bundled:"):
        return BUNDLED / model.path.removeprefix("bundled:")
    path = Path(model.path).expanduser()
    # IMAGE_MODEL+MOTION_ADAPTER are two, which are looked at when they are loaded.
    return path if path.is_dir() or (path.is_absolute() and "+" not in model.path) else None


def tokenizer_file(model: ModelConfig) -> Path:
    """The tokenizer of a local model folder; only asked for where `closed_vocabulary` is set."""
    return (model_folder(model) or Path(model.path)) / "tokenizer" / "tokenizer.json"


def adapter_file(adapter: str) -> Path:
    """The weights of a kept adapter: in its folder, or the file itself."""
    path = Path(adapter).expanduser()
    return path if path.suffix == ".safetensors" else path / "adapter.safetensors"


class MemorySettings(Protocol):
    """Those of `config.JobConfig` that say how memory is used."""

    mode: str
    checkpointing: bool | None
    offload: bool | None
    text_precision: str
    device: str
    model: Any


def tiles(cfg: MemorySettings) -> bool:
    """Whether the VAE works in tiles whose seams are blended, which changes results a little."""
    return cfg.mode == "low_memory" and cfg.model.video_vae


def checkpoints(cfg: MemorySettings) -> bool:
    """Whether activations are computed again in the backward pass."""
    return cfg.mode == "low_memory" if cfg.checkpointing is None else cfg.checkpointing


def offloads(cfg: MemorySettings, device: str) -> bool:
    """Whether what does not compute waits in main memory, for a job on a type of device (cpu, cuda, mps)."""
    return cfg.mode == "low_memory" and device == "cuda" if cfg.offload is None else cfg.offload
