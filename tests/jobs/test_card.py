"""`card`: the folder of a hub repository, its text, and the upload, which a stand-in of the hub takes."""

import ast
import json
import re
import shlex
from dataclasses import replace
from inspect import signature
from itertools import product
from pathlib import Path

import diffusers
import huggingface_hub
import pytest
import torch
import yaml
from safetensors.torch import save_file

from motionexp.config.compose import load
from motionexp.config.licences import LICENCES, licence_of
from motionexp.config.options import CONF, options
from motionexp.config.schema import RECIPE_SETTINGS
from motionexp.errors import InputError
from motionexp.jobs.card import card
from motionexp.results.rows import append_rows
from tests.support.made_adapter import CAPTION, write_adapter
from tests.support.made_rows import made_row
from tests.support.made_study import DATA, SIZE, references

SCORES = {
    "velocity_similarity": 0.6,
    "nuisance_similarity": 0.3,
    "nuisance_chance": 0.1,
    "text_alignment": 38.0,
}


@pytest.fixture
def cell(tmp_path) -> Path:
    """A cell with an adapter, samples of two settings, and beside it the base model and a known video."""
    model = tmp_path / "outputs" / "shapes" / "tiny_cogvideox"
    (reference,) = references(1)
    cell = model / "abc"
    adapter = write_adapter(cell / "adapter")
    fit = {"suite": "shapes", "reference": reference.name, "steps": 100, "seconds": 1.0, "device": "cpu"}
    (adapter / "fit.json").write_text(json.dumps({**fit, "reference_hash": reference.content_hash}))
    settings = {
        "model": {"height": SIZE[1], "width": SIZE[2], "frames": SIZE[0]},
        "rank": 4,
        "adapter_scale": 1.0,
        "eta": 0.0,
        "guidance_scale": 2.5,
        "sampler": "dpmpp_2m",
        "timestep_spacing": "trailing",
        "negative_prompt": "a blue plain moon",
        "stg_scale": 1.5,
        "stg_blocks": [2],
    }
    (cell / "config.yaml").write_text(yaml.safe_dump({**settings, "frames": SIZE[0], "data": DATA}))
    about = {
        "model": "tiny_cogvideox",
        "reference": reference.name,
        "reference_hash": reference.content_hash,
        "steps": 25,
        "settings": settings,
    }
    rows = []
    for (metric, value), edit in product(SCORES.items(), reference.edits[:2]):
        file = f"shapes/tiny_cogvideox/abc/media/{edit.kind}-0.mp4"
        (tmp_path / "outputs" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "outputs" / file).write_bytes(edit.kind.encode())
        sample = {**about, "edit_kind": edit.kind, "edit_caption": edit.caption, "sample_file": file}
        rows.append(made_row(metric=metric, value=value, tau=400.0, sample_id=edit.kind, **sample))
        half = {**sample, "settings": {**settings, "adapter_scale": 0.5}, "adapter_scale": 0.5}
        rows.append(
            made_row(metric=metric, value=value / 2, tau=400.0, sample_id=f"half {edit.kind}", **half)
        )
    append_rows(cell / "rows.jsonl", rows)
    whole = [row for row in rows if row.adapter_scale == 1]
    base = [
        replace(row, method="base", tau=1000.0, value=0.0, sample_id=f"base {row.edit_kind}") for row in whole
    ]
    # Of the base model, sampled with other settings, nothing is shown.
    noisy = {**settings, "eta": 1.0}
    base += [replace(row, value=9.0, settings=noisy, sample_id=f"noisy {row.sample_id}") for row in base]
    append_rows(model / "base" / "rows.jsonl", base)
    frozen = [
        replace(row, value=0.25, seed=None, sample_id="", strata={"sanity_baseline": "frozen"})
        for row in whole
    ]
    append_rows(model / "known" / "rows.jsonl", frozen)
    return cell


def kinds() -> list[str]:
    """Of the samples, in the order of the card."""
    return sorted(edit.kind for edit in references(1)[0].edits[:2])


def parts(text: str) -> tuple[dict, str]:
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def lines_of(body: str, heading: str) -> dict[str, list[str]]:
    """{first column: the others} of the table below a heading."""
    section = body.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_a_card_says_what_the_cell_holds(cell):
    card([f"adapter={cell / 'adapter'}", "reference_video=true"])
    folder = cell / "card"
    front, body = parts((folder / "README.md").read_text())
    (reference,) = references(1)
    assert (front["license"], front["pipeline_tag"]) == ("apache-2.0", "text-to-video")
    assert [entry["output"]["url"] for entry in front["widget"]] == [
        f"samples/{number}-{kind}-0.mp4" for number, kind in enumerate(kinds(), start=1)
    ]
    assert reference.name in body
    assert CAPTION in body
    # 1. Files are copies, and the reference is a video.
    assert (folder / "adapter.safetensors").read_bytes() == (
        cell / "adapter/adapter.safetensors"
    ).read_bytes()
    for number, kind in enumerate(kinds(), start=1):
        assert (folder / "samples" / f"{number}-{kind}-0.mp4").read_text() == kind
    assert (folder / "reference.mp4").stat().st_size > 1000
    # 2. The window in t, log-SNR and steps: 25 trailing steps of tiny_cogvideox are t = 999, 959, ... 39.
    window = lines_of(body, "Window")
    assert window["t"] == ["400 to 1000, of 0 (clean) to 1000 (noise)"]
    assert "on in 15 of 25 sampling steps, and goes off at t = 399" in window["sampling steps"][0]
    assert re.fullmatch(r"-?\d+\.\d\d", window["log-SNR at t = 400"][0])
    # 3. The scores are means, with what tables subtract.
    scores = lines_of(body, "Scores")
    assert scores["score"][:3] == ["this adapter", "base model", "its first frame, held"]
    assert scores["motion similarity ↑"][:3] == ["0.60", "0.00", "0.25"]
    assert scores["background leakage ↓"][:3] == ["0.20", "0.00", "0.00"]
    assert scores["text alignment ↑"][0] == "38.00"
    assert "There are samples with 1 other settings" in body
    # 4. How to use it.
    assert "callback_on_step_end=motionexp.window_callback(adapter, pipeline)" in body
    program = program_of(body)
    assert program["guidance_scale"] == 2.5
    assert program["negative_prompt"] == settings_of_run(body)["negative_prompt"] == "a blue plain moon"
    assert (program["num_frames"], program["max_sequence_length"]) == (17, 24)
    assert 'CogVideoXDPMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")' in (
        body.replace("'", '"')
    )
    assert "adds noise in each step" in body
    job = settings_of_run(body)
    assert (job["sampler"], job["steps"], job["guidance_scale"]) == ("dpmpp_2m", 25, 2.5)
    assert (job["stg_scale"], job["stg_blocks"]) == (1.5, [2])
    assert "with `stg_scale=1.5 stg_blocks=[2]`, which this program leaves out" in body
    assert "ComfyUI reads no LoRA for CogVideoXPipeline" in body


def test_words_select_the_samples(cell):
    card([f"adapter={cell / 'adapter'}", f"folder={cell / 'half'}", "adapter_scale=0.5"])
    _, body = parts((cell / "half" / "README.md").read_text())
    assert "adapter_scale=0.5" in body
    assert settings_of_run(body)["adapter_scale"] == 0.5
    assert "set_adapters(pipeline.get_active_adapters(), 0.5)" in body
    assert lines_of(body, "Scores")["motion similarity ↑"][0] == "0.30"
    assert not (cell / "half" / "reference.mp4").exists()


def test_it_can_be_written_again_but_not_over_other_text(cell):
    words = [f"adapter={cell / 'adapter'}"]
    card(words)
    card(words)
    (cell / "card" / "README.md").write_text("by hand")
    with pytest.raises(InputError, match=r"README\.md is there with other text"):
        card(words)
    assert (cell / "card" / "README.md").read_text() == "by hand"


def test_an_adapter_without_a_cell_has_a_card_without_scores(tmp_path):
    file = write_adapter(tmp_path / "somewhere") / "adapter.safetensors"
    card([f"adapter={file}"])
    _, body = parts((tmp_path / "somewhere" / "card" / "README.md").read_text())
    assert "## Scores" not in body
    assert "## Samples" not in body
    assert "on in 15 of 25" in body
    assert "leaves out" not in body
    with pytest.raises(InputError, match="tau=: the adapter lies in no cell"):
        card([f"adapter={file}", "tau=400"])


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ({"low": 0.0, "high": 1000.0}, "stays on to the end"),
        ({"low": 400.0, "high": 1000.0, "knots": [[400, 0], [1000, 1]]}, "0 at t = 400, 1 at t = 1000"),
        ({"low": 440.0, "high": 450.0}, "0 of 25"),
    ],
)
def test_every_kind_of_window_is_said(tmp_path, window, said):
    write_adapter(tmp_path / "a", window=window)
    card([f"adapter={tmp_path / 'a'}"])
    assert said in (tmp_path / "a" / "card" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "adapter= is missing"),
        (["adapter=nowhere"], "adapter=nowhere"),
        (["adapter={adapter}", "push=me"], "push=me"),
        (["adapter={adapter}", "push=me/../you"], "push="),
        (["adapter={adapter}", "private=maybe"], "private=maybe"),
        (["adapter={adapter}", "tau=3"], "tau=3:"),
        (["adapter={adapter}", "tua=3"], "did you mean tau"),
        (["adapter={adapter}", "folder=/proc/none"], "folder=/proc/none"),
    ],
)
def test_wrong_words_are_named(cell, words, named):
    with pytest.raises(InputError, match=named):
        card([word.format(adapter=cell / "adapter") for word in words])
    assert not (cell / "card").exists()


def test_other_adapters_are_refused(tmp_path):
    write_adapter(tmp_path / "a", model="my_model")
    with pytest.raises(InputError, match="model my_model, of which"):
        card([f"adapter={tmp_path / 'a'}"])
    (tmp_path / "b").mkdir()
    lora = {
        "transformer.a.lora_A.weight": torch.zeros(4, 8),
        "transformer.a.lora_B.weight": torch.zeros(8, 4),
    }
    save_file(lora, tmp_path / "b" / "adapter.safetensors")
    with pytest.raises(InputError, match=r"not saved by motionexp.*sampling_tau=.*window_callback\("):
        card([f"adapter={tmp_path / 'b'}"])


class FakeHub:
    """Stands for the hub's client: keeps what it is asked to do."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.error: Exception | None = None

    def create_repo(self, repository: str, **settings):
        if self.error:
            raise self.error
        self.asked.append((repository, settings))
        return f"https://hub/{repository}"

    def upload_folder(self, **settings) -> None:
        self.asked.append(("upload", settings))


@pytest.fixture
def hub(monkeypatch) -> FakeHub:
    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    return hub


def test_nothing_is_uploaded_unless_a_repository_is_named(cell, hub, capsys):
    card([f"adapter={cell / 'adapter'}"])
    assert hub.asked == []
    (cell / "card" / "README.md").unlink()
    (cell / "card" / "private notes.txt").write_text("mine")
    card([f"adapter={cell / 'adapter'}", "push=me/motion"])
    (created, settings), (_, upload) = hub.asked
    assert (created, settings) == ("me/motion", {"private": True, "exist_ok": True})
    assert upload["repo_id"] == "me/motion"
    assert upload["folder_path"] == cell / "card"
    videos = [f"samples/{number}-{kind}-0.mp4" for number, kind in enumerate(kinds(), start=1)]
    assert upload["allow_patterns"] == ["README.md", "adapter.safetensors", *videos]
    assert 'hf_hub_download("me/motion", "adapter.safetensors")' in (cell / "card" / "README.md").read_text()
    assert "uploaded to https://hub/me/motion" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        OSError("no token"),
        ValueError("no name"),
        huggingface_hub.errors.HfHubHTTPError.__bases__[0]("no network"),
    ],
)
def test_what_the_hub_refuses_is_one_line(cell, hub, error):
    hub.error = error
    with pytest.raises(InputError, match=f"push=me/motion.*{error}.*hf auth login"):
        card([f"adapter={cell / 'adapter'}", "push=me/motion"])
    assert (cell / "card" / "README.md").exists()


def test_every_model_of_the_hub_has_a_noted_licence():
    paths = [
        yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text()).get("path", "")
        for name in options("model")
    ]
    assert {path for path in paths if licence_of(path).key == "unknown"} == set()
    assert {path.partition("+")[0] for path in paths if not path.startswith("bundled:")} == {*LICENCES}


def test_captions_are_no_markup_and_end_no_quotes(tmp_path):
    hostile = "</video><script>alert(1)</script> '\"$(rm)` \n---\nlicense: mit"
    recipe = {"captions": [hostile], "packages": [1], "steps": hostile}
    write_adapter(
        tmp_path / "a", recipe=recipe, source=hostile, revision=hostile, settings={hostile: hostile}
    )
    card([f"adapter={tmp_path / 'a'}"])
    front, body = parts((tmp_path / "a" / "card" / "README.md").read_text())
    assert front["license"] == "apache-2.0"
    assert not re.search(r"(?<!\\)<script>", body)
    assert "$(rm)" not in "".join(re.findall(r"```.*?```", body, re.DOTALL))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": "latte"},
            [
                *("format=peft", "PeftModel.from_pretrained(pipeline.transformer", "video_length=16"),
                "reads no LoRA for Latte",
            ],
        ),
        (
            {"model": "wan_1_3b"},
            [
                *("pipeline.load_lora_weights(adapter)", "format=comfyui", "ModelSamplingSD3 with shift 8"),
                "UniPCMultistepScheduler.from_config(pipeline.scheduler.config, flow_shift=8)",
                *("guidance_scale=6.0,", "negative_prompt='\u8272", "steps=50 sampler=unipc shift=8"),
            ],
        ),
        (
            {"model": "wan2_2_14b", "layers": ("transformer.a", "transformer_2.a")},
            [
                *("format=diffusers folder=exported", "format=comfyui", "flow_shift=12"),
                *("guidance_scale=4.0,", "guidance_scale_2=3.0,"),
                'weight_name="exported_low_noise.safetensors", adapter_name="motion", load_into',
            ],
        ),
        ({"model": "ltx"}, ["frame_rate=25.0,", "`stg_scale=1 stg_blocks=[19] guidance_rescale=0.7`"]),
        ({"model": "tiny_wan"}, ["WanPipeline decodes with a video VAE alone"]),
        ({"model": "animatediff"}, ["MotionAdapter.from_pretrained(", "motion_adapter=motion"]),
        (
            {"model": "modelscope", "layers": ("unet.a",)},
            ["PeftModel.from_pretrained(pipeline.unet", "callback=lambda step, t, latents: keep_window("],
        ),
        ({"model": "show1", "layers": ("unet.a",)}, ["is no pipeline of diffusers"]),
    ],
)
def test_every_tool_gets_what_it_takes(tmp_path, changes, said):
    write_adapter(tmp_path / "a", **changes)
    card([f"adapter={tmp_path / 'a'}"])
    text = (tmp_path / "a" / "card" / "README.md").read_text()
    assert [part for part in said if part not in text] == []
    if "```python" in text:
        assert program_of(text)
    else:
        assert changes["model"] in ("tiny_wan", "show1")
    if changes["model"] == "wan_1_3b":  # the command makes the job that the table is about
        defaults, job = vars(load(["model=wan_1_3b"])), settings_of_run(text)
        assert {name: job[name] for name in RECIPE_SETTINGS} == {
            name: defaults[name] for name in RECIPE_SETTINGS
        }


def test_a_folder_of_this_machine_is_not_published(tmp_path):
    write_adapter(tmp_path / "a", source="/home/me/weights")
    card([f"adapter={tmp_path / 'a'}"])
    text = (tmp_path / "a" / "card" / "README.md").read_text()
    assert "/home/me" not in text
    assert "tiny_cogvideox, weights 2383357e373a" in text


def test_only_plain_adapters_act_elsewhere(tmp_path):
    write_adapter(tmp_path / "a", method="full_rank")
    card([f"adapter={tmp_path / 'a'}"])
    text = (tmp_path / "a" / "card" / "README.md").read_text()
    assert "No other tool applies an adapter of the method full" in text


def program_of(text: str) -> dict:
    """The arguments of the pipeline in a card's program, which all are the pipeline's own."""
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (call,) = [
        node
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "pipeline"
    ]
    kind = getattr(diffusers, re.search(r"pipeline = (\w+)\.", program)[1])
    signature(kind.__call__).bind(None, *call.args, **{word.arg: None for word in call.keywords})
    values = {word.arg: word.value for word in call.keywords if isinstance(word.value, ast.Constant)}
    return {name: ast.literal_eval(value) for name, value in values.items()}


def settings_of_run(text: str) -> dict:
    """The settings of the job that a card's command makes."""
    (command,) = re.findall(r"^python run.py (adapter=.*?)```", text, re.DOTALL | re.MULTILINE)
    words = shlex.split(command.replace("\\\n", " "))
    chosen = [word for word in words if not word.startswith(("adapter=", "video=", "caption=", "edits="))]
    return vars(load(chosen))
