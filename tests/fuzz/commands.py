"""Cases of the command line: overrides, settings of scores, folders of settings and of a model."""

import io
import json
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from motionexp.cli import main
from motionexp.config.config_dir import search_path
from motionexp.errors import InputError
from tests.fuzz.damage import Damage
from tests.fuzz.texts import as_yaml, frames
from tests.support.stub_jobs import Jobs

WORDS = (
    *("tau=700", "steps=2", "train_steps=2", "rank=2", "seeds=1", "references=1", "frames=16", "device=cpu"),
    *("model=tiny_latte", "method=lora", "data=shapes", "metrics=[text_alignment]", "edit_kinds=[style]"),
    *("projections=[v,o]", "precision=fp32", "guidance_scale=3", "learning_rate=1e-3", "alpha=2"),
    *("method.rank=2", "data.split=motion-dominant", "adapter_scale=0.5", "keep_steps=[1]", "model.steps=5"),
    *("negative_prompt=red", "text_precision=auto", "offload=null", "scoring.clip=null", "batch_size=1"),
    *("sampling_tau=700", "probe=null"),
)  # fmt: skip
CLIP = ("video=a", "caption=a dog", 'edits=["a cat"]', "start=0", "model=latte")
SCORE = ("folder=a", "system=mine", "data=folder", "data.path=a", "frames=4", "metrics=[text_alignment]")
STUBBED = ("run", "dry_run", "probe_job", "external")


def _shut(arguments: list[str]) -> None:
    """Run the command with stand-ins for all that follows the settings; anything but 0 and 2 is an error."""
    stub, shown = Jobs(), io.StringIO()
    names = {f"motionexp.jobs.{name}": sys.modules.get(f"motionexp.jobs.{name}") for name in STUBBED}
    sys.modules.update(dict.fromkeys(names, stub))
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(shown):
            code = main(arguments)
    finally:
        for name, module in names.items():
            if module is None:
                sys.modules.pop(name)
            else:
                sys.modules[name] = module
    text = shown.getvalue()
    if code not in (0, 2) or "Traceback" in text or (code and "error: " not in text):
        raise AssertionError(f"exit code {code}: {text[-2000:]}")
    if code:
        raise InputError(text)


def _words(damage: Damage, words: tuple[str, ...], folder: Path) -> list[str]:
    """Some of the words, some of them damaged."""
    chosen = damage.random.sample(words, damage.random.randrange(1, min(6, len(words)) + 1))
    for _ in range(0 if damage.is_off else damage.random.choice((1, 1, 2, 3))):
        place = damage.random.randrange(len(chosen))
        key, _, value = chosen[place].partition("=")
        sign = damage.random.choice(("", "", "", "", "+", "~", "++"))
        match damage.random.randrange(8):
            case 0 | 1 | 2 | 3:
                value = damage.random.choice((damage.text(value), _plain(damage)))
            case 4:
                key = damage.random.choice(
                    (damage.text(key), f"{key}.a", "model._target_", "method._target_")
                )
            case 5:
                value = f"{value},{damage.text(value)}"
            case 6:
                value = f"[{value},{_plain(damage)}]"
            case 7:
                value = f"${{{damage.random.choice(words).partition('=')[0]}}}"
        # The system limits the length of what is typed, and an error repeats it.
        chosen[place] = f"{sign}{key[:300]}={value if value.isdigit() else value[:600]}"
    # These would name another folder to write to, or allow the code of a package.
    chosen = [word for word in chosen if not re.match(r"\W*(output|plugins|hydra)\b", word)]
    return [*chosen, f"output={folder / 'out'}"]


def _plain(damage: Damage) -> str:
    value = damage.value()
    with suppress(TypeError, ValueError):
        return json.dumps(value) if isinstance(value, dict | list) else str(value)
    return "9" * 500


def overrides(damage: Damage, folder: Path) -> None:
    frames(folder / "a")
    flags = ["-m"] if damage.random.random() < 0.3 else []
    words = CLIP if damage.maybe(0.3) else WORDS
    if damage.is_off:
        words, flags = WORDS[:5], []
    _shut([*flags, *_words(damage, words, folder)])


def score_settings(damage: Damage, folder: Path) -> None:
    frames(folder / "a")
    words = [*SCORE, f"output={folder / 'out'}"] if damage.is_off else _words(damage, SCORE, folder)
    _shut(["score", *words])


MODEL = {
    "defaults": ["tiny_latte"],
    "name": "mine",
    "path": "bundled:tiny_latte",
    "steps": 4,
    "frame_range": [8, 32],
    "boundary": None,
    "guidance_scale": "${model.steps}",
}


def config_dir(damage: Damage, folder: Path) -> None:
    path = folder / "mine" / "model" / "mine.yaml"
    path.parent.mkdir(parents=True)
    head = f"# @package {damage.text('_group_')}\n" if damage.maybe(0.1) else ""
    path.write_bytes(damage.encoded(head + as_yaml(damage, damage.tree(MODEL))))
    search_path(str(folder / "mine"))
    _shut([f"--config-dir={folder / 'mine'}", "model=mine", f"output={folder / 'out'}"])


CONFIGS: dict[str, Any] = {
    "model_index.json": {"_class_name": "LattePipeline"},
    "scheduler/scheduler_config.json": {"beta_schedule": "linear", "num_train_timesteps": 1000},
    "transformer/config.json": {"patch_size": 2, "sample_size": 8},
    "vae/config.json": {"_class_name": "AutoencoderKL", "block_out_channels": [8, 8, 8, 8]},
    "tokenizer/tokenizer_config.json": {"unk_token": "<unk>"},
}


def model_settings(damage: Damage, folder: Path) -> None:
    """What is read of a model's folder while settings are checked."""
    bundled = Path(__file__).parents[2] / "motionexp" / "bundled" / "tiny_latte"
    contents = dict(CONFIGS) | {"tokenizer/tokenizer.json": None}
    damaged = damage.random.choice(list(contents))
    for name, content in contents.items():
        file = folder / "model" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            whole = (bundled / name).read_bytes()
            file.write_bytes(damage.bytes(whole) if name == damaged else whole)
        elif name == damaged:
            file.write_bytes(damage.encoded(damage.dumped(damage.tree(content))))
        else:
            file.write_text(json.dumps(content))
    _shut([f"model.path={folder / 'model'}", "model.height=64", "tau=300", f"output={folder / 'out'}"])


KINDS: dict[str, tuple[Callable[[Damage, Path], None], int]] = {
    "overrides": (overrides, 400),
    "score_settings": (score_settings, 300),
    "config_dir": (config_dir, 200),
    "model_settings": (model_settings, 150),
}
"""{kind: (a case of it, how many of the whole run's cases)}."""
