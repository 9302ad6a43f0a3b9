"""Our scores against the TGVE benchmark's (`scripts/run_eval.py`), written again, slowly, on transformers."""

import gzip
import json
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from motionexp.data.base import Edit, Reference
from motionexp.metrics.scorer import Scorer, ScoringModels

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIDE, WIDTH, CONTEXT = 32, 64, 77
KINDS = ("style", "object")
CAPTIONS = ("A cat runs on grass, oil painting", "Two DOGS jump over a fence.", "a red car", "snow & ice")


@cache
def tokenizer():
    """transformers' tokenizer of OpenAI's byte pairs, from the list that open_clip carries."""
    packed = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    vocabulary = dict(open_clip.tokenizer.SimpleTokenizer().encoder)
    for ours, theirs in (("start_of_text", "startoftext"), ("end_of_text", "endoftext")):
        vocabulary[f"<|{theirs}|>"] = vocabulary.pop(f"<{ours}>")
    return CLIPTokenizer(vocab=vocabulary, merges=merges)


def hugging_face_clip(seed, act, scale):
    torch.manual_seed(seed)
    tower = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 2, "hidden_act": act}
    model = CLIPModel(
        CLIPConfig(
            text_config=tower | {"num_attention_heads": 1, "max_position_embeddings": CONTEXT},
            vision_config=tower | {"num_attention_heads": 1, "image_size": SIDE, "patch_size": 8},
            projection_dim=24,
        )
    ).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # As initialised, all frames and captions look nearly alike.
            if weight.ndim > 1 and "embedding" not in name:
                weight.mul_(6)
        model.logit_scale.fill_(np.log(scale))
    return model


def as_open_clip(model):
    """The weights of a CLIPModel under open_clip's names."""
    theirs, ours = model.state_dict(), {"logit_scale": model.logit_scale.detach()}
    ours["visual.class_embedding"] = theirs["vision_model.embeddings.class_embedding"]
    ours["visual.conv1.weight"] = theirs["vision_model.embeddings.patch_embedding.weight"]
    ours["visual.positional_embedding"] = theirs["vision_model.embeddings.position_embedding.weight"]
    ours["token_embedding.weight"] = theirs["text_model.embeddings.token_embedding.weight"]
    ours["positional_embedding"] = theirs["text_model.embeddings.position_embedding.weight"]
    ours["visual.proj"] = theirs["visual_projection.weight"].T
    ours["text_projection"] = theirs["text_projection.weight"].T
    norms = {
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
    }
    for number in range(2):
        for prefix, tower in (("visual.", "vision_model"), ("", "text_model")):
            block, layer = f"{prefix}transformer.resblocks.{number}", f"{tower}.encoder.layers.{number}"
            parts = [f"{layer}.self_attn.{name}_proj" for name in "qkv"]
            for kind in ("weight", "bias"):
                joined = torch.cat([theirs[f"{part}.{kind}"] for part in parts])
                ours[f"{block}.attn.in_proj_{kind}"] = joined
            norms |= {
                f"{block}.attn.out_proj": f"{layer}.self_attn.out_proj",
                f"{block}.ln_1": f"{layer}.layer_norm1",
                f"{block}.ln_2": f"{layer}.layer_norm2",
                f"{block}.mlp.c_fc": f"{layer}.mlp.fc1",
                f"{block}.mlp.c_proj": f"{layer}.mlp.fc2",
            }
    for name, source in norms.items():
        for kind in ("weight", "bias"):
            ours[f"{name}.{kind}"] = theirs[f"{source}.{kind}"]
    return {name: tensor.detach().contiguous() for name, tensor in ours.items()}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A CLIP in both layouts, and a scorer that has its processor elsewhere, as PickScore has."""
    clip = hugging_face_clip(0, "quick_gelu", 90.0)
    folder = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": WIDTH, "patch_size": 8, "head_width": WIDTH},
        "text_cfg": {
            "context_length": CONTEXT, "vocab_size": 49408, "width": WIDTH, "heads": 1, "layers": 2,
        },
    }  # fmt: skip
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    save_file(as_open_clip(clip), folder / "open_clip_model.safetensors")
    pick, elsewhere = tmp_path_factory.mktemp("pick"), tmp_path_factory.mktemp("processor")
    preference = hugging_face_clip(1, "gelu", 110.0)
    preference.save_pretrained(pick)
    images, texts = processor(), tokenizer()
    images.save_pretrained(elsewhere)
    texts.save_pretrained(elsewhere)
    return clip, preference, ScoringModels(str(folder), str(pick), str(elsewhere), resize=480)


def processor():
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def benchmark(model, frames, caption):
    """(text score, frame consistency) of one video and caption, as the benchmark computes them."""
    texts = tokenizer()([caption], padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt")
    images = [Image.fromarray(frame).resize((480, 480)) for frame in frames]
    pixels = processor()(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        found = model(**texts, pixel_values=pixels)
        features = model.get_image_features(pixels).pooler_output
    cosines = []
    for i, one in enumerate(features):
        for j, other in enumerate(features):
            if i != j:
                cosines.append(float(one @ other / (one.norm() * other.norm())))
    return float(found.logits_per_image.mean()), float(np.mean(cosines))


def references():
    """Two videos of different lengths and sizes with two edits each."""
    random, found = np.random.default_rng(0), []
    for number, shape in enumerate([(4, 60, 80, 3), (3, 72, 48, 3)]):
        frames = random.integers(0, 256, shape, dtype=np.uint8)
        frames = np.repeat(np.repeat(frames[:, ::6, ::6], 6, axis=1), 6, axis=2)
        edits = tuple(
            Edit(kind, caption)
            for kind, caption in zip(KINDS, CAPTIONS[2 * number : 2 * number + 2], strict=True)
        )
        found.append(Reference(f"video {number}", "tgve", frames, 8.0, "a thing", edits))
    return found


def test_scores_are_the_benchmarks_own(models):
    clip, preference, ours = models
    scorer = Scorer(["text_alignment", "frame_consistency", "pick_score"], ours)
    seen = set()
    for reference in references():
        for edit in reference.edits:
            text, consistency = benchmark(clip, reference.frames, edit.caption)
            pick, _ = benchmark(preference, reference.frames, edit.caption)
            scores = scorer.score(reference.frames, reference, edit)
            assert scores["text_alignment"]["text_alignment"].value == pytest.approx(text, abs=1e-4)
            pairs = scores["frame_consistency"]["frame_consistency_pairs"].value
            assert pairs / 100 == pytest.approx(consistency, abs=1e-4)
            assert scores["pick_score"]["pick_score"].value == pytest.approx(pick, abs=1e-4)
            seen.add(round(text, 2))
    assert len(seen) == 4  # the random model tells videos and captions apart


def test_the_benchmarks_resizing_is_part_of_it_and_of_what_identifies_a_score(models):
    ours = models[2]
    (reference, _), names = references(), ["text_alignment", "pick_score"]
    plain = ScoringModels(ours.clip, ours.preference, ours.preference_processor)
    with_it, without = Scorer(names, ours), Scorer(names, plain)
    for name in names:
        both = [
            each.score(reference.frames, reference, reference.edits[0])[name][name].value
            for each in (with_it, without)
        ]
        assert abs(both[0] - both[1]) > 1e-3
        assert with_it.model_of(name) != without.model_of(name)
