"""CLIP's kind of tokenizer for the words of the grammar, and the U-Net's text encoder, untrained."""

from itertools import product

from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from motionexp.config.schema import CLOSED_VOCABULARY
from motionexp.data.shapes.grammar import vocabulary

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
MAX_TOKENS = 24


def build_tokenizer(max_tokens: int = MAX_TOKENS) -> CLIPTokenizer:
    """Return a tokenizer with byte pairs merged until each word of the grammar is one token.

    The merges are laid down word by word, since those that ``tokenizers`` learns from counts differ from run
    to run, and with them the tokens' numbers. A later merge ranks lower, so that no earlier word changes.
    """
    words = vocabulary()
    vocab = {START: 0, END: 1}
    for letter, end in product(sorted(ByteLevel.alphabet()), ("", WORD_END)):
        vocab[letter + end] = len(vocab)
    merges: list[tuple[str, str]] = []
    for word in words:
        # Each merge joins the first two parts: a word of n letters needs n - 1 merges at most.
        while len(parts := _split(word, vocab, merges)) > 1:
            merges.append((parts[0], parts[1]))
            vocab.setdefault(parts[0] + parts[1], len(vocab))
    return CLIPTokenizer(
        vocab=vocab, merges=merges, model_max_length=max_tokens, **{CLOSED_VOCABULARY: words}
    )


def _split(word: str, vocab: dict[str, int], merges: list[tuple[str, str]]) -> list[str]:
    return [token.value for token in BPE(vocab, merges, end_of_word_suffix=WORD_END).tokenize(word)]


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
