"""What can be wrong with a job's settings, as far as it shows without torch."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from motionexp.config import schema
from motionexp.config.adapter_files import adapter_files
from motionexp.config.command_line import choice_hint
from motionexp.config.images import image_problems, takes_image
from motionexp.config.job_settings import loggers
from motionexp.config.json_file import read_json, read_object
from motionexp.config.memory import memory_problems
from motionexp.config.metrics import metric_problems, set_metrics
from motionexp.config.ranks import OF_GPUS, trainer_problems
from motionexp.config.sampling import sampling_problems
from motionexp.config.schema import JobConfig, ModelConfig, method_name
from motionexp.config.scoring import scoring_problems
from motionexp.config.settings import LARGEST, setting_problems
from motionexp.config.targets import PACKAGE, check_allowed, class_value
from motionexp.errors import InputError, one_of
from motionexp.files import existing_part, user_path

MOST_TRAINING_SEEDS = 1_000


def check(cfg: JobConfig) -> list[str]:
    """All that is wrong with the settings, as far as it shows without torch; one sentence a problem."""
    return [*setting_problems(cfg), *setting_problems(cfg.model, "model."), *_step_problems(cfg),
            *window_problems(cfg), *sampling_problems(cfg), *_frame_problems(cfg), *_list_problems(cfg),
            *_repeated_items(cfg),
            *_training_seed_problems(cfg), *_logger_problems(cfg),
            *_boundary_problems(cfg.model), *_clip_problems(cfg), *image_problems(cfg), *_file_problems(cfg),
            *_caption_problems(cfg), *_linear_probe_problems(cfg), *memory_problems(cfg),
            *scoring_problems(cfg.scoring), *trainer_problems(cfg), *_class_problems(cfg)]  # fmt: skip


def _step_problems(cfg: JobConfig) -> Iterator[str]:
    if not all(1 <= step < cfg.train_steps for step in cfg.keep_steps):
        yield f"keep_steps={cfg.keep_steps}: whole numbers from 1, below train_steps={cfg.train_steps}"
    first_phase = cfg.method.get("absorber_steps")  # of methods that have two phases
    fewest = min([*cfg.keep_steps, cfg.train_steps])
    if isinstance(first_phase, int) and not 0 <= first_phase < fewest and schema.trains(cfg):
        yield (
            f"method.absorber_steps={first_phase}: from 0, and below train_steps and keep_steps, here"
            f" {fewest}: the steps that are left train the adapter"
        )
    if cfg.tau is None and cfg.adapter is None:
        yield "tau=null: only with adapter=FOLDER, whose file has a window"


def _frame_problems(cfg: JobConfig) -> Iterator[str]:
    model = cfg.model
    # Without a range, the number of frames that the model was trained on.
    legal = model.frame_range or [model.frames] * 2
    # OmegaConf lets a list pass for a whole number within a list.
    if len(legal) != 2 or {*map(type, legal)} != {int} or not 1 <= legal[0] <= legal[1]:
        yield f"model.frame_range={legal}: the fewest and the most frames, as in [8,32], or null"
    elif model.frame_step > 0 and cfg.frames not in range(legal[0], legal[1] + 1, model.frame_step):
        numbers = f"{legal[0]} to {legal[1]}" if model.frame_range else f"exactly {model.frames}"
        steps = "" if model.frame_step == 1 else f", {legal[0]} plus a multiple of {model.frame_step}"
        yield f"frames={cfg.frames}: {model.name} makes videos of {numbers} frames{steps}"


def _class_problems(cfg: JobConfig) -> Iterator[str]:
    """What does not suit the model's class, or the configuration of its weights where they are local."""
    model = cfg.model
    path = model._target_.rpartition(".")[0]
    try:
        attentions, any_size = (class_value(path, name, cfg.plugins) for name in ("attentions", "any_size"))
    except InputError:
        return  # which is a problem of its own
    if attentions and cfg.attention not in (*attentions, "all"):
        choices = one_of(cfg.attention, (*attentions, "all"))
        yield (
            f"attention={cfg.attention}: {model.name} has no such attention apart from its motion"
            f" attention; {choices}"
        )
    if attentions and schema.trains(cfg):
        yield from missing_attention(method_name(cfg.method), _needs(cfg), model.name, attentions)
    shown = f"model.height={model.height}, model.width={model.width}: {model.name}"
    multiple, trained = _sizes(model)
    if any_size and multiple is not None and (model.height % multiple or model.width % multiple):
        yield f"{shown} needs multiples of {multiple} pixels"
    elif not any_size and trained is not None and trained != (model.height, model.width):
        yield f"{shown} makes videos of {trained[0]} x {trained[1]} pixels alone (height, width)"


def _needs(cfg: JobConfig) -> Sequence[str]:
    """The kinds of attention that the method needs."""
    try:
        return class_value(str(cfg.method["_target_"]), "needs", cfg.plugins) or ()
    except InputError:
        return ()  # there is no such class, or its package may not run: a problem of its own


def missing_attention(
    method: str, needs: Sequence[str], model: str, attentions: Sequence[str]
) -> Iterator[str]:
    """What is wrong if a model lacks a kind of attention that a method needs."""
    if lacking := [kind for kind in needs if kind not in attentions]:
        yield (
            f"method={method}: {model} has no {lacking[0]} attention apart from its motion attention, and the"
            " method needs it; take a model with attention within frames and along time (latte, modelscope),"
            " or another method"
        )


def _sizes(model: ModelConfig) -> tuple[int | None, tuple[int, int] | None]:
    """What sides are multiples of, and the height and width of the training videos; None: unknown.

    Only of local weights whose VAE is diffusers' AutoencoderKL.
    """
    folder = schema.model_folder(model)
    if folder is None:
        return None, None
    network, vae = (
        next((_json(folder / part / "config.json") for part in parts if (folder / part).is_dir()), {})
        for parts in (("transformer", "unet"), ("vae",))
    )
    blocks, patch, side = (
        vae.get("block_out_channels"),
        network.get("patch_size", 1),
        network.get("sample_size"),
    )
    if vae.get("_class_name") != "AutoencoderKL" or not isinstance(blocks, list) or not 0 < len(blocks) < 20:
        return None, None
    if type(patch) is not int or patch < 1:
        return None, None
    scale = 2 ** (len(blocks) - 1)
    return scale * patch, (side * scale, side * scale) if type(side) is int else None


def _json(file: Path) -> dict[str, Any]:
    """The settings in a file; none where it is missing or broken, which the loading of weights reports."""
    try:
        content = read_json(file)
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}


def check_device(device: str) -> None:
    """Raises InputError for a kind of GPU that this machine certainly lacks; torch knows the rest."""
    kind = device.partition(":")[0]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    linux_without = sys.platform == "linux" and not any(Path("/dev", name).exists() for name in OF_GPUS)
    if kind == "cuda" and (hidden or linux_without or sys.platform == "darwin"):
        why = "CUDA_VISIBLE_DEVICES hides its GPUs" if hidden else "it has no GPU for CUDA"
        raise InputError(f"device={device}: not on this machine, {why}; take auto or cpu")
    if kind == "mps" and sys.platform != "darwin":
        raise InputError(f"device={device}: only Apple's machines have it; take auto, cpu or cuda")


def _repeated_items(cfg: JobConfig) -> Iterator[str]:
    for name in ("references", "edits", "edit_kinds", "metrics", "keep_steps", "training_seeds", "logger"):
        items = getattr(cfg, name)
        if isinstance(items, list) and (twice := [item for item in items if items.count(item) > 1]):
            yield f"{name}: {twice[0]} stands in it twice; name each once"


def _list_problems(cfg: JobConfig) -> Iterator[str]:
    chosen = {"projections": cfg.projections}
    if isinstance(projections := cfg.method.get("projections"), list) and projections != cfg.projections:
        chosen["method.projections"] = projections
    for name, letters in chosen.items():
        letters = [*map(str, letters)]
        if not letters or not set(letters) <= set(schema.PROJECTIONS) or len(set(letters)) < len(letters):
            yield f"{name}=[{','.join(letters)}]: one or more of q, k, v, o, each once"
    try:
        for name in (name for name in cfg.metrics or [] if "." in name):
            check_allowed(name, cfg.plugins, "metrics")
        yield from metric_problems(cfg.metrics)
    except InputError as error:
        yield str(error)
    else:
        if (of_sets := set_metrics(cfg.metrics)) and cfg.seeds < 2:
            yield f"metrics=[{','.join(of_sets)}]: compares the samples of an edit: it needs seeds=2 or more"
    references = cfg.references if isinstance(cfg.references, list) else [cfg.references]
    is_count = cfg.references is None or (type(cfg.references) is int and cfg.references >= 1)
    if cfg.train_together > 1 and (method_name(cfg.method) != "lora" or cfg.preview_every):
        yield f"train_together={cfg.train_together}: needs method=lora and preview_every=0"
    if not is_count and not (references and all(isinstance(name, str) and name for name in references)):
        yield f"references={cfg.references}: a number from 1, all, a name, or a list of names"


def _logger_problems(cfg: JobConfig) -> Iterator[str]:
    names = loggers(cfg.logger)
    if wrong := [name for name in names or ["[]"] if name not in schema.LOGGERS]:
        yield f"logger={cfg.logger}: {one_of(wrong[0], schema.LOGGERS)}, or a list of them"


def _training_seed_problems(cfg: JobConfig) -> Iterator[str]:
    seeds = cfg.training_seeds
    is_count = type(seeds) is int and 1 <= seeds <= MOST_TRAINING_SEEDS
    numbers = seeds if isinstance(seeds, list) else []
    if not is_count and not (numbers and all(type(number) is int and number >= 0 for number in numbers)):
        yield f"training_seeds={seeds}: a number from 1 to {MOST_TRAINING_SEEDS}, or a list of seeds from 0"
    elif cfg.seed <= LARGEST[int] < max(numbers or [cfg.seed + seeds - 1]):
        yield f"training_seeds={seeds}: a seed above {LARGEST[int]}"


def _boundary_problems(model: ModelConfig) -> Iterator[str]:
    if model.boundary is not None and not re.fullmatch("[0-9a-f]{12}", model.boundary_weights or ""):
        shown = f"model.boundary_weights={model.boundary_weights}"
        yield f"{shown}: with model.boundary, 12 digits of weights_hash in its probes' rows, in quotes"


def _clip_problems(cfg: JobConfig) -> Iterator[str]:
    if cfg.video is None:
        for name, default in (("caption", None), ("start", 0.0), ("fps", None), ("stride", None)):
            if getattr(cfg, name) != default:
                yield f"{name}={getattr(cfg, name)}: describes your own clip and needs video=FILE"
        if "path" in cfg.data and "edits" in cfg.data and cfg.data["path"] is None:
            yield "data=clip: it is the clip of video=FILE; give video= too"
        return
    if cfg.video not in cfg.data.values():
        yield f"video={cfg.video}: data= is no clip and does not read it; leave out data= or video="
    if not os.path.exists(user_path(cfg.video)):
        yield f"video={cfg.video}: there is no such file or folder{choice_hint('video', cfg.video)}"
    if cfg.caption is None:
        yield 'video= needs caption="what it shows"'
    if cfg.edits is None:
        yield "video= needs edits='[\"what to show instead\"]'"
    if cfg.fps is not None and cfg.stride is not None:
        yield "fps= and stride= both choose the frames of the clip: give one"


def _file_problems(cfg: JobConfig) -> Iterator[str]:
    folder = schema.model_folder(cfg.model)
    if folder is not None and not os.path.isfile(folder / "model_index.json"):
        yield f"model.path={cfg.model.path}: {folder} has no model_index.json, so it is no pipeline's folder"
    if cfg.adapter is not None and cfg.probe is not None:
        yield f"adapter={cfg.adapter}: a probe measures the base model; leave out adapter= or probe="
    elif cfg.adapter is not None:
        try:
            adapter_files(cfg.adapter)
        except InputError as error:
            yield str(error)
    if cfg.output.startswith("~"):
        yield f"output={cfg.output}: the shell has not replaced the ~; write the folder's full name"
    elif problem := unwritable(Path(cfg.output)):
        yield f"output={cfg.output}: {problem}; name a folder that can be written"


def _linear_probe_problems(cfg: JobConfig) -> Iterator[str]:
    """The linear probe draws videos of the bundled world itself, so that other videos would be ignored."""
    if cfg.probe != "linear_probe":
        return
    if takes_image(cfg.model, cfg.plugins):
        yield (
            f"probe=linear_probe: model={cfg.model.name} makes videos that begin with a picture; take"
            " probe=inversion or probe=tampering, whose references have their own first frame"
        )
    if not str(cfg.data["_target_"]).startswith(f"{PACKAGE}.data.shapes."):
        yield "probe=linear_probe: it draws videos of the bundled world; leave out data= and video="
    if ignored := [name for name in ("edits", "edit_kinds") if getattr(cfg, name) is not None]:
        yield f"{ignored[0]}=: probe=linear_probe draws its videos itself and edits none; leave it out"
    count, fewest = cfg.references, schema.FEWEST_GROUPS
    if count is not None and not (type(count) is int and count >= fewest):
        yield f"references={count}: of probe=linear_probe the number of groups of videos, from {fewest}"


def unwritable(folder: Path) -> str | None:
    """Why nothing can be written below `folder`: tried in the nearest parent that exists, without a trace."""
    existing = folder
    try:
        str(folder).encode()  # the settings, which a run stores, are text
        existing = existing_part(folder)
        with TemporaryFile(dir=existing):
            return None
    except (OSError, ValueError) as error:
        return f"cannot write in {existing} ({getattr(error, 'strerror', error)})"


def _caption_problems(cfg: JobConfig) -> Iterator[str]:
    model = cfg.model
    captions = [] if cfg.caption is None else [("caption", cfg.caption)]
    captions += [("edits", caption) for caption in cfg.edits or []]
    closed = model.closed_vocabulary and schema.tokenizer_file(model).is_file()
    words_of_model = vocabulary(model) if closed else None
    for key, caption in [*captions, ("negative_prompt", cfg.negative_prompt)]:
        # Backbones with a closed vocabulary convert captions to lower case.
        # A word is what spaces separate: punctuation belongs to it.
        words = caption.lower().split()
        short = caption if len(caption) <= 60 else caption[:57] + "..."
        unknown = [] if words_of_model is None else sorted({*words} - {*words_of_model})
        if not words and key != "negative_prompt":
            yield f"{key}: a caption is empty; say in words what the video shows"
        elif unknown:
            shown = ", ".join(map(repr, unknown[:8])) + ", ..." * (len(unknown) > 8)
            hint = "see `python run.py list words`, or take a model of real videos (model=latte)"
            yield f"{key}: {model.name} does not know {shown} in {short!r}; {hint}"
        # Every word is a token at least, so this is never wrong; the backbone counts the tokens themselves.
        elif len(words) > model.max_caption_tokens:
            most = f"{model.name}'s text encoder takes {model.max_caption_tokens} tokens at most"
            yield f"{key}: {short!r} has {len(words)} words; {most}"


def vocabulary(model: ModelConfig) -> list[str]:
    """The words that a model with a closed vocabulary knows, sorted. Raises InputError where it has none."""
    path = schema.tokenizer_file(model)
    if not model.closed_vocabulary:
        raise InputError(f"model={model.name} takes any words: there is no list of its words")
    if not path.is_file():
        raise InputError(f"model={model.name}: {path} is missing")
    settings_file = path.with_name("tokenizer_config.json")
    named = read_object(settings_file).get(schema.CLOSED_VOCABULARY)
    if isinstance(named, list) and all(isinstance(word, str) for word in named):
        return sorted(named)
    if named is not None:
        raise InputError(f"{settings_file}: {schema.CLOSED_VOCABULARY} must be a list of words")
    content = read_object(path)
    pieces, added = content.get("model"), content.get("added_tokens") or []
    pieces = pieces.get("vocab") if isinstance(pieces, dict) else None
    try:
        # A Unigram's vocabulary is a list of [piece, logarithm of its probability].
        tokens = [piece if isinstance(pieces, dict) else piece[0] for piece in pieces or ()]
        special = {token["content"] for token in added}
        words = {token.removeprefix("▁") for token in tokens if token not in special}
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the file of a tokenizer ({error!r:.200})") from error
    return sorted(words - {""})


SAMPLING_WINDOW = ("sampling_tau", "sampling_tau_high")


def window_problems(cfg: JobConfig) -> Iterator[str]:
    """What is wrong with the window as a whole, one sentence a problem; `check` looks at single settings."""
    separate = [name for name in (*SAMPLING_WINDOW, "soft_window") if getattr(cfg, name) is not None]
    if cfg.soft_window is not None and cfg.adapter is not None:
        yield "soft_window= goes with training; with adapter=, sampling_tau= and sampling_tau_high= do"
    elif separate and cfg.tau == 1000:
        yield f"{separate[0]}= goes with training; at tau=1000 nothing is trained"
    elif separate and cfg.tau is None:  # the window is in the adapter's file
        yield from _empty_windows(cfg, 0)
    elif isinstance(cfg.tau, float):
        yield from _empty_windows(cfg, cfg.tau)
        if cfg.soft_window is not None and not _is_soft(cfg.soft_window, cfg.tau, cfg.tau_high):
            yield (
                f"soft_window={cfg.soft_window}: pairs [timestep,weight]: timesteps (0 to 1000, not shares)"
                f" ascend from tau={cfg.tau:g} to tau_high={cfg.tau_high:g} at most, weights are from 0 to 1"
                " and not all 0"
            )
        elif cfg.soft_window is not None and 0 < cfg.soft_window[-1][0] <= 1:
            yield f"soft_window={cfg.soft_window}: timesteps from 0 to 1000 are meant, and not shares"


def _empty_windows(cfg: JobConfig, tau: float) -> Iterator[str]:
    if cfg.tau_high < tau < 1000:
        yield f"tau_high={cfg.tau_high:g}: below tau={tau:g}, so that nothing is in the window"
    low = tau if cfg.sampling_tau is None else cfg.sampling_tau
    high = cfg.tau_high if cfg.sampling_tau_high is None else cfg.sampling_tau_high
    changed = [name for name in SAMPLING_WINDOW if getattr(cfg, name) is not None]
    if changed and high < low:
        shown = f"{changed[0]}={getattr(cfg, changed[0]):g}"
        yield f"{shown}: nothing is in the sampling window [{low:g}, {high:g}]"


def _is_soft(knots: Any, low: float, high: float) -> bool:
    pairs = isinstance(knots, list) and all(isinstance(knot, list) and len(knot) == 2 for knot in knots)
    if not (knots and pairs and all(isinstance(number, float) for knot in knots for number in knot)):
        return False
    # (K,) timesteps and (K,) weights.
    times, weights = zip(*knots, strict=True)
    ascending = all(before < after for before, after in pairwise(times))
    in_bounds = times[0] == low and times[-1] <= high and min(weights) >= 0 and 0 < max(weights) <= 1
    return bool(ascending and in_bounds)
