"""Train the small CLIP through open_clip's own model and objective: ``python -m motionexp.pretrain.clip``.

Beside the contrastive loss over the batch (Radford et al., 2021) each frame is told from captions that differ from
its own in one attribute, as in NegCLIP (Yuksekgonul et al., 2023): in a random batch almost none are that near.
"""

import argparse
import json
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

from motionexp.config import BUNDLED
from motionexp.data.shapes.grammar import ATTRIBUTES, vocabulary
from motionexp.data.shapes.render import FRAMES, SIZE
from motionexp.metrics.features import OpenClip
from motionexp.pretrain.captioned import CaptionedFrames, caption_accuracy, shown_neighbour, unused_scenes
from motionexp.pretrain.loop import Schedule, in_bf16, train
from motionexp.pretrain.videos import FOLDER, PretrainingVideos

CONTEXT = 24
MEAN, STD = 0.35, 0.2
SPECIAL = ("<pad>", "</s>", "<unk>")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each word of the grammar, which ends each caption with ``</s>``."""
    ids = {word: number for number, word in enumerate((*SPECIAL, *vocabulary()))}
    words = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", ids["</s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=CONTEXT
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


def optimisers(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the transformer layers' matrices, AdamW for the rest."""
    matrices, rest = [], []
    for name, value in model.named_parameters():
        (matrices if value.ndim == 2 and "layers." in name.replace("resblocks", "layers") else rest).append(value)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


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


def save(clip: CLIP, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save in open_clip's local-dir layout, weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": [MEAN] * 3, "std": [STD] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": settings(len(tokenizer)), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: value.detach().half().contiguous() for name, value in clip.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Train, save and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--batch", type=int, default=96, help="frames a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--videos", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, help="stop after this time; the next call goes on")
    parser.add_argument("--start", type=Path, help="begin with the weights in this folder")
    parser.add_argument("--training", type=Path, default=FOLDER / "clip", help="for checkpoints")
    parser.add_argument("--output", type=Path, default=BUNDLED / "clip")
    args = parser.parse_args()
    frames = CaptionedFrames(PretrainingVideos(args.videos))
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    clip = CLIP(**settings(len(tokenizer)))
    if args.start:
        clip.load_state_dict(load_file(args.start / "open_clip_model.safetensors"))
    embedder = Embedder(clip)

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([3, step])
        rows = frames.rows(rng, args.batch)
        scenes = [frames.scenes[row] for row in rows]
        near = [shown_neighbour(scene, name, rng) for scene in scenes for name in ATTRIBUTES]
        ids = tokenizer(
            frames.captions([*scenes, *near], rng), padding="max_length", return_tensors="pt"
        ).input_ids
        values = normalised(frames.videos.frames(rows, rng.integers(FRAMES, size=len(rows))))
        with sdpa_kernel(SDPBackend.MATH):
            image, text, scale = in_bf16(embedder, values.bfloat16(), ids)
        return contrastive_loss(image.float(), text.float(), scale.float())

    schedule = Schedule(args.steps, warmup=100, decay=0.5)
    averaged = train(
        clip, optimisers(clip, args.rate), loss, schedule, args.training, ema=0.99, seconds=args.seconds
    )
    averaged.copy_to(clip)
    save(clip, tokenizer, args.output)
    model = OpenClip.load(args.output)
    for contrast, objects in (("natural", 1), ("poster", 1), ("natural", 2)):
        print(contrast, objects, caption_accuracy(model, unused_scenes(512, contrast, objects)))


if __name__ == "__main__":
    main()
