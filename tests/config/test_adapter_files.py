"""Which file `adapter=` names."""

from pathlib import Path

import pytest

from motionexp.config.adapter_files import FILE_NAMES, adapter_files, expert_of, names_noise, peft_config_file
from motionexp.errors import InputError


def written(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_folder_has_the_file_of_its_trainer(name: str, tmp_path: Path) -> None:
    files = adapter_files(str(written(tmp_path, name, "optimizer.pt", "other.safetensors")))
    assert files == (tmp_path / name,)


def test_a_file_has_any_name(tmp_path: Path) -> None:
    file = written(tmp_path, "v1.sft", *FILE_NAMES) / "v1.sft"
    assert adapter_files(file) == (file,)


@pytest.mark.parametrize(
    ("names", "named", "problem"),
    [
        ((), "", ", ".join(FILE_NAMES)),
        (("other.safetensors",), "", ", ".join(FILE_NAMES)),
        (FILE_NAMES[:2], "", f"{FILE_NAMES[0]} and {FILE_NAMES[1]}"),
        (("adapter_model.bin",), "", "adapter_model.bin is a pickle"),
        (("lora.pt",), "lora.pt", "lora.pt is a pickle"),
        ((), "missing", "no such file"),
        ((), "missing.safetensors", "no such file"),
    ],
)
def test_anything_else_is_an_error(names: tuple[str, ...], named: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^adapter={tmp_path / named}: .*{problem}"):
        adapter_files(written(tmp_path, *names) / named)


def test_a_folder_has_the_files_of_the_experts(tmp_path: Path) -> None:
    (low,) = adapter_files(written(tmp_path, "my-motion_low_noise.safetensors", "README.md"))
    assert low.name == "my-motion_low_noise.safetensors"
    high, low = adapter_files(written(tmp_path, "my-motion_high_noise.safetensors"))
    assert (high.name, low.name) == tuple(f"my-motion_{noise}_noise.safetensors" for noise in ("high", "low"))
    for folder in (tmp_path / "peft", tmp_path / "peft" / "low_noise"):
        folder.mkdir()
    (file,) = adapter_files(written(tmp_path / "peft" / "low_noise", "adapter_model.safetensors").parent)
    assert file.parent.name == "low_noise"
    with pytest.raises(InputError, match="no file named high or low"):
        adapter_files(written(tmp_path, "another_low.safetensors"))


def test_settings_belong_to_pefts_own_file_alone(tmp_path: Path) -> None:
    written(tmp_path, "adapter_config.json", "adapter_model.safetensors", "adapter.safetensors")
    assert peft_config_file(tmp_path / "adapter_model.safetensors") == tmp_path / "adapter_config.json"
    assert peft_config_file(tmp_path / "adapter.safetensors") is None


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        ("wan_HighNoise.safetensors", "high"),
        ("wan-low.safetensors", "low"),
        ("low_noise_high_kick.safetensors", "low"),
        ("high_kick_low-noise.safetensors", "low"),
        ("highway_slow.safetensors", ""),
        # Of both experts nothing says which is meant.
        ("high_kick_low.safetensors", ""),
        ("high_noise_and_low_noise.safetensors", ""),
        ("low_noise/adapter_model.safetensors", "low"),
    ],
)
def test_a_file_s_name_names_an_expert(name: str, expert: str) -> None:
    assert expert_of(Path(name)) == expert


def test_a_bare_word_of_a_name_is_no_noise() -> None:
    names = (
        "wan22_high_kick.safetensors",
        "wan_HighNoise.safetensors",
        "low_noise/adapter_model.safetensors",
    )
    assert [names_noise(Path(name)) for name in names] == [False, True, True]
