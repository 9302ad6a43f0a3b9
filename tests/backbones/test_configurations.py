"""What is stored of real models for plans: their configurations, the sizes of files, and what is fetched."""

import hashlib
import json
import re
import shlex
import shutil
import socket
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LatteTransformer3DModel
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects
from hydra.utils import get_object
from torch import nn

from motionexp import hub
from motionexp.backbones.checkpoint import weights_hash
from motionexp.backbones.latte import LatteBackbone
from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.wan import WanExpertsBackbone
from motionexp.config.compose import load
from motionexp.config.options import options
from motionexp.config.schema import ModelConfig
from motionexp.diffusion.flow_matching import respaced
from motionexp.errors import InputError
from motionexp.hub import CONFIGURATIONS, configuration, fetch_command, find_folder, is_to_fetch
from motionexp.probes.tree import step_blocks
from tests.support.tiny_families import Family
from tests.support.tiny_models import save_tiny_pipeline

WAN, WAN_14B = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers"
WAN_2, HUNYUAN = "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "hunyuanvideo-community/HunyuanVideo"
MOCHI, COGVIDEOX = "genmo/mochi-1-preview", "zai-org/CogVideoX-5b"
# sha256 of the hub's files at `REVISIONS`, as public manifests record them: of the content with sorted keys
# and two blanks of indentation.
HASHES = {
    (WAN, "transformer/config.json"): "0b093fa072e9ff28763febe9b964ee582f566733a6d6709deb9dfba1bde16b81",
    (
        WAN,
        "scheduler/scheduler_config.json",
    ): "3fed2abbd9bbc301a74db01947198057ec5049808910dccab320925bf27bea6e",
    (WAN, "vae/config.json"): "f0c1cc1d7decb5badc384f54691746a27a9aeff49f7ebca974e583389342d527",
    (WAN, "model_index.json"): "b8b28e022329acf975e027579a1d2dc3de44dba28f4c909b98a880fbf5b0de7d",
    (WAN_14B, "transformer/config.json"): "bb02a8542389fb9499bde3a3aed0a7b2c8bd1b7e05dd73cf3e237f2eef77f133",
    (WAN_14B, "vae/config.json"): "47e97cfd3ad06ff19da37844824aabeefa1784c2594136d6aed6759d98f303ff",
    (WAN_14B, "model_index.json"): "3291f6f7a89359034aa421c29532e556c6bb8ce62c8077778b4f4b16e5549535",
    (WAN_2, "model_index.json"): "9787428872b458feb75008857091964da11cd37a606dbd89eb0c8a4939c7c798",
    (HUNYUAN, "transformer/config.json"): "87e056fd4f2d59a5999fb172819ea322944b2c42b95623d875e6c8da8fe790fa",
    (
        HUNYUAN,
        "scheduler/scheduler_config.json",
    ): "f1d67f3728a1a54de830ccb3b5856308a3f2844bad5950c60523fe87d6bb2bbe",
    (HUNYUAN, "model_index.json"): "34b794bc21967bdc0bdc56be8158f883272659c07d8cf89669b2d5b15adbf52c",
    (HUNYUAN, "vae/config.json"): "8dd1ef5ce49d2a56cdb5ea4c6553244320cd7185918463578c4c08a31f55e50a",
    (MOCHI, "transformer/config.json"): "592148b13b5b7ab182c266f73a8d35ef6a427775e45e573bc7359b01d8824d1a",
    (
        MOCHI,
        "scheduler/scheduler_config.json",
    ): "e76276322d53cda452afe406d3c1e6a1a8bdc9de3fae3a32c831f4b8e41890f4",
    (MOCHI, "model_index.json"): "db470a8c28b77125d74cb955f277c20b9f629e01b177dd352d7ec396ccad3d85",
    (
        COGVIDEOX,
        "transformer/config.json",
    ): "19180879f7424eb188a5ece3f222ed3d3fe2b47dacd830e788ef50fec44fa52f",
    (
        COGVIDEOX,
        "scheduler/scheduler_config.json",
    ): "247ecd6635dae7bf889a7ec69ba951c44d746cb4edef13b9c3b1b16bfeeedba5",
}
REVISIONS = {
    WAN: "0fad780a534b6463e45facd96134c9f345acfa5b",
    WAN_14B: "38ec498cb3208fb688890f8cc7e94ede2cbd7f68",
    WAN_2: "5be7df9619b54f4e2667b2755bc6a756675b5cd7",
    HUNYUAN: "e8c2aaa66fe3742a32c11a6766aecbf07c56e773",
    MOCHI: "14be5fcea23095ed330cb214647916a451e38b6e",
    COGVIDEOX: "8fc5b281",
}
# In docs/models.md and in the configurations, the names of the files that a hash can verify.
HASHED_NAMES = {
    "transformer": "transformer/config.json",
    "scheduler": "scheduler/scheduler_config.json",
    "VAE": "vae/config.json",
    "index": "model_index.json",
}
ORIGINAL_EXPERTS = "691a47e123c3dd41f134836fd9a00e744110c6a812a11b3d95ca70e9485ffe11"
MODELS = [name for name in options("model") if not name.startswith("tiny_")]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    monkeypatch.setattr(socket.socket, "connect", None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("models") / "whole")


def class_of(model: ModelConfig) -> type[PipelineBackbone]:
    kind: type[PipelineBackbone] = get_object(model._target_.rpartition(".")[0])
    return kind


def written_hashes(content: Mapping[str, Any]) -> set[str]:
    """sha256 of a configuration as diffusers writes it, without and with a last newline."""
    text = json.dumps(content, indent=2, sort_keys=True)
    return {hashlib.sha256((text + end).encode()).hexdigest() for end in ("", "\n")}


@pytest.mark.parametrize("key", HASHES, ids=" ".join)
def test_a_stored_configuration_is_the_hubs_file(key: tuple[str, str]) -> None:
    name, file = key
    stored = configuration(name)
    assert stored is not None
    assert HASHES[key] in written_hashes(stored.files[file])


def hashed_names(path: str) -> set[str]:
    """The names of a model's files that are verified by their hash."""
    return {name for name, file in HASHED_NAMES.items() if (path, file) in HASHES}


def test_what_is_said_to_be_verified_by_its_hash_is_so() -> None:
    models = [load([f"model={name}"]).model for name in MODELS]
    revisions = {model.path: model.revision for model in models}
    for path in REVISIONS.keys() | {path for path, _ in HASHES}:
        stored = configuration(path)
        assert stored is not None
        verified = re.split(" by (?:its|their) sha256", stored.source)[0]
        assert {name for name in HASHED_NAMES if name in verified} == hashed_names(path)
        # Hashes of another revision are said to be of that one.
        said = f"at revision {REVISIONS[path]}"
        assert revisions[path] == REVISIONS[path] or said in stored.source


def test_files_that_are_known_one_by_one_are_whole_parts() -> None:
    stored = configuration(WAN_2)
    assert stored is not None
    sizes = {part: sum(stored.files_of(part).values()) for part in stored.bytes}
    assert sizes == stored.bytes
    assert len(stored.files_of("transformer_2")) == 12


@pytest.mark.parametrize("name", options("model"))
def test_a_probe_at_its_default_has_a_step_in_every_hundred_of_t(name: str) -> None:
    cfg = load([f"model={name}"])
    kind = class_of(cfg.model)
    folder = hub.find_shapes(cfg.model.path, cfg.model.revision, parts=kind.parts)
    if cfg.model.name != "ltx":  # whose shift follows from the size of videos
        step_blocks(respaced(kind.schedule_of(folder), cfg.shift, cfg.timestep_spacing), cfg.probe_steps)


@pytest.mark.parametrize("expert", ["transformer", "transformer_2"])
def test_wan_2_2_s_experts_are_those_of_their_owners_original_files(expert: str) -> None:
    """Wan-AI/Wan2.2-T2V-A14B at c8c270b1, {high,low}_noise_model/config.json, rebuilt from our table."""
    stored = configuration(WAN_2)
    assert stored is not None
    ours = stored.files[f"{expert}/config.json"]
    original = {
        "_class_name": "WanModel",
        "_diffusers_version": "0.33.1",
        "dim": ours["num_attention_heads"] * ours["attention_head_dim"],
        "eps": ours["eps"],
        "ffn_dim": ours["ffn_dim"],
        "freq_dim": ours["freq_dim"],
        "in_dim": ours["in_channels"],
        "model_type": "t2v",
        "num_heads": ours["num_attention_heads"],
        "num_layers": ours["num_layers"],
        "out_dim": ours["out_channels"],
        "text_len": WanExpertsBackbone.caption_tokens,
    }
    assert ORIGINAL_EXPERTS in written_hashes(original)


def test_every_model_of_the_hub_has_its_configuration() -> None:
    paths = {path for name in MODELS for path in load([f"model={name}"]).model.path.split("+")}
    assert {file.stem for file in CONFIGURATIONS.iterdir()} == {path.replace("/", "--") for path in paths}


@pytest.mark.parametrize("name", MODELS)
def test_the_sizes_of_files_are_those_of_the_weights(name: str) -> None:
    model = load([f"model={name}"]).model
    backbone = class_of(model).from_pretrained(model.path, revision=model.revision, device="meta")
    assert backbone.weights_hash == ""
    sizes: dict[str, int] = {}
    for stored in hub.configurations(model.path):
        sizes |= {part or "motion_adapter": size for part, size in stored.bytes.items()}
    assert set(sizes) == set(backbone.classes)
    for part, size in sizes.items():
        module: nn.Module = backbone._shapes[part]
        # Files have some buffers too: positions that were learnt. What has two names is there once.
        tensors = {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}
        numbers = sum(parameter.numel() for parameter in module.parameters())
        whole = sum(tensor.numel() for tensor in tensors.values())
        # In two or four bytes; the headers of files, and a few weights that are unused, on top.
        closest = min(abs(size / (count * width) - 1) for count in (numbers, whole) for width in (2, 4))
        assert closest < 1e-3, part


def fetched(command: str, files: list[str]) -> set[str]:
    """The files of a repository that a command of `hf download` fetches."""
    words = shlex.split(command)
    after = {flag: [b for a, b in pairwise(words) if a == flag] for flag in ("--include", "--exclude")}
    include, exclude = after.values()
    return set(filter_repo_objects(files, allow_patterns=include, ignore_patterns=exclude))


def test_the_command_fetches_what_is_read_and_no_more(
    family: Family, folder: Path | str, tmp_path: Path
) -> None:
    paths = [Path(path) for path in str(folder).split("+")]
    files = [file.relative_to(paths[0]).as_posix() for file in paths[0].rglob("*") if file.is_file()]
    parts = family.kind.parts
    unread = ["README.md", "t2v.pt", "v1-5.safetensors", "safety_checker/model.safetensors"]
    for file in files:
        if file.endswith(".safetensors"):
            base = file.removesuffix(".safetensors")
            unread += [f"{base}.bin", f"{base}.fp16.safetensors", f"{base}.non_ema.safetensors", f"{base}.h5"]
            unread += [f"{base}.bf16-00001-of-00002.safetensors"]
    name = "a/b+c/d" if len(paths) == 2 else "a/b"
    model = fetch_command(name, "x+y" if len(paths) == 2 else "x", parts).split(" && ")[0]
    read = fetched(model, [*files, *unread])
    assert read & set(unread) == set()
    # What is fetched is enough: the backbone of these files alone has the same weights.
    for file in read:
        copy = tmp_path / "copy" / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths[0] / file, copy)
    copied = "+".join([str(tmp_path / "copy"), *map(str, paths[1:])])
    first, again = (family.kind.from_pretrained(path) for path in (folder, copied))
    assert first.weights_hash == again.weights_hash


def test_other_shards_beside_those_of_the_index_are_neither_fetched_nor_read(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = fetch_command(MOCHI, None, ("transformer", "text_encoder"))
    shards = [
        "text_encoder/model-00001-of-00004.safetensors",
        "text_encoder/model-00001-of-00002.safetensors",
    ]
    assert fetched(command, shards) == set(shards[:1])
    # Of any model, once its index is there.
    folder, asked = tmp_path / "model", []
    shutil.copytree(whole, folder)
    before = weights_hash(folder, LatteBackbone.parts)
    index = folder / "transformer" / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": {"a": WEIGHTS}}))
    shutil.copy(folder / "transformer" / WEIGHTS, folder / "transformer" / "again.safetensors")

    def snapshot(*_: object, allow_patterns: list[str], **__: Any) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    find_folder("someone/model", None, True, LatteBackbone.parts)
    assert f"transformer/{WEIGHTS}" in asked[1]
    assert "transformer/*.safetensors" not in asked[1]
    with_index = weights_hash(folder, LatteBackbone.parts)
    (folder / "transformer" / "again.safetensors").unlink()
    assert with_index == weights_hash(folder, LatteBackbone.parts) != before


def test_of_mochi_s_network_the_weights_in_bf16_are_fetched_and_no_shard_twice() -> None:
    network, vae = "transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model"
    read = [
        f"{network}.safetensors.index.bf16.json",
        f"{network}.bf16-00001-of-00003.safetensors",
        f"{vae}.safetensors",
        "text_encoder/model-00001-of-00004.safetensors",
    ]
    unread = [
        f"{network}-00001-of-00005.safetensors",
        f"{vae}.bf16.safetensors",
        "text_encoder/model-00001-of-00002.safetensors",
    ]
    parts = ("transformer", "vae", "text_encoder")
    assert fetched(fetch_command(MOCHI, None, parts), read + unread) == set(read)


def test_a_network_of_which_there_is_the_variant_in_bf16_alone_is_read(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    folder = tmp_path / "model" / "transformer"
    network = LatteTransformer3DModel.from_pretrained(folder).to(torch.bfloat16)
    plain = LatteBackbone.from_pretrained(tmp_path / "model").weights_hash
    config = (folder / "config.json").read_text()
    network.save_pretrained(folder, variant="bf16", max_shard_size="20KB")
    (folder / "config.json").write_text(config)
    # Beside weights in fp32 it is not read.
    assert LatteBackbone.from_pretrained(tmp_path / "model").weights_hash == plain
    (folder / WEIGHTS).unlink()
    backbone = LatteBackbone.from_pretrained(tmp_path / "model")
    assert backbone.weights_hash != plain
    for name, value in backbone.network.named_parameters():
        assert torch.equal(value, network.get_parameter(name).float())
    next(folder.glob("*-00001-of-*")).unlink()
    with pytest.raises(InputError, match="00001-of-"):
        LatteBackbone.from_pretrained(tmp_path / "model")


def test_a_model_of_which_nothing_is_here_is_named_with_the_command_for_its_configuration() -> None:
    with pytest.raises(InputError) as caught:
        LatteBackbone.from_pretrained("someone/model", revision="v2", device="meta")
    command = re.search("`(hf download someone/model --revision v2 .*)`", str(caught.value))
    assert command is not None
    files = command[1].split()[5:]
    assert set(files) == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"{part}/config.json" for part in ("transformer", "vae", "text_encoder")),
    }


def test_a_fetched_configuration_alone_is_enough_for_shapes(whole: Path) -> None:
    snapshot = Path(constants.HF_HUB_CACHE) / "models--someone--tiny" / "snapshots" / ("0" * 40)
    settings = {"revision": "0" * 40, "device": "meta"}
    for file in whole.rglob("*.json"):
        if "tokenizer" not in file.parts[-2]:
            (snapshot / file.relative_to(whole)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, snapshot / file.relative_to(whole))
    # A download that was interrupted leaves some of the weights.
    shutil.copy(whole / "vae" / WEIGHTS, snapshot / "vae" / WEIGHTS)
    assert is_to_fetch("someone/tiny", "0" * 40, LatteBackbone.parts)
    shape = LatteBackbone.from_pretrained("someone/tiny", **settings)
    real = LatteBackbone.from_pretrained(whole, device="meta")
    assert shape.network.state_dict().keys() == real.network.state_dict().keys()
    assert shape.check_captions(["any words at all"]) == []
    assert shape.tokenizer(["one", "two"], max_length=5).attention_mask.sum() == 2 * 5
    # With the rest it is a model that is here.
    shutil.copytree(whole, snapshot, dirs_exist_ok=True)
    assert not is_to_fetch("someone/tiny", "0" * 40, LatteBackbone.parts)
