"""What a job is told: the settings with their checks. Imports no torch."""

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from omegaconf import II, MISSING

from motionexp.errors import InputError
from motionexp.memory_config import mode_problems
from motionexp.scoring_config import METRICS, ScoringConfig, scoring_problems
from motionexp.window_checks import SAMPLING_WINDOW, window_problems

BUNDLED = Path(__file__).parent / "bundled"
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
# A probe's grid in timesteps: blocks and their edges, and all 55 pairs of edges (tau_start, tau_end).
BLOCK = 100
EDGES = tuple(range(0, 1001, BLOCK))
# On every spacing of timesteps: each model's own schedule decides on others, `probes.grid`.
ANY_SCHEDULES_STEPS = (10, 20, 40, 50, 100, 200)
Pair = tuple[int, int]
PAIRS: tuple[Pair, ...] = tuple(combinations(reversed(EDGES), 2))


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
    full_rank_learning_rate: float = _key(MISSING, "for method=direct")
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


def check(cfg: JobConfig) -> list[str]:
    """All that is wrong with the settings, as far as it shows without torch; one sentence a problem."""
    return [*_number_problems(cfg), *window_problems(cfg), *_frame_problems(cfg), *_choice_problems(cfg),
            *_boundary_problems(cfg.model), *_clip_problems(cfg), *_file_problems(cfg),
            *_caption_problems(cfg), *mode_problems(cfg), *scoring_problems(cfg.scoring)]  # fmt: skip


WHOLE_FROM_1 = ("rank", "train_steps", "batch_size", "seeds", "stride")
WHOLE_FROM_0 = ("seed", "checkpoint_every", "preview_every")
POSITIVE = ("alpha", "learning_rate", "fps", "memory_limit")
FROM_0 = ("weight_decay", "adapter_scale", "start")


def _number_problems(cfg: JobConfig) -> Iterator[str]:
    bounds: list[tuple[str, float, float, str]] = [
        ("tau", 0, 1000, "a timestep from 0 (all of them) to 1000 (none: the base model), or auto"),
        *((name, 0, 1000, "a timestep from 0 to 1000") for name in ("tau_high", *SAMPLING_WINDOW)),
        ("steps", 1, 1000, "a whole number from 1 to 1000"),
        ("eta", 0, 1, "a number from 0 (deterministic) to 1"),
        ("guidance_scale", 1, sys.float_info.max, "a number from 1 (no guidance)"),
        ("inversion_guidance_scale", 1, sys.float_info.max, "a number from 1 (no guidance)"),
        *((name, 1, math.inf, "a whole number from 1") for name in WHOLE_FROM_1),
        *((name, 0, math.inf, "a whole number from 0") for name in WHOLE_FROM_0),
        *((name, sys.float_info.min, sys.float_info.max, "a number above 0") for name in POSITIVE),
        *((name, 0, sys.float_info.max, "a number from 0") for name in FROM_0),
    ]
    for name, low, high, right in bounds:
        value = getattr(cfg, name)
        if not isinstance(value, int | float | None):
            yield f"{name}={value}: {right}"
        elif value is not None and not low <= value <= high:
            yield f"{name}={value:g}: {right}"
    wrong = [steps for steps in cfg.keep_steps if not 1 <= steps < cfg.train_steps]
    if wrong:
        yield f"keep_steps={cfg.keep_steps}: whole numbers from 1, below train_steps={cfg.train_steps}"
    if not 10 <= cfg.probe_steps <= 1000 or cfg.probe_steps % 10:
        yield (
            f"probe_steps={cfg.probe_steps}: a multiple of 10 up to 1000, for as many in each 100 timesteps;"
            f" {', '.join(map(str, ANY_SCHEDULES_STEPS))} do on every model"
        )
    if cfg.tau is None and cfg.adapter is None:
        yield "tau=null: only with adapter=FOLDER, which has a window of its own"
    for name in ("tau", "tau_high", *SAMPLING_WINDOW):
        value = getattr(cfg, name)
        if isinstance(value, int | float) and 0 < value <= 1:
            meant = f"{name}={1000 * value:g}"
            yield f"{name}={value:g}: no share, but a timestep from 0 to 1000 ({meant} is meant?)"


def _frame_problems(cfg: JobConfig) -> Iterator[str]:
    model = cfg.model
    legal = model.frame_range or [model.frames] * 2
    if len(legal) != 2 or not 1 <= legal[0] <= legal[1]:
        yield f"model.frame_range={legal}: the fewest and the most frames, as in [8,32], or null"
    elif model.frame_step < 1:
        yield f"model.frame_step={model.frame_step}: a whole number from 1"
    elif cfg.frames not in range(legal[0], legal[1] + 1, model.frame_step):
        said = f"{legal[0]} to {legal[1]}" if model.frame_range else f"exactly {model.frames}"
        steps = "" if model.frame_step == 1 else f", {legal[0]} and a multiple of {model.frame_step}"
        yield f"frames={cfg.frames}: {model.name} makes videos of {said} frames{steps}"


def _choice_problems(cfg: JobConfig) -> Iterator[str]:
    unknown = [name for name in cfg.projections if name not in PROJECTIONS]
    if unknown or not cfg.projections or len(set(cfg.projections)) < len(cfg.projections):
        yield f"projections=[{','.join(cfg.projections)}]: one or more of q, k, v, o, each once"
    for name, options in CHOICES.items():
        if getattr(cfg, name) not in options:
            yield f"{name}={getattr(cfg, name)}: one of {', '.join(filter(None, options))}"
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", cfg.device):
        yield f"device={cfg.device}: auto, cpu, cuda, cuda:N or mps"
    for name in ("edits", "metrics", "edit_kinds"):
        if getattr(cfg, name) == []:
            yield f"{name}=[]: name at least one, or null for all that there are"
    unknown = [name for name in cfg.metrics or [] if name not in METRICS]
    if unknown:
        yield f"metrics=[{','.join(unknown)}]: some of {', '.join(METRICS)}"
    if "motion_diversity" in (cfg.metrics or []) and cfg.seeds < 2:
        yield "metrics=[motion_diversity]: it compares the samples of an edit, so it needs seeds=2 or more"
    names = cfg.references if isinstance(cfg.references, list) else [cfg.references]
    counted = cfg.references is None or (type(cfg.references) is int and cfg.references >= 1)
    if not counted and not (names and all(isinstance(name, str) and name for name in names)):
        yield f"references={cfg.references}: a number from 1, a name, or a list of names"


def _boundary_problems(model: ModelConfig) -> Iterator[str]:
    if model.boundary is not None and not re.fullmatch("[0-9a-f]{12}", model.boundary_weights or ""):
        yield (
            f"model.boundary_weights={model.boundary_weights}: beside model.boundary, the first 12"
            " hexadecimal digits of weights_hash in the rows that it was found in, in quotes"
        )


def _clip_problems(cfg: JobConfig) -> Iterator[str]:
    if cfg.video is None:
        for name, default in (("caption", None), ("start", 0.0), ("fps", None), ("stride", None)):
            if getattr(cfg, name) != default:
                yield f"{name}= describes a clip of your own and needs video=FILE"
        return
    if not Path(cfg.video).expanduser().exists():
        yield f"video={cfg.video}: there is no such file or folder"
    if cfg.caption is None:
        yield 'video= needs caption="what it shows"'
    if cfg.edits is None:
        yield "video= needs edits='[\"what to show instead\"]'"
    if cfg.fps is not None and cfg.stride is not None:
        yield "fps= and stride= both say which frames to take from the clip: give one"


def _file_problems(cfg: JobConfig) -> Iterator[str]:
    folder = model_folder(cfg.model)
    if folder is not None and not (folder / "model_index.json").is_file():
        yield f"model.path={cfg.model.path}: {folder} has no model_index.json, so it is no pipeline's folder"
    if cfg.adapter is not None and cfg.probe is not None:
        yield f"adapter={cfg.adapter}: a probe measures the backbone as it is; leave out adapter= or probe="
    elif cfg.adapter is not None and not adapter_file(cfg.adapter).is_file():
        yield (
            f"adapter={cfg.adapter}: no adapter.safetensors there; name a finished cell's adapter/ folder,"
            " or a .safetensors file of another trainer"
        )
    problem = _unwritable(Path(cfg.output))
    if cfg.output.startswith("~"):
        yield f"output={cfg.output}: the shell has left the ~; write the folder's name in full"
    elif problem:
        yield f"output={cfg.output}: {problem}; name a folder that can be written"


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written below `folder`: tried in the nearest parent that exists, without a trace."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with TemporaryFile(dir=existing):
            return None
    except OSError as error:
        return f"cannot write in {existing} ({error.strerror})"


def _caption_problems(cfg: JobConfig) -> Iterator[str]:
    captions = [] if cfg.caption is None else [("caption", cfg.caption)]
    captions += [("edits", caption) for caption in cfg.edits or []]
    for key, caption in captions:
        if not caption.strip():
            yield f"{key}: a caption is empty; say in words what the video shows"
    captions += [("negative_prompt", cfg.negative_prompt)]
    model = cfg.model
    closed = model.closed_vocabulary and tokenizer_file(model).is_file()
    known = vocabulary(model) if closed else None
    for key, caption in captions:
        # The backbones write captions in small letters themselves, where they know no others.
        words = caption.lower().split()
        unknown = [] if known is None else sorted({word for word in words if word not in known})
        if unknown:
            shown = ", ".join(map(repr, unknown[:8])) + ", ..." * (len(unknown) > 8)
            yield (
                f"{key}: {model.name} does not know {shown} in {_short(caption)!r};"
                " use the words of `python run.py list words`, or a model of real videos (model=latte)"
            )
        # Every word is a token at least, so this is never wrong; the backbone counts the tokens themselves.
        elif len(words) > model.max_caption_tokens:
            yield (
                f"{key}: {_short(caption)!r} has {len(words)} words; {model.name}'s text encoder takes"
                f" {model.max_caption_tokens} tokens at most"
            )


def _short(caption: str) -> str:
    return caption if len(caption) <= 60 else caption[:57] + "..."


def vocabulary(model: ModelConfig) -> list[str]:
    """The words that a model with a closed vocabulary knows, sorted. Raises InputError where it has none."""
    from tokenizers import Tokenizer

    path = tokenizer_file(model)
    if not model.closed_vocabulary:
        raise InputError(f"model={model.name} takes any words: it has no list of its own")
    if not path.is_file():
        raise InputError(f"model={model.name}: {path} is missing")
    named = json.loads(path.with_name("tokenizer_config.json").read_text()).get(CLOSED_VOCABULARY)
    if named is not None:
        return sorted(named)
    tokenizer = Tokenizer.from_file(str(path))
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    words = {token.removeprefix("▁") for token in tokenizer.get_vocab() if token not in special}
    return sorted(words - {""})


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
