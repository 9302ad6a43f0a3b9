"""What the README of an export says of the sampling that no file carries."""

import re
from pathlib import Path
from typing import Any

import pytest

from motionexp.backbones import load_backbone
from motionexp.backbones.stock_pipelines import callback_lines
from motionexp.cli import main
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.jobs.card_text import hub_ids
from motionexp.methods.adapters import save_adapter
from motionexp.methods.lora import LoRA
from motionexp.methods.motion_director import MotionDirector


def save(folder: Path, backbone: Backbone, kind: type[LoRA]) -> Path:
    """An adapter of a method."""
    method = kind(backbone, Window(700), rank=2)
    adapter = save_adapter(folder, backbone, method)
    method.remove()
    return adapter


def test_no_tool_gets_an_adapter_of_a_model_that_it_cannot_decode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = save(tmp_path / "adapter", load_backbone("bundled:tiny_wan"), LoRA)
    words = ["export", f"adapter={adapter}", f"folder={tmp_path / 'new'}"]
    for form in ("comfyui", "kohya"):
        assert main([*words, f"format={form}"]) == 2
        assert re.search(rf"format={form}: .*VAE.*; diffusers or peft", capsys.readouterr().err)
    assert main([*words, "format=diffusers"]) == 0
    readme = (tmp_path / "new" / "README.md").read_text()
    assert "    num_inference_steps=25,\n" in readme
    assert "flow_shift=3" in readme


def test_a_method_that_starts_from_inverted_noise_is_said_to(tmp_path: Path) -> None:
    backbone = load_backbone("bundled:tiny_latte")
    words = ["export", "format=peft", f"adapter={save(tmp_path / 'a', backbone, MotionDirector)}"]
    assert main([*words, f"folder={tmp_path / 'new'}"]) == 0
    assert "`inverted_noise=0.5`" in (tmp_path / "new" / "README.md").read_text()


def test_the_base_model_is_named_by_its_repositories_alone(tmp_path: Path) -> None:
    """No path of the user's machine is in what is published; AnimateDiff's weights are of two."""
    backbone = load_backbone("bundled:tiny_latte")
    words = ["export", "format=peft", f"adapter={save(tmp_path / 'a', backbone, LoRA)}"]
    assert main([*words, f"folder={tmp_path / 'new'}"]) == 0
    readme = (tmp_path / "new" / "README.md").read_text()
    assert "base_model" not in readme
    assert "bundled:" not in readme


def test_only_repositories_of_the_hub_are_a_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ["emilianJR/epiCRealism", "guoyww/animatediff"]
    assert hub_ids("+".join(pair)) == pair
    (tmp_path / "weights" / "wan").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    folders = (f"{tmp_path}/wan", "~/wan", "weights/wan", "my/weights/wan", f"{pair[0]}+{tmp_path}/motion")
    assert [hub_ids(folder) for folder in folders] == [[]] * len(folders)


def test_a_file_that_motionexp_has_not_saved_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = load_backbone("bundled:tiny_latte")
    words = ["export", "format=peft", f"folder={tmp_path / 'new'}"]
    assert main([*words, f"adapter={save(tmp_path / 'a', backbone, LoRA)}"]) == 0
    words = ["export", "format=peft", f"folder={tmp_path / 'again'}", f"adapter={tmp_path / 'new'}"]
    assert main(words) == 2
    assert "not saved by motionexp" in capsys.readouterr().err


def test_a_pipeline_with_the_older_callback_keeps_the_window() -> None:
    class Pipeline:
        """Of Show-1's repository: `callback` gets the step, t and the latents."""

        def __call__(self, callback: Any, callback_steps: int = 1) -> None:
            callback(0, 901, "latents")

    calls: list[Any] = []

    class motionexp:
        @staticmethod
        def window_callback(adapter: str, pipeline: Any) -> Any:
            return lambda *arguments: calls.append((adapter, *arguments))

    lines, argument = callback_lines("TextToVideoIFPipeline", '"FOLDER"', "pipeline")
    names: dict[str, Any] = {"motionexp": motionexp, "pipeline": Pipeline()}
    exec("\n".join([*lines, f"pipeline({argument})"]), names)
    assert calls == [("FOLDER", names["pipeline"], 0, 901, {})]
