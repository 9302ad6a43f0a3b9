"""Train the small preference scorer of PickScore's form.

A CLIP (transformers' ``CLIPModel``) learns which of two frames fits a caption better, by the softmax of their
two scores (Kirstain et al., 2023, section 4). The preferred frame shows the caption's scene. The negative
shows a scene that differs in one attribute, or the same frame after a corruption. A contrastive loss
over the batch replaces the pretrained CLIP that PickScore starts from.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from open_clip import ClipLoss
from rich.progress import track
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from motionexp.data.shapes.grammar import ATTRIBUTES
from motionexp.data.shapes.render import FRAMES, SIZE, render
from motionexp.data.shapes.scenes import Scene, pretraining_scene, seeded
from motionexp.metrics.encoders import ImageTextModel, PreferenceModel
from motionexp.scripts.perturbations import off_colour
from motionexp.scripts.pretrain.captioned import PARTS, CaptionedFrames, shown_neighbour, unseen_scenes
from motionexp.scripts.pretrain.cards import Facts, write_card
from motionexp.scripts.pretrain.classifier import blurred, noised
from motionexp.scripts.pretrain.clip import CONTEXT, MEAN, STD, arguments, normalised, train_embedder
from motionexp.scripts.pretrain.clip_text import build_tokenizer
from motionexp.scripts.pretrain.loop import in_bf16
from motionexp.scripts.pretrain.videos import CHUNK, FOLDER, PretrainingVideos, save_array


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Return an untrained scorer: the bundled CLIP's size with one layer fewer in each tower."""
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": CONTEXT, "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "image_size": SIZE, "patch_size": 8, "hidden_size": 128, "intermediate_size": 512,
        "num_hidden_layers": 3, "num_attention_heads": 2, "hidden_act": "gelu",
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


class Embedder(nn.Module):
    """Unit features of frames and token ids in one call, as ``in_bf16`` needs."""

    def __init__(self, scorer: CLIPModel) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, values: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map frames (B, 3, 64, 64), ids and mask (N, L) to (B, 64), (N, 64) and their products' scale."""
        image = self.scorer.get_image_features(values).pooler_output
        text = self.scorer.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return normalize(image, dim=-1), normalize(text, dim=-1), self.scorer.logit_scale.exp()


def negative(scene: Scene, index: int) -> tuple[Scene, int]:
    """Return a negative of pretraining scene ``index``, different in one attribute, and a frame's index."""
    rng = seeded("rival", index)
    attribute = str(rng.choice(list(ATTRIBUTES)))
    return shown_neighbour(scene, attribute, rng), int(rng.integers(FRAMES))


def _negative_frames(first: int) -> np.ndarray:
    negatives = [negative(pretraining_scene(index), index) for index in range(first, first + CHUNK)]
    return np.stack([render(scene, select=[frame])[0] for scene, frame in negatives])


def negative_frames(count: int, path: Path) -> np.ndarray:
    """Return a frame of each scene's negative, uint8 (count, 64, 64, 3), rendered once to ``path``."""
    if not path.exists():
        firsts = range(0, count, CHUNK)
        with ProcessPoolExecutor() as pool:
            chunks = list(track(pool.map(_negative_frames, firsts), f"rendering {path}", len(firsts)))
        save_array(path, np.concatenate(chunks))
    return np.load(path, mmap_mode="r")


CORRUPTIONS = ("blurred", "noisy", "smeared", "off-colour")


def smeared(frame: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Return a frame (H, W, 3) averaged along a line of ``length`` pixels at ``angle`` radians."""
    reach = int(length / 2) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for place in np.linspace(-length / 2, length / 2, 4 * reach):
        kernel[round(reach + place * np.sin(angle)), round(reach + place * np.cos(angle))] += 1
    return cv2.filter2D(frame, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def corrupted(frame: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Corrupt a uint8 frame (H, W, 3) visibly, by one of ``CORRUPTIONS`` and a random amount."""
    if kind == "blurred":
        return blurred(frame[None], rng.uniform(0.8, 4))[0]
    if kind == "noisy":
        return noised(frame, rng.uniform(8, 60), rng)
    if kind == "smeared":
        return smeared(frame, rng.uniform(4, 20), rng.uniform(0, np.pi))
    return off_colour(frame, rng.uniform(60, 300), rng.uniform(0.3, 1.5))


def preference_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Return the loss of N scenes, their N negatives and the N scenes' corrupted frames.

    Args:
        image: (3N, D) unit features in that order.
        text: (2N, D), captions of the scenes and of their negatives.
        scale: what products of features are multiplied by.
    """
    positive, negative, bad = image.chunk(3)
    contrastive: Tensor = ClipLoss()(image[: len(text)], text, scale)
    # Row i of all three is one comparison, (3 N, E). A negative is the better frame for its own caption.
    better = torch.cat([positive, negative, positive])
    worse = torch.cat([negative, positive, bad])
    judging = torch.cat([text, text[: len(positive)]])
    # (3 N, 2): the first column is the better frame, class 0.
    scores = scale * torch.stack([(better * judging).sum(-1), (worse * judging).sum(-1)], 1)
    return contrastive + cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))


def preference_accuracy(scorer: ImageTextModel, scenes: list[Scene]) -> dict[str, float]:
    """Measure how often the frame of a caption's scene is preferred to another.

    Args:
        scorer: maps frames and captions to unit vectors.
        scenes: of one frame of each, at a random time.

    Returns:
        shares in 0..1: for each attribute, against the frame with this attribute changed; for each
        corruption, against the corrupted frame; ``all``: the mean of these shares.
    """
    right: dict[str, list[bool]] = {name: [] for name in (*ATTRIBUTES, *CORRUPTIONS)}
    rng = np.random.default_rng(0)
    for scene in scenes:
        frame = int(rng.integers(FRAMES))
        clean = render(scene, select=[frame])[0]
        negatives = [render(shown_neighbour(scene, name, rng), select=[frame])[0] for name in ATTRIBUTES]
        frames = np.stack([clean, *negatives, *(corrupted(clean, kind, rng) for kind in CORRUPTIONS)])
        clean_score, *scores = scorer.embed_frames(frames) @ scorer.embed_captions([scene.still_caption])[0]
        for name, score in zip(right, scores, strict=True):
            right[name].append(bool(clean_score > score))
    rates = {name: float(np.mean(values)) for name, values in right.items()}
    return rates | {"all": float(np.mean(list(rates.values())))}


def step_loss(
    embedder: Embedder, frames: CaptionedFrames, negatives: np.ndarray, tokenizer: CLIPTokenizer, size: int
) -> Callable[[int], Tensor]:
    """Return the loss of ``size`` scenes, with three frames of each, as a function of the step."""

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([5, step])
        rows = frames.rows(rng, size)
        scenes = [frames.scenes[row] for row in rows]
        pairs = [negative(scene, int(row)) for scene, row in zip(scenes, rows, strict=True)]
        clean = frames.videos.single_frames(rows, np.array([frame for _, frame in pairs]))
        kinds = (CORRUPTIONS[rng.integers(len(CORRUPTIONS))] for _ in clean)  # drawn frame by frame
        bad = np.stack([corrupted(frame, kind, rng) for frame, kind in zip(clean, kinds, strict=True)])
        captions = frames.captions([*scenes, *(scene for scene, _ in pairs)], rng)
        tokens = tokenizer(captions, padding=True, return_tensors="pt")
        values = normalised(np.concatenate([clean, negatives[rows], bad])).bfloat16()
        with sdpa_kernel(SDPBackend.MATH):
            image, text, scale = in_bf16(embedder, values, tokens.input_ids, tokens.attention_mask)
        return preference_loss(image.float(), text.float(), scale.float())

    return loss


def facts(args: argparse.Namespace) -> Facts:
    """Return the card's facts; the quality is measured on scenes not used in training."""
    model = PreferenceModel.load(args.output)
    return Facts(
        title="Small preference scorer of the shapes world",
        library="transformers",
        purpose="A preference scorer of PickScore's form for 64 x 64 frames of the shapes world: a "
        "`CLIPModel` with its `CLIPProcessor`. The score of a frame and a caption is exp(logit scale) x "
        "cosine.",
        command="python -m motionexp.scripts.pretrain.preference_model",
        origin=f"the weights in {args.start}" if args.start else "nothing",
        data=f"pairs of frames of {args.videos:,} rendered videos: a frame of the caption's scene is "
        "preferred to one of a scene that differs in one attribute, and to itself blurred, noisy, smeared or "
        "off-colour",
        samples=3 * args.batch,
        seeds="weights 1; batches (5, step)",
        training=args.training,
        quality={part: preference_accuracy(model, unseen_scenes(part, 256)) for part in PARTS},
        measured="Held-out accuracy: share of pairs in which the right frame scores higher, of 256 scenes "
        "not used in training; over a frame with that attribute changed, and over the same frame corrupted. "
        "`held out`: combinations of attributes that no training frame shows. `pairs`: two objects, of which "
        "the first differs.",
    )


def main() -> None:
    """Train, save, measure and write the card."""
    args = arguments(__doc__, "scorer", batch=48)
    tokenizer = build_tokenizer(CONTEXT)
    torch.manual_seed(1)
    scorer = CLIPModel.from_pretrained(args.start, dtype=torch.float32) if args.start else build(tokenizer)
    frames = CaptionedFrames(PretrainingVideos(args.videos))
    negatives = negative_frames(len(frames.scenes), FOLDER / f"negatives-{len(frames.scenes)}.npy")
    loss = step_loss(Embedder(scorer), frames, negatives, tokenizer, args.batch)
    train_embedder(args, scorer, loss)
    scorer.half().save_pretrained(args.output)
    images = CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size=SIZE, image_mean=[MEAN] * 3, image_std=[STD] * 3
    )
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(args.output)
    write_card(args.output, facts(args))
    print((args.output / "README.md").read_text())


if __name__ == "__main__":
    main()
