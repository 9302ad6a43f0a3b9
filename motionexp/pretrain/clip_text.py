"""The U-Net's tokenizer and untrained text encoder, in the layout of Stable Diffusion's CLIP."""

import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from motionexp.config import CLOSED_VOCABULARY
from motionexp.data.shapes.grammar import vocabulary

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 24


def build_tokenizer() -> CLIPTokenizer:
    """Return a tokenizer with one token for each word of the grammar, besides letters and parts of words."""
    words = vocabulary()
    pairs = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    pairs.normalizer = normalizers.Lowercase()
    pairs.pre_tokenizer = pre_tokenizers.Whitespace()
    # One merge a character is enough to make whole words of all.
    trainer = trainers.BpeTrainer(
        vocab_size=100 + sum(map(len, words)),
        special_tokens=[START, END],
        end_of_word_suffix="</w>",
        min_frequency=1,
        show_progress=False,
    )
    pairs.train_from_iterator([" ".join(words)], trainer)
    learnt = json.loads(pairs.to_str())["model"]
    return CLIPTokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],
        model_max_length=MAX_TOKENS,
        **{CLOSED_VOCABULARY: words},
    )


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained encoder, 96 wide and two layers deep."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=96,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
