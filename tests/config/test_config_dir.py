"""`--config-dir`: options of the user's own, and what a file from elsewhere must not reach."""

from pathlib import Path

import pytest

from motionexp.config.compose import load
from motionexp.errors import InputError

MODEL = """# mine
defaults: [/model/family/latte@_here_, /model/family/bundled@_here_, _self_]
name: mine
path: bundled:tiny_latte
default_tau: 650
"""


def write(folder: Path, name: str, text: str) -> list[str]:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return [f"--config-dir={folder}"]


def test_an_option_of_ones_own_is_chosen_by_its_name(tmp_path):
    cfg = load([*write(tmp_path / "own, 2", "model/mine.yaml", MODEL), "model=mine", f"output={tmp_path}"])
    assert (cfg.model.name, cfg.tau) == ("mine", 650)
    with pytest.raises(InputError, match=r"model=mine: one of animatediff.*--config-dir=DIR"):
        load(["model=mine"])


def test_a_wrong_setting_in_an_option_of_ones_own_is_named(base, tmp_path):
    text = "_target_: motionexp.methods.lora.LoRA\nrnak: 4\n"
    with pytest.raises(InputError, match=r"method\.rnak: .*method\.rank\?"):
        load([*base, *write(tmp_path / "own", "method/typo.yaml", text), "method=typo"])


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        (
            "model/x.yaml",
            "# @package _global_\nhydra: {callbacks: {x: {_target_: os.system}}}",
            "hydra: only",
        ),
        ("model/x.yaml", '# @package _global_\n"hy\\x64ra": 1', "hydra: only"),
        ("model/x.yaml", "# @package hydra.callbacks\nx: {_target_: os.system}", "@package hydra.callbacks"),
        ("data/x.yaml", "path: ${oc.env:HOME}", "${oc.env:HOME}"),
        ("data/x.yaml", "plugins: [os]", "plugins: only"),
        ("data/x.yaml", "defaults: [{override /hydra/launcher: x}]", "defaults: "),
        ("data/x.yaml", "defaults: ['../../x']", "defaults: "),
        ("data/x.yaml", "defaults: [/other/x]", "defaults: "),
        ("data/x.yaml", "defaults: [x@hydra.callbacks]", "defaults: "),
        ("data/x.yaml", "a: !!python/name:os.system x", "the tag"),
        ("data/x.yaml", "- a", "no setting"),
        ("model/latte.yaml", MODEL, "this program has model/latte already"),
        ("other/x.yaml", "a: 1", "none of model/, method/, data/, scoring/"),
    ],
)
def test_a_file_from_elsewhere_sets_settings_alone(name, text, named, tmp_path):
    with pytest.raises(InputError) as caught:
        load(write(tmp_path / "own", name, text))
    assert named in str(caught.value)
