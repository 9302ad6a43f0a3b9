"""The settings of a job and of `python run.py score`, one line for each. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import II, MISSING

from motionexp.config.scoring import ScoringConfig
from motionexp.config.settings import setting
from motionexp.files import PACKAGE

BUNDLED = PACKAGE / "bundled"
# In tokenizer_config.json: the words of a model that knows no others, where they are not its tokens.
CLOSED_VOCABULARY = "closed_vocabulary"
PROJECTIONS = ("q", "k", "v", "o")
PROBED_REFERENCES = 6
INVERSION_PROMPTS = {"tampering": "caption", "partial_guidance": "empty"}
# On every spacing of timesteps: each model's own schedule decides on others, `jobs.checks.check_grid`.
ANY_SCHEDULES_STEPS = (10, 20, 40, 50, 100, 200)
DEVICES = r"auto|cpu|cuda(:\d+)?|mps"
TIMESTEP: dict[str, Any] = {"low": 0, "high": 1000, "timestep": True}


# fmt: off
@dataclass
class ModelConfig:
    """A backbone and the settings that suit it: one file in `conf/model/`."""

    _target_: str = setting(
        MISSING, "a Backbone's from_pretrained, as motionexp.backbones.FILE.CLASS.from_pretrained")
    name: str = setting(MISSING, "name in rows, tables and output paths")
    path: str = setting(MISSING, "bundled:NAME, a folder in a diffusers pipeline's layout, or a hub id")
    revision: str | None = setting(None, "commit of the hub's repository")
    frames: int = setting(MISSING, "number of frames that the model was trained on", low=1)
    frame_range: list[int] | None = setting(None, "fewest and most for frames=; null: model.frames alone")
    frame_step: int = setting(1, "frames= is the fewest of frame_range plus a multiple of this", low=1)
    height: int = setting(MISSING, "pixels", low=1)
    width: int = setting(MISSING, "pixels", low=1)
    fps: float = setting(MISSING, "frames per second of its training videos", above=0)
    max_caption_tokens: int = setting(
        MISSING, "longest caption that its text encoder takes, end token included", low=1)
    closed_vocabulary: bool = setting(False, "true: words outside its tokenizer's list are an error")
    default_tau: float = setting(MISSING, "the window's lower end unless tau= is given", **TIMESTEP)
    boundary: float | None = setting(
        None, "timestep that tau=auto takes: the boundary that probes found", **TIMESTEP)
    boundary_weights: str | None = setting(
        None, "first 12 digits of weights_hash of the weights that were probed")
    video_vae: bool = setting(False, "true: a video VAE, which mode=low_memory runs in tiles")
    train_steps: int = setting(MISSING, "training steps", low=1)
    learning_rate: float = setting(MISSING, "learning rate of low-rank adapters", above=0)
    full_rank_learning_rate: float = setting(MISSING, "learning rate of full-rank tuning", above=0)
    batch_size: int = setting(MISSING, "noise draws of the one video in a training step", low=1)
    steps: int = setting(MISSING, "sampling steps", low=1, high=1000)
    guidance_scale: float = setting(MISSING, "classifier-free guidance; 1: none", low=1)


@dataclass
class JobConfig:
    """Every setting of a job; `python run.py --help` prints this list.

    `settings.Setting` says what a line's metadata mean. A default of `${model.…}` comes from the model's own
    file in `conf/model/`.
    """

    model: ModelConfig = setting(MISSING, "the backbone", "content", listed=True)
    method: dict[str, Any] = setting(
        {}, "how the motion is transferred", "training", listed=True, default_in_tables=False)
    data: dict[str, Any] = setting({}, "where the references come from", "content", rows="never", listed=True)
    scoring: ScoringConfig = setting(ScoringConfig, "models behind scores", "content")

    references: Any = setting(
        None, "number of references, or their names: 4, red-ball or [red-ball,blue-cube]; null: 1, and 6 with"
        " probe=, because a boundary needs an interval", "content", rows="never", listed=True)
    edits: list[str] | None = setting(
        None, "new captions; null: the reference's own edits", "content", rows="never")
    seeds: int = setting(1, "samples for each edit", "content", low=1, rows="never", listed=True)
    video: str | None = setting(
        None, "your own clip: mp4, gif, webm or a folder of frames", "content", text=True, rows="never")
    caption: str | None = setting(None, "what the clip of video= shows", "content", text=True, rows="never")
    start: float = setting(0.0, "where the clip starts, in seconds", "content", low=0)
    fps: float | None = setting(
        None, "frames per second to take from the clip; null: by stride=", "content", above=0)
    stride: int | None = setting(
        None, "take every n-th frame of the clip; null: 1, or by fps=", "content", low=1)
    frames: int = setting(II("model.frames"), "number of frames of references and samples", "cell", low=1)
    fit: str = setting(
        "crop", "crop: fill the model's size; fit: the whole picture, with bars", "content", choices=("crop",
        "fit"))

    tau: Any = setting(
        "${window_of:${adapter},${model.default_tau}}", "train and apply at timesteps t >= tau only; 0: all"
        " timesteps, 1000: none, the base model; auto: model.boundary", "training", "applying",
        listed=True, default_in_tables=False, **TIMESTEP)
    tau_from: str = setting(
        "given", "not for you to set: boundary, where tau=auto has become a number", "tau")
    tau_high: float = setting(
        1000.0, "the window's upper end: train and apply at t <= tau_high only", "training", "applying",
        added_later=True, **TIMESTEP)
    soft_window: Any = setting(
        None, "soft edge of the window: [[t,weight],...], t ascending from tau, weights from 0 to 1, linear"
        " between them. Training draws timesteps by the weights, and the adapter is scaled by them;"
        " null: weight 1 in the whole window", "training", added_later=True)
    sampling_tau: float | None = setting(
        None, "the window's lower end while sampling; null: tau", "applying", added_later=True, **TIMESTEP)
    sampling_tau_high: float | None = setting(
        None, "the window's upper end while sampling; null: tau_high", "applying", added_later=True,
        **TIMESTEP)
    rank: int = setting(4, "rank of the low-rank adapter", "method", low=1, listed=True)
    alpha: float = setting(
        4.0, "its alpha: updates are scaled by alpha / rank", "method", above=0, listed=True)
    projections: list[str] = setting(
        ["v", "o"], "which of q, k, v, o of the attention are tuned", "method", listed=True)
    attention: str = setting(
        "motion", "which attention is tuned: motion, spatial or cross alone, or all", "method",
        choices=("motion", "spatial", "cross", "all"))
    train_steps: int = setting(II("model.train_steps"), "training steps", "training", low=1, listed=True)
    keep_steps: list[int] = setting(
        [], "also save the adapter after these steps, so that runs with fewer train_steps can reuse it",
        "none")
    learning_rate: float = setting(
        II("model.learning_rate"), "AdamW's learning rate", "training", above=0, listed=True)
    weight_decay: float = setting(0.01, "AdamW's weight decay", "training", low=0)
    batch_size: int = setting(
        II("model.batch_size"), "noise draws of the one video in a training step", "training", low=1)
    seed: int = setting(
        0, "seed of training and sampling", "training", "sampling", low=0, default_in_tables=False)
    checkpoint_every: int = setting(
        50, "training steps between checkpoints; 0: one at the end", "none", low=0)
    logger: str = setting(
        "csv", "csv, tensorboard, or wandb (offline): where the training's loss goes", "none",
        choices=("csv", "tensorboard", "wandb"))
    preview_every: int = setting(0, "training steps between sample previews; 0: none", "none", low=0)

    probe: str | None = setting(
        None, "tampering or partial_guidance: probe the base model, and train nothing", "probe",
        choices=(None, "tampering", "partial_guidance"))
    probe_steps: int = setting(
        50, f"sampling steps of a probe; {', '.join(map(str, ANY_SCHEDULES_STEPS))} suit every model",
        "probe", low=10, high=1000, multiple_of=10)
    inversion_guidance_scale: float = setting(
        1.0, "guidance of a probe while it inverts the reference; 1: none", "probe", low=1)
    inversion_prompt: str | None = setting(
        None, "what a probe inverts with: caption or empty; null: caption for tampering, else empty", "probe",
        choices=(None, "caption", "empty"), added_later=True)
    edit_kinds: list[str] | None = setting(
        None, "only edits of these kinds; null: all; with probe=, multiple and motion", "content",
        rows="never")

    adapter: str | None = setting(
        None, "folder or file of a saved adapter: sample with it and do not train", "content", text=True,
        rows="where it matters")
    adapter_scale: float = setting(
        1.0, "strength of the adapter while sampling; 1: as trained", "applying", low=0)
    adapter_in_unconditional: bool = setting(
        True, "true: the adapter also acts in guidance's unconditional branch", "applying")
    sampler: str = setting("ddim", "ddim is the only one", "sampling", choices=("ddim",))
    steps: int = setting(II("model.steps"), "sampling steps", "sampling", low=1, high=1000, listed=True)
    eta: float = setting(
        0.0, "noise added back in each step: 0: none (deterministic), 1: as DDPM", "sampling", low=0, high=1)
    guidance_scale: float = setting(
        II("model.guidance_scale"), "classifier-free guidance; 1: none", "sampling", "probe", low=1,
        listed=True)
    negative_prompt: str = setting("", "caption of the unconditional branch", "sampling", "probe", text=True)

    metrics: list[str] | None = setting(
        None, "metrics to score; null: all that the data allow", "content", rows="never")
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps", "none", pattern=DEVICES)
    precision: str = setting(
        "auto", "auto: what is fast on this machine; or fp32, bf16, fp16", "content",
        choices=("auto", "fp32", "bf16", "fp16"), listed=True)
    mode: str = setting(
        "fast", "fast, or low_memory: slower, with equal results unless model.video_vae is true", "none",
        choices=("fast", "low_memory"), rows="where it matters")
    checkpointing: bool | None = setting(
        None, "recompute activations in the backward pass instead of storing them; null: by mode=", "none")
    offload: bool | None = setting(
        None, "network and VAE wait in main memory while the other computes; null: by mode=, on a GPU",
        "none")
    text_precision: str = setting(
        "auto", "weights of the text encoder: auto (as precision=), 8bit or 4bit", "cell",
        choices=("auto", "8bit", "4bit"), added_later=True)
    memory_limit: float | None = setting(
        None, "GiB that sampling may fill; null: half of the free memory, and one video with mode=low_memory",
        "none", above=0)
    output: str = setting("outputs", "folder for everything that a run writes", "none", text=True)
    dry_run: bool = setting(
        False, "true: print memory, cells, parameters, time, disk, paths; train nothing", "none")
    plugins: list[str] = setting(
        [], "your own packages, whose classes `_target_` may name; on the command line alone",
        "none")


@dataclass
class ScoreConfig:
    """Every setting of `python run.py score`; `--help` prints this list."""

    data: dict[str, Any] = setting({}, "the suite whose edits the videos show, as for a job")
    folder: str | None = setting(
        None, "the videos: SOURCE/REFERENCE/EDIT/00000.jpg, REFERENCE/EDIT.mp4, or a CSV", text=True)
    system: str | None = setting(
        None, "name of the system that made the videos, in rows and tables; null: the folder's", text=True)
    frames: int | None = setting(None, "frames of each video; null: as many as its whole reference", low=1)
    references: Any = setting(None, "which references, by number or name; null: all of the suite")
    edit_kinds: list[str] | None = setting(None, "only edits of these kinds; null: all")
    fit: str = setting(
        "crop", "how references are brought to the videos' size: crop or fit", choices=("crop", "fit"))
    metrics: list[str] | None = setting(None, "metrics to score; null: all that the data allow")
    scoring: ScoringConfig = setting(ScoringConfig, "models behind scores")
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps", pattern=DEVICES)
    output: str = setting("outputs", "folder for the rows", text=True)

    @property
    def name(self) -> str:
        """The system's name; without `system=` the folder's."""
        return self.system or Path(self.folder or "").expanduser().resolve().stem
# fmt: on


def method_name(method: Mapping[str, Any]) -> str:
    """The method's name in rows, ids and adapter files: that of the module which `method._target_` names."""
    return str(method["_target_"]).split(".")[-2]


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
    """The weights of a saved adapter: in its folder, or the file itself."""
    path = Path(adapter).expanduser()
    return path if path.suffix == ".safetensors" else path / "adapter.safetensors"


def tiles(mode: str, model: ModelConfig) -> bool:
    """Whether the VAE works in tiles whose seams are blended, which changes results a little."""
    return mode == "low_memory" and model.video_vae
