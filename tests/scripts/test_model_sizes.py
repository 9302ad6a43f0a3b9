"""The sizes of the real models, on the meta device."""

import re
from pathlib import Path

import pytest
from torch import nn

from motionexp.backbones.catalog import MODELS, RealModel
from motionexp.config.compose import load
from motionexp.scripts.model_sizes import Counts, count, count_bundled, main

ROOT = Path(__file__).parents[2]
BY_NAME = {model.name: model for model in MODELS}


@pytest.mark.parametrize(
    ("name", "network", "attentions", "lora"),
    [
        ("latte", 1_057_246_880, 28, 516_096),
        ("modelscope", 1_411_233_860, 34, 415_744),
        ("show1", 1_726_848_390, 44, 686_080),
        ("cogvideox_2b", 1_693_783_872, 30, 921_600),
        ("cogvideox_5b", 5_570_283_072, 42, 2_064_384),
        ("animatediff", 1_276_658_564, 40, 563_200),
        ("wan_1_3b", 1_418_996_800, 30, 30 * 2 * 4 * (1536 + 1536)),
        ("wan2_2_14b", 2 * 14_288_491_584, 2 * 40, 2 * 40 * 2 * 4 * (5120 + 5120)),
        ("ltx", 1_923_385_472, 28, 28 * 2 * 4 * (2048 + 2048)),
    ],
)
def test_real_models_have_their_sizes(name: str, network: int, attentions: int, lora: int) -> None:
    counted = count(BY_NAME[name])
    assert (counted.network, counted.attentions, counted.lora) == (network, attentions, lora)


def test_full_rank_counts_weights_and_biases() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 4, bias=False) for _ in range(3))
            self.o = nn.Linear(4, 6)

    names = {letter: [letter] for letter in "qkvo"}
    model = RealModel("two", Two, lambda network: names, "made", True, "any")
    # v has 6 x 4, o 4 x 6 and a bias of 6; rank 4 takes 4 (6 + 4) for each.
    assert count(model) == Counts(network=102, attentions=1, lora=80, full_vo=54, full_qkvo=102)


def test_the_published_page_is_what_the_command_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "models.md")]) == 0
    written = (tmp_path / "models.md").read_text()
    assert written == (ROOT / "docs" / "models.md").read_text()
    assert written.strip() in capsys.readouterr().out
    bundled = ["tiny_latte", "tiny_unet3d", "tiny_cogvideox"]
    assert all(f"| `{name}` |" in written for name in [*BY_NAME, *bundled])


def test_only_what_was_seen_in_the_owners_files_is_verified() -> None:
    verified = [model for model in MODELS if model.verified]
    assert [model.name for model in verified] == ["modelscope", "show1", "latte"]
    for model in verified:
        owner = load([f"model={model.name}"]).model.path.split("/")[0]
        assert model.source.startswith(f"hub, {owner}/")


@pytest.mark.parametrize("name", BY_NAME)
def test_a_models_file_says_as_the_page_whether_its_tau_is_a_placeholder(name: str) -> None:
    said = "# A placeholder, Latte's, until probes find" in (ROOT / f"conf/model/{name}.yaml").read_text()
    assert said == BY_NAME[name].tau_is_placeholder
    (line,) = re.findall(
        rf"^\| `{name}` \| [^|]*/.*$", (ROOT / "docs" / "models.md").read_text(), re.MULTILINE
    )
    assert line.endswith("(placeholder) |") == said
    assert f"| {load([f'model={name}']).model.default_tau:g} " in line


@pytest.mark.parametrize(
    ("name", "attentions", "lora"),
    [
        ("tiny_latte", 4, 4 * 2 * 4 * (192 + 192)),
        ("tiny_cogvideox", 6, 6 * 2 * 4 * (160 + 160)),
        ("tiny_unet3d", 16, 18_432),
    ],
)
def test_bundled_models_have_their_sizes(name: str, attentions: int, lora: int) -> None:
    counted = count_bundled(load([f"model={name}"]))
    assert (counted.attentions, counted.lora) == (attentions, lora)


def test_every_real_model_of_conf_is_counted() -> None:
    real = {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml") if "tiny" not in path.stem}
    assert {model.name for model in MODELS} == real
