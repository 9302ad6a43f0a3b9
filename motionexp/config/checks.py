"""What can be wrong with a job's settings, as far as it shows without torch."""

import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Protocol

from motionexp.config.metrics import metric_problems, set_metrics
from motionexp.config.schema import (
    ANY_SCHEDULES_STEPS,
    CHOICES,
    CLOSED_VOCABULARY,
    PROJECTIONS,
    JobConfig,
    MemorySettings,
    ModelConfig,
    adapter_file,
    model_folder,
    tokenizer_file,
)
from motionexp.config.scoring import scoring_problems
from motionexp.errors import InputError


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
    problems = list(metric_problems(cfg.metrics, plugins=()))
    yield from problems
    if not problems and (of_sets := set_metrics(cfg.metrics)) and cfg.seeds < 2:
        yield f"metrics=[{','.join(of_sets)}]: compares the samples of an edit, so it needs seeds=2 or more"
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


MODES = ("fast", "low_memory")


TEXT_PRECISIONS = ("auto", "8bit", "4bit")


QUANTIZER = "bitsandbytes"


def mode_problems(cfg: MemorySettings) -> Iterator[str]:
    """What is wrong with these settings, one sentence a problem."""
    if cfg.mode not in MODES:
        yield f"mode={cfg.mode}: one of {', '.join(MODES)}"
    yield from text_precision_problems(cfg.text_precision)
    yield from offload_problems(cfg, cfg.device)


def text_precision_problems(text_precision: str) -> Iterator[str]:
    """What is wrong with `text_precision=`, the package that it needs included."""
    if text_precision not in TEXT_PRECISIONS:
        yield f"text_precision={text_precision}: one of {', '.join(TEXT_PRECISIONS)}"
    elif text_precision != "auto" and find_spec(QUANTIZER) is None:
        yield (
            f"text_precision={text_precision}: it needs the package {QUANTIZER}, which is not installed:"
            f" `pip install {QUANTIZER}`, or leave it at auto"
        )


def offload_problems(cfg: MemorySettings, device: str) -> Iterator[str]:
    """What is wrong with `offload=` on a device: of the settings, or of what `auto` has become."""
    if cfg.offload and not device.startswith(("cuda", "auto")):
        yield f"offload=true: device={device} has no memory of its own to spare; leave it out"


SAMPLING_WINDOW = ("sampling_tau", "sampling_tau_high")


class WindowSettings(Protocol):
    """The part of a job's settings that says when a method is trained and applied; see `JobConfig`."""

    tau: Any
    tau_high: float
    soft_window: Any
    sampling_tau: float | None
    sampling_tau_high: float | None
    adapter: str | None


def window_problems(cfg: WindowSettings) -> Iterator[str]:
    """One sentence for each thing that is wrong; whether tau is a timestep at all is looked at elsewhere."""
    apart = [name for name in (*SAMPLING_WINDOW, "soft_window") if getattr(cfg, name) is not None]
    if apart and cfg.adapter is not None:
        yield f"{apart[0]}= goes with training; with adapter=, tau= and tau_high= say where it acts"
    elif apart and cfg.tau == 1000:
        yield f"{apart[0]}= goes with training; at tau=1000 nothing is trained"
    elif isinstance(cfg.tau, float):
        yield from _empty_windows(cfg, cfg.tau)
        if cfg.soft_window is not None and not _is_soft(cfg.soft_window, cfg.tau, cfg.tau_high):
            yield (
                f"soft_window={cfg.soft_window}: pairs of timestep and weight, as in [[400,0],[1000,1]];"
                f" timesteps ascend from tau={cfg.tau:g} to tau_high={cfg.tau_high:g} at most, weights are"
                " from 0 to 1 and not all 0"
            )


def _empty_windows(cfg: WindowSettings, tau: float) -> Iterator[str]:
    if cfg.tau_high < tau < 1000:
        yield f"tau_high={cfg.tau_high:g}: below tau={tau:g}, so that nothing is in the window"
    given = [name for name in SAMPLING_WINDOW if getattr(cfg, name) is not None]
    low = tau if cfg.sampling_tau is None else cfg.sampling_tau
    high = cfg.tau_high if cfg.sampling_tau_high is None else cfg.sampling_tau_high
    if given and high < low:
        yield f"{given[0]}={getattr(cfg, given[0]):g}: nothing is in [{low:g}, {high:g}], where it is applied"


def _is_soft(knots: Any, low: float, high: float) -> bool:
    pairs = isinstance(knots, list) and all(isinstance(knot, list) and len(knot) == 2 for knot in knots)
    if not (knots and pairs and all(isinstance(number, float) for knot in knots for number in knot)):
        return False
    times, weights = zip(*knots, strict=True)
    ascending = all(before < after for before, after in pairwise(times))
    return bool(ascending and times[0] == low and times[-1] <= high and _are_weights(weights))


def _are_weights(weights: Sequence[float]) -> bool:
    return min(weights) >= 0 and 0 < max(weights) <= 1
