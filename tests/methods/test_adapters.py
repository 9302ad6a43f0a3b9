import json
from types import SimpleNamespace

import pytest
import torch
from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel, LattePipeline
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file

from motionexp.backbones.latte import LatteBackbone
from motionexp.diffusion.sampling import SamplerSettings, sample_latents
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import Recipe, load_adapter, save_adapter
from motionexp.methods.full_rank import FullRank
from motionexp.methods.lora import LoRA
from tests.support.tiny_models import save_tiny_pipeline

METHODS = [LoRA, FullRank]
RECIPE = Recipe(
    captions=['a "cat" 🐈 runs'],
    seed=3,
    steps=200,
    batch_size=1,
    learning_rate=3e-4,
    weight_decay=0.01,
    optimizer="adamw",
    packages={"motionexp": "0.1.0"},
)


def change(method, size=0.1):
    """Move every tuned tensor away from the untrained state."""
    g = torch.Generator().manual_seed(0)
    for tensor in method.state().values():
        tensor.add_(size * torch.randn(tensor.shape, generator=g))


def saved(folder, backbone, method_type, low=700, **settings):
    """The file of a method that was never trained but has other values; nothing stays attached."""
    method = method_type(backbone, Window(low), **settings)
    change(method)
    try:
        return save_adapter(folder, backbone, method, RECIPE)
    finally:
        method.remove()


@torch.no_grad()
def predict(backbone, inputs, t=800):
    return backbone.predict(inputs.latents, t, inputs.conditioning)


@pytest.mark.parametrize("method_type", METHODS)
def test_a_loaded_adapter_acts_as_the_saved_one_in_its_window(method_type, backbone, inputs, tmp_path):
    base = predict(backbone, inputs)
    settings = {"rank": 2, "alpha": 3.0} if method_type is LoRA else {}
    method = method_type(backbone, Window(700, 900), projections=("q", "o"), **settings)
    change(method)
    method.switch(True)
    tuned = predict(backbone, inputs)
    save_adapter(tmp_path, backbone, method, RECIPE)
    method.remove()
    for path in (tmp_path, tmp_path / "adapter.safetensors"):
        loaded = load_adapter(path, backbone)
        assert type(loaded) is method_type
        assert (loaded.window, loaded.settings) == (method.window, method.settings)
        assert torch.equal(predict(backbone, inputs), base)
        for t, inside in ((699, False), (700, True), (900, True), (901, False)):
            assert loaded.set_active(t) is inside
            assert torch.equal(predict(backbone, inputs), tuned if inside else base)
        loaded.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.safetensors"]


def test_the_metadata_tell_how_it_was_made(backbone, tmp_path):
    path = saved(tmp_path, backbone, LoRA, rank=2)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["motionexp"])
    assert about["model"] == "tiny"
    assert about["weights_hash"] == backbone.weights_hash
    assert about["source"] == backbone.source
    assert about["revision"] is None
    assert about["method"] == "lora"
    chosen = {"rank": 2, "alpha": 4.0, "projections": ["v", "o"], "attention": "motion"}
    assert about["settings"] == chosen
    assert about["window"] == {"low": 700, "high": 1000.0, "knots": []}
    assert about["recipe"]["captions"] == ['a "cat" 🐈 runs']
    assert (about["recipe"]["seed"], about["recipe"]["steps"]) == (3, 200)
    assert about["recipe"]["packages"] == {"motionexp": "0.1.0"}


def test_there_is_no_adapter_of_the_base_model(backbone, tmp_path):
    with pytest.raises(ValueError, match="no adapter to save"):
        saved(tmp_path / "adapter", backbone, LoRA, low=1000)
    assert not (tmp_path / "adapter").exists()


# the files in other tools


def stock_sample(pipeline, noise, settings):
    return pipeline(
        prompt="a cat runs",
        negative_prompt="",
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        video_length=noise.shape[2],
        height=16,
        width=16,
        latents=noise.clone(),
        clean_caption=False,
        output_type="latent",
    ).frames


@pytest.mark.parametrize("method_type", METHODS)
def test_with_tau_0_the_stock_pipeline_gives_our_samples(method_type, backbone, tiny_folder, tmp_path):
    path = saved(tmp_path, backbone, method_type, low=0)
    settings = SamplerSettings(steps=4, guidance_scale=5.0)
    shape = backbone.latent_shape(backbone.frames, backbone.height, backbone.width)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))
    method = load_adapter(path, backbone)
    captions = backbone.embed(["a cat runs"]), backbone.embed([""])
    ours = sample_latents(backbone, *captions, noise, settings, gate=method.set_active)
    method.remove()
    base = sample_latents(backbone, *captions, noise, settings)

    pipeline = LattePipeline.from_pretrained(tiny_folder)
    pipeline.set_progress_bar_config(disable=True)
    tensors = load_file(path)
    if method_type is LoRA:
        # The stock network has no adapter methods of its own: peft reads the same keys.
        state = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        modules = [name.removesuffix(".lora_A.weight") for name in state if name.endswith("lora_A.weight")]
        inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=modules), pipeline.transformer)
        result = set_peft_model_state_dict(pipeline.transformer, state)
    else:
        result = pipeline.transformer.load_state_dict(tensors, strict=False)
    assert not result.unexpected_keys
    theirs = stock_sample(pipeline, noise, settings)
    assert (ours - theirs).abs().max() < 1e-4
    assert (ours - base).abs().max() > 1e-2


@pytest.fixture
def cogvideox():
    """A tiny network of a class with adapter methods, as much of a backbone as saving needs."""
    torch.manual_seed(0)
    network = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=8,
        num_layers=2,
        sample_width=4,
        sample_height=4,
        sample_frames=5,
        patch_size=2,
        max_text_seq_length=6,
    ).requires_grad_(False)
    network.eval()
    layers = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
    names = {
        key: [f"transformer_blocks.{i}.attn1.{layer}" for i in range(2)] for key, layer in layers.items()
    }
    return SimpleNamespace(
        network=network,
        name="tiny_cogvideox",
        source="nowhere",
        revision=None,
        weights_hash="0" * 64,
        key_prefix="transformer.",
        motion_projections=lambda window: names,
    )


@torch.no_grad()
def cogvideox_output(network):
    g = torch.Generator().manual_seed(3)
    x, text = torch.randn(1, 2, 4, 4, 4, generator=g), torch.randn(1, 6, 8, generator=g)
    return network(x, encoder_hidden_states=text, timestep=torch.tensor([700]), return_dict=False)[0]


def test_diffusers_loads_the_file_and_gives_our_output(cogvideox, tmp_path):
    """With alpha other than the rank, which diffusers has from the file's metadata alone."""
    network = cogvideox.network
    base = cogvideox_output(network)
    method = LoRA(cogvideox, Window(0), rank=2, alpha=6.0)
    change(method)
    method.switch(True)
    ours = cogvideox_output(network)
    save_adapter(tmp_path, cogvideox, method, RECIPE)
    theirs = get_peft_model_state_dict(network, adapter_name="motionexp")
    method.remove()
    assert not torch.allclose(ours, base, atol=1e-3)

    pipeline = CogVideoXPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=network, scheduler=None
    )
    pipeline.load_lora_weights(str(tmp_path))
    torch.testing.assert_close(cogvideox_output(network), ours)
    pipeline.unload_lora_weights()
    network.load_lora_adapter(str(tmp_path), weight_name="adapter.safetensors")
    torch.testing.assert_close(cogvideox_output(network), ours)

    CogVideoXPipeline.save_lora_weights(str(tmp_path / "stock"), transformer_lora_layers=theirs)
    (stock,) = (tmp_path / "stock").iterdir()
    assert load_file(stock).keys() == load_file(tmp_path / "adapter.safetensors").keys()


# what is no adapter, or not for this model


def refused(path, backbone, says):
    with pytest.raises(InputError, match=says) as caught:
        load_adapter(path, backbone)
    assert str(path) in str(caught.value)
    LoRA(backbone, Window(0)).remove()  # nothing is left attached


def test_files_that_are_no_adapters_are_refused(backbone, tmp_path):
    refused(tmp_path / "none.safetensors", backbone, "there is no such file")
    refused(tmp_path, backbone, "there is no such file")
    for content in (b"", b"these are words", b"\xff" * 600):
        file = tmp_path / "words.safetensors"
        file.write_bytes(content)
        refused(file, backbone, "damaged, or not a safetensors file")


@pytest.mark.parametrize("method_type", METHODS)
def test_damaged_adapters_are_refused(method_type, backbone, tmp_path):
    path = saved(tmp_path / "whole", backbone, method_type)
    content = path.read_bytes()
    for length in (20, len(content) // 2, len(content) - 1):
        cut = tmp_path / "cut.safetensors"
        cut.write_bytes(content[:length])
        refused(cut, backbone, "damaged")
    for place in (len(content) - 3, content.index(b"700")):  # a tensor's number, the window
        flipped = bytearray(content)
        flipped[place] ^= 1
        (tmp_path / "flipped.safetensors").write_bytes(flipped)
        refused(tmp_path / "flipped.safetensors", backbone, "damaged: its contents are not those")
    load_adapter(path, backbone).remove()


def test_an_adapter_of_other_weights_is_refused(backbone, tmp_path):
    other = LatteBackbone.from_pretrained(save_tiny_pipeline(tmp_path / "other", seed=1), name="other")
    path = saved(tmp_path / "adapter", other, LoRA)
    refused(
        path,
        backbone,
        "tuned on other .* unusable with tiny .*: the shapes agree, but the weights are others",
    )


def test_an_adapter_of_another_size_is_refused_by_the_shape(backbone, cogvideox, tmp_path):
    path = saved(tmp_path / "adapter", backbone, LoRA, rank=2)
    backbone.network.get_submodule(backbone.projections("motion")["v"][1]).in_features = 8
    shape = r"lora_A.weight has shape \(2, 16\) where this network has \(2, 8\)"
    refused(path, backbone, rf"unusable with tiny .*attn1.to_v.{shape}")
    refused(
        saved(tmp_path / "cogvideox", cogvideox, LoRA),
        backbone,
        r"8 of 8 tensors are missing .* 8 are unknown to this network \(transformer_blocks",
    )


def test_a_failed_write_leaves_the_old_file(backbone, tmp_path, monkeypatch):
    path = saved(tmp_path, backbone, LoRA)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, backbone, LoRA, rank=2)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["adapter.safetensors"]


@pytest.mark.parametrize("method_type", METHODS)
def test_a_file_knows_its_attention_and_its_soft_window(method_type, backbone, tmp_path):
    window = Window(400, 900, ((400.0, 0.0), (900.0, 1.0)))
    method = method_type(backbone, window, attention="spatial")
    change(method)
    kept = {name: tensor.clone() for name, tensor in method.state().items()}
    save_adapter(tmp_path, backbone, method, RECIPE)
    method.remove()
    loaded = load_adapter(tmp_path, backbone)
    assert loaded.window == window
    assert loaded.settings["attention"] == "spatial"
    assert all(torch.equal(kept[name], tensor) for name, tensor in loaded.state().items())
    loaded.remove()
