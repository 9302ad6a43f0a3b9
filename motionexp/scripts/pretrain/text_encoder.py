"""Train the small text encoder and its tokenizer: ``python -m motionexp.scripts.pretrain.text_encoder``.

A T5 encoder learns to name every word of a caption, a third of them hidden behind the unknown-word token.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from motionexp.data.shapes.grammar import vocabulary
from motionexp.data.shapes.scenes import pretraining_scene
from motionexp.scripts.pretrain.loop import options, train

HIDDEN_SHARE = 1 / 3
MAX_TOKENS = 24
"""In a caption for a denoiser."""


def build_tokenizer() -> T5Tokenizer:
    """Return a tokenizer with one token for each word of the grammar."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    words = [(f"\u2581{word}", -1.0) for word in vocabulary()]
    return T5Tokenizer(vocab=special + words, extra_ids=0, model_max_length=120)


def build(words: int) -> T5EncoderModel:
    """Return an untrained encoder for a vocabulary of ``words`` tokens."""
    return T5EncoderModel(
        T5Config(
            vocab_size=words,
            d_model=96,
            d_kv=24,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
        )
    )


def load(folder: Path) -> tuple[T5Tokenizer, T5EncoderModel]:
    """Return tokenizer and encoder, in fp32, as a training or a pipeline saved them."""
    tokenizer = T5Tokenizer.from_pretrained(folder / "tokenizer")
    return tokenizer, T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)


@torch.no_grad()
def embedded(captions: list[str], folder: Path, *, mask_padding: bool) -> tuple[Tensor, Tensor]:
    """Return captions as (N, L, D) in half precision, and their tokens' mask (N, L).

    Args:
        captions: padded to `MAX_TOKENS`.
        folder: of tokenizer and encoder.
        mask_padding: hide the padding from the encoder; stock pipelines differ in this.
    """
    tokenizer, encoder = load(folder)
    tokens = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
    parts = [
        encoder(input_ids=ids, attention_mask=mask if mask_padding else None).last_hidden_state.half()
        for ids, mask in zip(tokens.input_ids.split(512), tokens.attention_mask.split(512), strict=True)
    ]
    return torch.cat(parts), tokens.attention_mask


class Namer(nn.Module):
    """The encoder with a linear head that names each position's word."""

    def __init__(self, encoder: T5EncoderModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.d_model, encoder.config.vocab_size)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return logits (B, L, words) from token ids and mask (B, L)."""
        logits: Tensor = self.head(self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state)
        return logits


def main() -> None:
    """Train and save."""
    args = options(__doc__, "text_encoder", steps=1500, rate=1e-3, batch=128, videos=10_000).parse_args()
    tokenizer = build_tokenizer()
    scenes = [pretraining_scene(index) for index in range(args.videos)]
    captions = [caption for scene in scenes for caption in (scene.caption, scene.still_caption)] + [""] * 200
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    torch.manual_seed(0)
    model = Namer(build(len(tokenizer)))

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(len(captions), (args.batch,), generator=generator)
        ids, mask = tokens.input_ids[rows], tokens.attention_mask[rows]
        hidden = (torch.rand(ids.shape, generator=generator) < HIDDEN_SHARE) & (ids > tokenizer.unk_token_id)
        logits = model(ids.masked_fill(hidden, tokenizer.unk_token_id), mask)
        return nn.functional.cross_entropy(logits[mask.bool()], ids[mask.bool()])

    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.01)
    train(args, model, [optimiser], loss)
    model.encoder.save_pretrained(args.output / "text_encoder")
    tokenizer.save_pretrained(args.output / "tokenizer")


if __name__ == "__main__":
    main()
