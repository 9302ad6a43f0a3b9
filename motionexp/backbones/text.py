"""Captions as a backbone's tokenizer takes them: loading it, and what it cannot take."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase

from motionexp.backbones.checkpoint import has_weights, read_json
from motionexp.config.schema import CLOSED_VOCABULARY
from motionexp.diffusion.backbone import Conditioning
from motionexp.errors import DAMAGE, InputError


class UnknownTokenizer:
    """Stands for a tokenizer that is not on this machine: every caption has the greatest length.

    Args:
        model_max_length: tokens of the longest caption.
    """

    def __init__(self, model_max_length: int) -> None:
        self.model_max_length = model_max_length

    def __call__(self, captions: Sequence[str], *, max_length: int, **_: Any) -> BatchEncoding:
        """Token ids and mask, both (captions, max_length): all zeros, and all ones."""
        size = len(captions), max_length
        return BatchEncoding(
            {"input_ids": torch.zeros(size, dtype=torch.long), "attention_mask": torch.ones(size)}
        )


Tokenizer: TypeAlias = PreTrainedTokenizerBase | UnknownTokenizer


def load_tokenizer(folder: Path, part: str = "tokenizer") -> Tokenizer:
    """A tokenizer of a pipeline's folder, or an `UnknownTokenizer` of a folder of configurations alone.

    Raises InputError where it is missing or broken.
    """
    if not (folder / part).is_dir() and not has_weights(folder):
        config = read_json(folder / "text_encoder" / "config.json")
        return UnknownTokenizer(config.get("max_position_embeddings", 0))
    read_json(folder / part / "tokenizer_config.json")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder / part, local_files_only=True
        )
    except Exception as error:
        # The library raises Exception itself for a damaged file. Other kinds of errors are defects.
        if type(error) is not Exception and not isinstance(error, DAMAGE):
            raise
        raise InputError(f"{folder / part} cannot be read ({error}); fetch it again") from error
    if not isinstance(tokenizer.model_max_length, int | float):
        raise InputError(
            f"{folder / part / 'tokenizer_config.json'}: model_max_length is no number; fetch it again"
        )
    return tokenizer


MOST_TOKENS = 100_000
"""Of a caption; a tokenizer whose file gives no number takes 10^30."""


def longest_caption(folder: Path, tokenizer: Tokenizer) -> int:
    """The tokenizer's `model_max_length`. Raises InputError where the pipeline's folder gives none."""
    longest = tokenizer.model_max_length
    if isinstance(tokenizer, UnknownTokenizer):
        return longest
    if not isinstance(longest, int) or not 1 <= longest <= MOST_TOKENS:
        file = folder / "tokenizer" / "tokenizer_config.json"
        raise InputError(
            f"{file}: model_max_length is {longest!r:.80}; a whole number from 1 to {MOST_TOKENS}"
        )
    return longest


def caption_problems(tokenizer: Tokenizer, captions: Sequence[str], max_tokens: int) -> list[str]:
    """What is wrong with captions, one sentence a problem: unknown words of a closed vocabulary, or length.

    Args:
        tokenizer: the text encoder's.
        captions: as the backbone hands them to the tokenizer, in small letters if it writes them so.
        max_tokens: longest caption, special tokens included.
    """
    problems: list[str] = []
    if isinstance(tokenizer, UnknownTokenizer):
        return problems
    vocabulary = closed_vocabulary(tokenizer)
    for caption in captions:
        shown = caption if len(caption) <= 60 else caption[:57] + "..."
        words = dict.fromkeys(caption.split())
        unknown = [] if vocabulary is None else [word for word in words if word not in vocabulary]
        # Without truncation: the tokenizer would cut a long caption and say nothing.
        length = len(tokenizer(caption, verbose=False).input_ids)
        if unknown:
            problems.append(
                f"caption {shown!r}: this model does not know {', '.join(map(repr, unknown[:8]))};"
                " use the words of `python run.py list words`, or a model of real videos (model=latte)"
            )
        elif length > max_tokens:
            problems.append(f"caption {shown!r} has {length} tokens; at most {max_tokens} fit")
    return problems


def unchanged(tokenizer: Tokenizer, captions: Sequence[str]) -> list[str]:
    """Captions for the tokenizer, as they are."""
    return list(captions)


def lower_case(tokenizer: Tokenizer, captions: Sequence[str]) -> list[str]:
    """Captions for the tokenizer, in small letters."""
    return [caption.lower() for caption in captions]


def stripped_lower_case(tokenizer: Tokenizer, captions: Sequence[str]) -> list[str]:
    """Captions for the tokenizer, in small letters and without blanks around them."""
    return [caption.lower().strip() for caption in captions]


def lower_case_if_closed(tokenizer: Tokenizer, captions: Sequence[str]) -> list[str]:
    """Captions in small letters for a closed vocabulary, which has no others; else as they are."""
    return (unchanged if closed_vocabulary(tokenizer) is None else lower_case)(tokenizer, captions)


def closed_vocabulary(tokenizer: Tokenizer) -> frozenset[str] | None:
    """The words of a model that knows no others; None where it can spell any word.

    A sentencepiece tokenizer shows it: no token could go on with a word or spell one. One of byte pairs has
    letters and parts of words in any case, so that its `tokenizer_config.json` has to name the words, as
    `closed_vocabulary`.
    """
    if isinstance(tokenizer, UnknownTokenizer):
        return None
    words: list[str] | None = tokenizer.init_kwargs.get(CLOSED_VOCABULARY)
    if words is not None:
        return frozenset(words)
    # In sentencepiece a word's first token starts with ▁: where all tokens do, none can continue a word.
    tokens = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    if not all(token.startswith("▁") for token in tokens):
        return None
    return frozenset(token.removeprefix("▁") for token in tokens)


def refuse_mask(conditioning: Conditioning) -> None:
    """Raise ValueError if captions have a mask, where the network would not look at it."""
    if conditioning.mask is not None:
        raise ValueError("this network hears every column of a caption: a mask would do nothing")
