"""The settings of a job and of `python run.py score`, one line for each. Imports no torch."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import II, MISSING

from motionexp.config.scoring import ScoringConfig
from motionexp.config.settings import NAME, REVISION, setting
from motionexp.config.targets import class_value
from motionexp.errors import InputError
from motionexp.files import PACKAGE, user_path

BUNDLED = PACKAGE / "bundled"
# In tokenizer_config.json: the words of a model that knows no others, where they are not its tokens.
CLOSED_VOCABULARY = "closed_vocabulary"
PROJECTIONS = ("q", "k", "v", "o")
PROBED_REFERENCES = 6
INVERSION_PROMPTS: Mapping[str, tuple[str, ...]] = {
    "tampering": ("caption",),
    "partial_guidance": ("empty",),
    "inversion": ("empty", "caption"),
    "linear_probe": (),
}
"""{probe: the prompts that it inverts a reference with, unless inversion_prompt= names one}"""
GROUPS = 20
"""Groups of videos of the linear probe: its intervals resample them in place of references."""
FEWEST_GROUPS = 3
# On every spacing of timesteps: each model's own schedule decides on others, `jobs.checks.check_grid`.
ANY_SCHEDULES_STEPS = (10, 20, 40, 50, 100, 200)
DEVICES = r"auto|cpu|cuda(:\d+)?|mps"
LOGGERS = ("csv", "tensorboard", "wandb")
SAMPLERS = ("ddim", "euler", "dpmpp_2m", "unipc")
DISCRETE_SPACINGS = ("leading", "trailing", "linspace")
FLOW_SPACINGS = ("euler", "unipc", "dpm", "even", "linear_quadratic")
RECIPE_SETTINGS = (
    "steps",
    "sampler",
    "shift",
    "timestep_spacing",
    "guidance_scale",
    "dynamic_guidance",
    "negative_prompt",
    "force_zeros_for_empty_prompt",
    "stg_scale",
    "stg_blocks",
    "guidance_rescale",
)
"""The settings that `recipe=` chooses, all of them of sampling."""
TIMESTEP: dict[str, Any] = {"low": 0, "high": 1000, "timestep": True}


# fmt: off
@dataclass
class ModelConfig:
    """A backbone and the settings that suit it: one file in `conf/model/`."""

    _target_: str = setting(MISSING, "a Backbone's class: motionexp.backbones.FILE.CLASS.from_pretrained")
    name: str = setting(
        MISSING, "name in rows, tables and paths: letters, digits, dots, dashes, underscores", pattern=NAME)
    path: str = setting(MISSING, "bundled:NAME, a folder in diffusers' layout, or a hub id", text=True)
    revision: str | None = setting(None, "commit of the hub's repository, branch or tag", pattern=REVISION)
    frames: int = setting(MISSING, "number of frames that the model was trained on", low=1)
    frame_range: list[int] | None = setting(None, "fewest and most for frames=; null: model.frames alone")
    frame_step: int = setting(1, "frames= is the fewest of frame_range plus a multiple of this", low=1)
    height: int = setting(MISSING, "pixels", low=1)
    width: int = setting(MISSING, "pixels", low=1)
    fps: float = setting(MISSING, "frames per second of its training videos", above=0)
    max_caption_tokens: int = setting(MISSING, "most tokens of a caption, end token included", low=1)
    closed_vocabulary: bool = setting(False, "true: words outside its tokenizer's list are an error")
    default_tau: float = setting(MISSING, "the window's lower end unless tau= is given", **TIMESTEP)
    boundary: float | None = setting(None, "timestep of tau=auto: the boundary from probes", **TIMESTEP)
    boundary_weights: str | None = setting(None, "first 12 digits of the probed weights' weights_hash")
    guided_block: int | None = setting(
        None, "the block that method=ditflow reads; null: as deep as in its paper", low=0)
    video_vae: bool = setting(False, "true: a video VAE, which mode=low_memory runs in tiles")
    train_steps: int = setting(MISSING, "training steps", low=1)
    learning_rate: float = setting(MISSING, "learning rate of low-rank adapters", above=0)
    full_rank_learning_rate: float = setting(MISSING, "learning rate of full-rank tuning", above=0)
    batch_size: int = setting(MISSING, "noise draws of the one video in a batch of a training step", low=1)
    steps: int = setting(MISSING, "sampling steps", low=1, high=1000)
    guidance_scale: Any = setting(MISSING, "classifier-free guidance; 1: none")
    dynamic_guidance: bool = setting(False, "guidance as CogVideoX's authors vary it")
    negative_prompt: str = setting("", "caption of the unconditional branch", text=True)
    force_zeros_for_empty_prompt: bool = setting(False, "an empty caption is tokens of zero, all masked")
    stg_scale: float = setting(0.0, "of spatio-temporal guidance; 0: none", low=0)
    stg_blocks: list[int] | None = setting(None, "the blocks that it perturbs")
    guidance_rescale: float = setting(0.0, "0: a guided output stays as it is", low=0, high=1)
    sampler: str = setting("ddim", "the solver", choices=SAMPLERS)
    probe_steps: int = setting(50, "of probes: enough for a step in every hundred of t", low=10, high=1000)
    shift: float | None = setting(None, "of flow matching's sigmas; null: its scheduler's", above=0)
    timestep_spacing: str | None = setting(
        None, "null: its scheduler's", choices=(None, *DISCRETE_SPACINGS, *FLOW_SPACINGS))
    boundary_shift: float | None = setting(None, "the shift with which boundary was found", above=0)
    recipe: str | None = setting(None, "the one of recipes that holds unless recipe= is given")
    recipes: dict[str, dict[str, Any]] = setting(
        {}, f"{{NAME: settings}} of {', '.join(RECIPE_SETTINGS)}; what one leaves out is as above")


@dataclass
class TrainerConfig:
    """How a training is spread over devices: `docs/gpus.md`."""

    devices: int = setting(1, "GPUs of a node, or processes on a CPU, that share the job", low=1, high=1024)
    num_nodes: int = setting(1, "nodes, whose processes srun or torchrun starts", low=1, high=1024)
    strategy: str = setting(
        "auto", "fsdp: each GPU holds a part of the frozen network; auto: ddp, each the whole network",
        choices=("auto", "ddp", "fsdp"))
    accumulate: int = setting(
        1, "batches of a step, one after the other: memory of one, result of a larger batch_size", low=1,
        high=10_000)

    @property
    def ranks(self) -> int:
        """How many processes share the job."""
        return self.devices * self.num_nodes

    def draws(self, batch_size: int) -> int:
        """Noise draws of all ranks in a training step. Ids and rows hold it, and not how they are spread."""
        return batch_size * self.accumulate * self.ranks


@dataclass
class JobConfig:
    """Every setting of a job; `python run.py --help` prints this list.

    `settings.Setting` says what a line's metadata mean. A default of `${model.…}` comes from the model's
    own file in `conf/model/`.
    """

    model: ModelConfig = setting(MISSING, "the backbone", "content", listed=True)
    method: dict[str, Any] = setting({}, "motion transfer", "training", listed=True, default_in_tables=False)
    data: dict[str, Any] = setting({}, "where the references come from", "content", rows="never", listed=True)
    scoring: ScoringConfig = setting(ScoringConfig, "models behind scores", "content")

    references: Any = setting(
        None, "a number, all, or a list of names; null: 1, a probe's 6", "content", rows="never", listed=True)
    edits: list[str] | None = setting(None, "new captions; null: the reference's", "content", rows="never")
    image: str | None = setting(
        None, "a picture, the first frame of all samples, for a model that takes one; null: the suite's for"
        " each edit", "content", text=True, rows="never")
    seeds: int = setting(1, "samples for each edit", "content", low=1, high=10_000, rows="never", listed=True)
    video: str | None = setting(None, "a clip: file or folder of frames", "content", text=True, rows="never")
    caption: str | None = setting(None, "what the clip of video= shows", "content", text=True, rows="never")
    start: float = setting(0.0, "where the clip starts, in seconds", "content", low=0)
    fps: float | None = setting(None, "frames a second to take of it; null: by stride=", "content", above=0)
    stride: int | None = setting(None, "take every n-th frame of it; null: 1, or by fps=", "content", low=1)
    frames: int = setting(II("model.frames"), "number of frames of references and samples", "cell", low=1)
    fit: str = setting("crop", "cut edges off, or show all on black", "content", choices=("crop", "fit"))

    tau: Any = setting(
        "${window_of:${adapter},${model.default_tau}}", "train and apply at timesteps t >= tau only; 0: all"
        " timesteps, 1000: the base model; auto: model.boundary", "training", "applying", listed=True,
        default_in_tables=False, **TIMESTEP)
    tau_from: str = setting("given", "set by the program: boundary, where tau=auto was given", "tau")
    tau_high: float = setting(
        1000.0, "the window's upper end: train and apply at t <= tau_high only", "training", "applying",
        added_later=True, **TIMESTEP)
    soft_window: Any = setting(
        None, "weights of timesteps, linear between [[t,weight],...] with t ascending from tau: training"
        " draws t by them, and the adapter is scaled by them; null: 1", "training", added_later=True)
    sampling_tau: float | None = setting(
        None, "the window's lower end in sampling; null: tau", "applying", added_later=True, **TIMESTEP)
    sampling_tau_high: float | None = setting(
        None, "the window's upper end in sampling; null: tau_high", "applying", added_later=True, **TIMESTEP)
    rank: int = setting(4, "rank of the low-rank adapter", "method", low=1, high=8192, listed=True)
    alpha: float = setting(4.0, "updates are scaled by alpha / rank", "method", above=0, listed=True)
    projections: list[str] = setting(["v", "o"], "some of the attention's q, k, v, o", "method", listed=True)
    attention: str = setting(
        "motion", "the attention that is tuned", "method", choices=("motion", "spatial", "cross", "all"))
    train_steps: int = setting(II("model.train_steps"), "training steps", "training", low=1, listed=True)
    keep_steps: list[int] = setting([], "save the adapter after these training steps too", "none")
    learning_rate: float = setting(II("model.learning_rate"), "AdamW's", "training", above=0, listed=True)
    weight_decay: float = setting(0.01, "AdamW's weight decay", "training", low=0)
    batch_size: int = setting(
        II("model.batch_size"), "noise draws in a training step, times trainer.devices, trainer.num_nodes and"
        " trainer.accumulate", "training", low=1, high=10_000)
    trainer: TrainerConfig = setting(TrainerConfig, "several GPUs in one job", "none")
    seed: int = setting(0, "of training and sampling", "training", "sampling", low=0, default_in_tables=False)
    training_seeds: Any = setting(
        1, "how many training seeds from seed on, or a list of them: an adapter for each", "content",
        rows="never", listed=True)
    train_together: int = setting(
        1, "references in one batch of training, each with a LoRA of its own: faster per reference where the"
        " model is small", "none", low=1, high=1000)
    checkpoint_every: int = setting(50, "training steps from checkpoint to checkpoint; 0: one", "none", low=0)
    logger: Any = setting(
        "csv", f"{', '.join(LOGGERS)}, or a list of them: where losses, scores and videos go", "none")
    log_adapter: bool = setting(False, "logger=wandb stores the adapter too, as an artifact", "none")
    preview_every: int = setting(0, "training steps between sample previews; 0: none", "none", low=0)

    probe: str | None = setting(None, "train nothing", "probe", choices=(None, *INVERSION_PROMPTS))
    probe_steps: int = setting(
        II("model.probe_steps"), f"sampling steps, best one of {ANY_SCHEDULES_STEPS}", "probe", low=10,
        high=1000, multiple_of=10)
    inversion_guidance_scale: float = setting(1.0, "guidance while a probe inverts; 1: none", "probe", low=1)
    inversion_prompt: str | None = setting(
        None, "in probes; null: as its paper", "probe", choices=(None, "caption", "empty"), added_later=True)
    edit_kinds: list[str] | None = setting(None, "some kinds of edits; null: all", "content", rows="never")

    adapter: str | None = setting(
        None, "a saved adapter (folder, file): sample, train nothing", "content", text=True,
        rows="where it matters")
    adapter_scale: float = setting(1.0, "of the adapter while sampling; 1: as trained", "applying", low=0)
    inverted_noise: float = setting(
        0.0, "p: sampling with an adapter starts from sqrt(p) times the inverted reference plus sqrt(1 - p)"
        " times noise; 0: noise alone", "applying", low=0, high=1, added_later=True)
    adapter_in_unconditional: bool = setting(True, "also adapt guidance's unconditional branch", "applying")
    recipe: str | None = setting(
        II("model.recipe"), "owners, diffusers, papers ...: the settings of sampling that the model's file"
        " has under this name (docs/models.md); single settings come on top", "content")
    sampler: str = setting(
        "${from_recipe:sampler}", "the solver; in flow matching ddim is euler", "sampling", choices=SAMPLERS)
    shift: float | None = setting(
        "${from_recipe:shift}", "sampling sigmas s of flow matching become shift s / (1 + (shift - 1) s);"
        " null: its scheduler's", "sampling", "probe", above=0, added_later=True)
    timestep_spacing: str | None = setting(
        "${from_recipe:timestep_spacing}", "of sampling steps; null: its scheduler's", "sampling", "probe",
        choices=(None, *DISCRETE_SPACINGS, *FLOW_SPACINGS), added_later=True)
    steps: int = setting(
        "${from_recipe:steps}", "sampling steps", "sampling", low=1, high=1000, listed=True)
    eta: float = setting(0.0, "noise of each step: 0 none, 1 as DDPM", "sampling", low=0, high=1)
    guidance_scale: Any = setting(
        "${from_recipe:guidance_scale}", "classifier-free; 1: none; [[0,low],[t,high],...]: each from its"
        " timestep on", "sampling", "probe", listed=True)
    dynamic_guidance: bool = setting(
        "${from_recipe:dynamic_guidance}", "CogVideoX's: the scale varies from 1 to 1 + guidance_scale",
        "sampling", added_later=True)
    negative_prompt: str = setting(
        "${from_recipe:negative_prompt}", "caption of the unconditional branch", "sampling", "probe",
        text=True)
    force_zeros_for_empty_prompt: bool = setting(
        "${from_recipe:force_zeros_for_empty_prompt}", "Mochi's: an empty caption is tokens of zero, all of"
        " them masked", "sampling", "probe", added_later=True)
    stg_scale: float = setting(
        "${from_recipe:stg_scale}", "spatio-temporal guidance, a further evaluation a step: adds this times"
        " the difference to the output of a network that is perturbed in stg_blocks; 0: none", "sampling",
        low=0, added_later=True)
    stg_blocks: list[int] | None = setting(
        "${from_recipe:stg_blocks}", "numbers from 0 of the blocks whose self-attention stg_scale replaces by"
        " its values", "sampling", added_later=True)
    guidance_rescale: float = setting(
        "${from_recipe:guidance_rescale}", "share to which a guided output takes the standard deviation of"
        " the conditional one; 0: none", "sampling", low=0, high=1, added_later=True)

    metrics: list[str] | None = setting(None, "some metrics; null: all that fit", "content", rows="never")
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps", "none", pattern=DEVICES)
    precision: str = setting(
        "auto", "auto: what is fast here", "content", choices=("auto", "fp32", "bf16", "fp16"), listed=True)
    mode: str = setting(
        "fast", "low_memory is slower, and its results equal unless model.video_vae is true", "none",
        choices=("fast", "low_memory"), rows="where it matters")
    checkpointing: bool | None = setting(None, "recompute activations in training; null: by mode=", "none")
    offload: str | None = setting(
        None, "wait in main memory: model: idle network and VAE; group: every idle block of the network too;"
        " group_stream: the next block is copied meanwhile; null: by mode=", "none",
        choices=(None, "none", "model", "group", "group_stream"))
    text_precision: str = setting(
        "auto", "of the text encoder", "cell", choices=("auto", "8bit", "4bit"), added_later=True)
    network_precision: str = setting(
        "auto", "of the frozen weights in the network's blocks", "cell",
        choices=("auto", "fp8", "8bit", "4bit"), rows="where it matters", added_later=True)
    memory_limit: float | None = setting(
        None, "GiB for videos that are sampled together; null: one video at a time", "none", above=0)
    retry: str | None = setting(
        None, "a cell that ran out of memory: half of train_together= or memory_limit=, under other ids;"
        " null: it fails", "none", choices=(None, "smaller_batch"), rows="never")
    base_model: bool = setting(
        True, "sample and score the base model too, once for all jobs", "none", rows="never")
    exact_frames: str = setting(
        "video", "exact frames of samples: lossless .mkv, or .npz", "none", choices=("video", "npz"),
        rows="never")
    report: bool = setting(
        False, "end with the report of the sweep, or of output=: pages with videos, plots and tables", "none",
        rows="never")
    output: str = setting("outputs", "folder for everything that a run writes", "none", text=True)
    dry_run: bool = setting(False, "only print what the job would cost and write", "none")
    plugins: list[str] = setting([], "packages of code that may run; command line only", "none")


@dataclass
class ScoreConfig:
    """Every setting of `python run.py score`; `--help` prints this list."""

    data: dict[str, Any] = setting({}, "the suite whose edits the videos show, as for a job")
    folder: str | None = setting(None, "needed: videos as REFERENCE/EDIT.mp4, as frames, or a CSV", text=True)
    system: str | None = setting(None, "who made the videos; null: the folder's name", text=True)
    frames: int | None = setting(None, "frames of each video; null: as many as its whole reference", low=1)
    references: Any = setting(None, "which references, by number or name; null or all: all of the suite")
    edit_kinds: list[str] | None = setting(None, "only edits of these kinds; null: all")
    fit: str = setting("crop", "cut edges off, or show all on black", choices=("crop", "fit"))
    metrics: list[str] | None = setting(None, "metrics to score; null: all that the data allow")
    scoring: ScoringConfig = setting(ScoringConfig, "models behind scores")
    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps", pattern=DEVICES)
    output: str = setting("outputs", "folder for the rows", text=True)

    @property
    def name(self) -> str:
        """The system's name; without `system=` the folder's."""
        return self.system or user_path(self.folder or "").resolve().stem
# fmt: on


def guides(cfg: JobConfig) -> bool:
    """Whether a job samples with a guidance method, which trains nothing."""
    if cfg.adapter is not None or cfg.tau == 1000 or cfg.probe is not None:
        return False
    return is_guidance(cfg.method, cfg.plugins)


def is_guidance(method: Mapping[str, Any], plugins: Collection[str] = ()) -> bool:
    """Whether the class of a method says that it trains nothing."""
    try:
        return class_value(str(method["_target_"]), "trains", plugins) is False
    except InputError:
        return False  # there is no such class, or its package may not run: a problem of its own


def trains(cfg: JobConfig) -> bool:
    """Whether a job trains an adapter in each cell."""
    return cfg.adapter is None and cfg.tau != 1000 and cfg.probe is None and not guides(cfg)


def training_seeds(cfg: JobConfig) -> list[int]:
    """The training seeds of the adapters of one reference; one where nothing is trained."""
    if not trains(cfg):
        return [cfg.seed]
    if isinstance(cfg.training_seeds, list):
        return [int(seed) for seed in cfg.training_seeds]
    return [cfg.seed + number for number in range(cfg.training_seeds)]


def method_name(method: Mapping[str, Any]) -> str:
    """The method's name in rows, ids and adapter files: that of the module which `method._target_` names."""
    return str(method["_target_"]).split(".")[-2]


def model_folder(model: ModelConfig) -> Path | None:
    """The local folder that `path` names: `bundled:NAME`, an absolute or an existing one; None: a hub id."""
    if model.path.startswith("bundled:"):
        return BUNDLED / model.path.removeprefix("bundled:")
    path = user_path(model.path)
    # IMAGE_MODEL+MOTION_ADAPTER are two, which are looked at when they are loaded.
    return path if os.path.isdir(path) or (path.is_absolute() and "+" not in model.path) else None


def tokenizer_file(model: ModelConfig) -> Path:
    """The tokenizer of a local model folder; only asked for where `closed_vocabulary` is set."""
    return (model_folder(model) or Path(model.path)) / "tokenizer" / "tokenizer.json"


def tiles(mode: str, model: ModelConfig) -> bool:
    """Whether the VAE works in tiles whose seams are blended, which changes results a little."""
    return mode == "low_memory" and model.video_vae
