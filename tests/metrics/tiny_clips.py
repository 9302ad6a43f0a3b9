"""Random CLIPs in the layouts of transformers and of open_clip, with the tokenizer of OpenAI's CLIP."""

import gzip
import json
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from motionexp.config.scoring_models import ScoringModels

SIDE, WIDTH, CONTEXT = 32, 64, 77
CLIP, PREFERENCE = (0, "quick_gelu", 90.0), (1, "gelu", 110.0)
"""(seed, activation, temperature); both temperatures differ from where training begins."""
RENAMED = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}
"""Parts of transformers' names of weights, and of open_clip's."""


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


def processor():
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


@cache
def hugging_face_clip(seed, act, scale):
    torch.manual_seed(seed)
    tower = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 2, "hidden_act": act}
    tower["num_attention_heads"] = 1
    text = tower | {"max_position_embeddings": CONTEXT}
    vision = tower | {"image_size": SIDE, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # As initialised, all frames and captions look nearly alike.
            if weight.ndim > 1 and "embedding" not in name:
                weight.mul_(6)
        model.logit_scale.fill_(np.log(scale))
    return model


def as_open_clip(model):
    """The weights of a CLIPModel under open_clip's names."""
    weights = {}
    for name, weight in model.state_dict().items():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        weights[name] = weight.T if name in ("visual.proj", "text_projection") else weight
    # open_clip has one matrix for queries, keys and values.
    for name in [name for name in weights if ".self_attn.q_proj." in name]:
        parts = [weights.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        weights[name.replace("self_attn.q_proj.", "attn.in_proj_")] = torch.cat(parts)
    return {name: weight.contiguous() for name, weight in weights.items()}


def save_models(folder):
    """Write a CLIP, and a preference model that has its processor elsewhere, as PickScore has."""
    clip, preference, elsewhere = (folder / name for name in ("clip", "preference", "processor"))
    clip.mkdir()
    tower = {"layers": 2, "width": WIDTH}
    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": tower | {"image_size": SIDE, "patch_size": 8, "head_width": WIDTH},
        "text_cfg": tower | {"context_length": CONTEXT, "vocab_size": 49408, "heads": 1},
    }
    images, texts = processor(), tokenizer()
    preprocess = {"mean": images.image_mean, "std": images.image_std}
    preprocess |= {"interpolation": "bicubic", "resize_mode": "shortest"}
    document = {"model_cfg": config, "preprocess_cfg": preprocess}
    (clip / "open_clip_config.json").write_text(json.dumps(document))
    save_file(as_open_clip(hugging_face_clip(*CLIP)), clip / "open_clip_model.safetensors")
    hugging_face_clip(*PREFERENCE).save_pretrained(preference)
    images.save_pretrained(elsewhere)
    texts.save_pretrained(elsewhere)
    return ScoringModels(str(clip), str(preference), str(elsewhere), resize=480)
