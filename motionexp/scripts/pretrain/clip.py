"""Train the small CLIP through open_clip's own model and objective.

Beside the contrastive loss over the batch (Radford et al., 2021) each frame is told from captions that
differ from its own in one attribute, as in NegCLIP (Yuksekgonul et al., 2023): a random batch has almost none
that are so near.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from open_clip import ClipLoss
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from motionexp.config.schema import BUNDLED
from motionexp.data.shapes.grammar import ATTRIBUTES, vocabulary
from motionexp.data.shapes.render import FRAMES, SIZE
from motionexp.metrics.encoders import OpenClip
from motionexp.scripts.pretrain.captioned import (
    PARTS,
    CaptionedFrames,
    caption_accuracy,
    shown_neighbour,
    unseen_scenes,
)
from motionexp.scripts.pretrain.cards import Facts, write_card
from motionexp.scripts.pretrain.loop import in_bf16, muon_and_adamw, options, train
from motionexp.scripts.pretrain.videos import FOLDER, PretrainingVideos

CONTEXT = 24
MEAN, STD = 0.35, 0.2
SPECIAL = ("<pad>", "</s>", "<unk>")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each word of the grammar; it ends each caption with ``</s>``."""
    ids = {word: number for number, word in enumerate((*SPECIAL, *vocabulary()))}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    # CLIP pools at the end token, so each caption needs one.
    words.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", ids["</s>"])])
    pad, end, unknown = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=pad, eos_token=end, unk_token=unknown, model_max_length=CONTEXT
    )


def settings(words: int) -> dict[str, object]:
    """Return open_clip's model config for a vocabulary of ``words`` tokens."""
    return {
        "embed_dim": 64,
        "vision_cfg": {"image_size": SIZE, "patch_size": 8, "layers": 4, "width": 128, "head_width": 64},
        "text_cfg": {
            "context_length": CONTEXT, "vocab_size": words, "width": 64, "heads": 2, "layers": 2,
            "pool_type": "eos", "pad_id": 0, "eos_id": 1, "hf_tokenizer_name": "word-level",
        },
    }  # fmt: skip


class Embedder(nn.Module):
    """Unit features of frames and token ids in one call, as ``in_bf16`` needs."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map frames (B, 3, 64, 64) and ids (N, 24) to (B, 64), (N, 64) and the scale of their products."""
        image = self.clip.encode_image(values, normalize=True)
        return image, self.clip.encode_text(ids, normalize=True), self.clip.logit_scale.exp()


def normalised(frames: np.ndarray) -> Tensor:
    """Turn uint8 (N, H, W, 3) into the network's input (N, 3, H, W)."""
    return (torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous().float() / 255 - MEAN) / STD


def train_embedder(args: argparse.Namespace, model: nn.Module, loss: Callable[[int], Tensor]) -> None:
    """Train a CLIP: Muon for the transformer layers' matrices, AdamW for the rest."""
    optimisers = muon_and_adamw(
        model, args.rate, lambda name: "resblocks." in name or "layers." in name, betas=(0.9, 0.98)
    )
    train(args, model, optimisers, loss, ema=0.99, warmup=100, decay=0.5, folder=args.training)


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Return open_clip's loss over B pairs, plus that of each frame against its nearly right captions.

    Args:
        image: (B, D) unit features. text: (B * (1 + K), D), the B captions first, then K wrong ones a frame.
        scale: what products of features are multiplied by.
    """
    size = len(image)
    loss: Tensor = ClipLoss()(image, text[:size], scale)
    near = torch.cat([text[:size, None], text[size:].unflatten(0, (size, -1))], 1)
    logits = scale * torch.einsum("bd,bkd->bk", image, near)
    return loss + cross_entropy(logits, torch.zeros(size, dtype=torch.long))


def arguments(description: str | None, name: str, batch: int) -> argparse.Namespace:
    """Read the options that the trainings of the CLIP and of the preference model share."""
    parser = options(description, name, steps=1_200, batch=batch)
    parser.add_argument("--start", type=Path, help="begin with the weights in this folder")
    parser.add_argument("--training", type=Path, default=FOLDER / name, help="folder for checkpoints")
    parser.set_defaults(output=BUNDLED / name)
    return parser.parse_args()


def step_loss(
    embedder: Embedder, frames: CaptionedFrames, tokenizer: PreTrainedTokenizerFast, size: int
) -> Callable[[int], Tensor]:
    """Return the loss of ``size`` frames as a function of the step."""

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([3, step])
        rows = frames.rows(rng, size)
        scenes = [frames.scenes[row] for row in rows]
        # Captions wrong in one attribute: in a random batch most wrong captions differ in all of them.
        near = [shown_neighbour(scene, name, rng) for scene in scenes for name in ATTRIBUTES]
        captions = frames.captions([*scenes, *near], rng)
        ids = tokenizer(captions, padding="max_length", return_tensors="pt").input_ids
        values = normalised(frames.videos.single_frames(rows, rng.integers(FRAMES, size=len(rows))))
        with sdpa_kernel(SDPBackend.MATH):
            image, text, scale = in_bf16(embedder, values.bfloat16(), ids)
        return contrastive_loss(image.float(), text.float(), scale.float())

    return loss


def facts(args: argparse.Namespace) -> Facts:
    """Return the card's facts; the quality is measured on scenes not used in training."""
    model = OpenClip.load(args.output)
    parts = {part: unseen_scenes(part, 512) for part in PARTS}
    quality = {part: caption_accuracy(model, scenes) for part, scenes in parts.items()}
    moving = caption_accuracy(model, parts["motion-dominant"], motion=True)
    return Facts(
        title="Small CLIP of the shapes world",
        library="open_clip",
        purpose="A CLIP (open_clip's model class and objective) for the metrics on 64 x 64 frames of the "
        "shapes world. `open_clip.create_model_and_transforms('local-dir:FOLDER', require_pretrained=True)` "
        "loads it.",
        command="python -m motionexp.scripts.pretrain.clip",
        origin=f"the weights in {args.start}" if args.start else "nothing",
        data=f"single frames of {args.videos:,} rendered videos (a fifth appearance-dominant, a tenth"
        " with two objects), "
        "half of the captions without the motion; with each frame four captions wrong in one attribute",
        samples=args.batch,
        seeds="weights 0; batches (3, step)",
        training=args.training,
        quality=quality | {"motion-dominant, with motion": moving},
        measured="Share of 512 rendered frames, of scenes not used in training, whose own caption scores "
        "above all that differ from it in one visible attribute: in that one, and in any of them (20 wrong "
        "captions). `held out`: combinations of attributes that no training frame shows. `pairs`: two "
        "objects, of which the first differs.",
    )


def main() -> None:
    """Train, save, measure and write the card."""
    args = arguments(__doc__, "clip", batch=128)
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    clip = CLIP(**settings(len(tokenizer)))
    if args.start:
        clip.load_state_dict(load_file(args.start / "open_clip_model.safetensors"))
    frames = CaptionedFrames(PretrainingVideos(args.videos))
    loss = step_loss(Embedder(clip), frames, tokenizer, args.batch)
    train_embedder(args, clip, loss)
    # open_clip's local-dir layout, weights in half precision.
    args.output.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": [MEAN] * 3, "std": [STD] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": settings(len(tokenizer)), "preprocess_cfg": preprocess}
    (args.output / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: value.detach().half().contiguous() for name, value in clip.state_dict().items()}
    save_file(weights, args.output / "open_clip_model.safetensors")
    tokenizer.save_pretrained(args.output)
    write_card(args.output, facts(args))
    print((args.output / "README.md").read_text())


if __name__ == "__main__":
    main()
