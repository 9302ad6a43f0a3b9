"""Measure the bundled models against ground truth: ``make model-report``.

Captions and seeds are not used in training. First the classifier that judges samples is measured: on renders,
on reconstructions, on blurred and noisy frames, and on videos that it must reject.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from motionexp.backbones import Backbone, load_backbone
from motionexp.config.compose import load
from motionexp.config.schema import BUNDLED
from motionexp.data.base import Edit
from motionexp.data.shapes import grammar
from motionexp.data.shapes.energies import KINDS, energy_of
from motionexp.data.shapes.render import FRAMES, render
from motionexp.data.shapes.scenes import Scene
from motionexp.data.videos import contact_sheet, enlarged, psnr, write_mp4, write_png
from motionexp.diffusion.sampling import SamplerSettings
from motionexp.jobs.evaluation import SampleSettings, sample
from motionexp.metrics.attribute_classifier import AttributeClassifier
from motionexp.metrics.encoders import OpenClip, PreferenceModel
from motionexp.results.terminal import print_grid
from motionexp.scripts.pretrain.bundle import MODELS
from motionexp.scripts.pretrain.captioned import PARTS, caption_accuracy, unseen_scenes
from motionexp.scripts.pretrain.cards import write_classifier_card, write_model_card
from motionexp.scripts.pretrain.classifier import ATTRIBUTES, blurred, noised
from motionexp.scripts.pretrain.preference_model import preference_accuracy

Results = dict[str, dict[str, float]]
CARD_COUNT = 256
"""Samples below which a report is too small to be written into a card."""


def scenes(part: str, count: int) -> list[Scene]:
    """Return scenes of a part: captioned motions, and seeds that only this report uses."""
    return unseen_scenes(part, count, "model report", grammar.CAPTIONED)


def halves(video: np.ndarray) -> list[np.ndarray]:
    """Cut a pair's video into two with one object each, widened to the full frame by repeating the edges."""
    pad = ((0, 0), (0, 0), (16, 16), (0, 0))
    return [np.pad(half, pad, mode="reflect") for half in np.split(video, 2, axis=2)]


def rates(
    classifier: AttributeClassifier, videos: Sequence[np.ndarray], truth: Sequence[Scene]
) -> dict[str, float]:
    """Return the share of videos read right for each attribute; an abstention is wrong, and counted."""
    labels = [classifier.predict(video).labels for video in videos]
    shares = {
        name: float(
            np.mean([row[name] == scene.attributes[name] for row, scene in zip(labels, truth, strict=True)])
        )
        for name in ATTRIBUTES
    }
    abstained = float(np.mean([[row[name] is None for name in ATTRIBUTES] for row in labels]))
    return shares | {"abstained": abstained, "n": float(len(videos))}


def reconstructed(backbone: Backbone, scene: Scene) -> np.ndarray:
    """Return the scene's 16 frames through the VAE and back, uint8."""
    video = render(scene, backbone.frames, period=FRAMES)
    return backbone.decode(backbone.encode(torch.from_numpy(video)[None]))[0][:FRAMES].cpu().numpy()


def judge_classifier(backbone: Backbone, classifier: AttributeClassifier, count: int) -> Results:
    """Return the classifier's rates on renders, degraded renders, and what it must reject."""
    truth = scenes("motion-dominant", count) + scenes("appearance-dominant", count // 4)
    videos = [render(scene) for scene in truth]
    rng = np.random.default_rng(0)
    changed = {
        "renders": videos,
        "VAE reconstructions": [reconstructed(backbone, scene) for scene in truth],
        "blurred, sigma 1": [blurred(video, 1.0) for video in videos],
        "noisy, sigma 10": [noised(video, 10.0, rng) for video in videos],
    }
    results = {name: rates(classifier, some, truth) for name, some in changed.items()}
    corruptions: dict[str, Callable[[int], np.ndarray]] = {
        "frozen": lambda i: np.repeat(videos[i][:1], 16, 0),
        "shuffled": lambda i: videos[i][rng.permutation(16)],
        "mush (blend of two)": lambda i: ((videos[i].astype(int) + videos[i - 1]) // 2).astype(np.uint8),
        "mush (blur, sigma 8)": lambda i: blurred(videos[i], 8.0),
        "mush (noise, sigma 100)": lambda i: noised(videos[i], 100.0, rng),
    }
    for name, corrupt in corruptions.items():
        predicted = [classifier.predict(corrupt(index)).labels for index in range(len(videos))]
        # A frozen or shuffled video shows its appearance as before: only the motion must be rejected.
        names = ("motion",) if name in ("frozen", "shuffled") else tuple(ATTRIBUTES)
        rejected = {label: float(np.mean([row[label] is None for row in predicted])) for label in names}
        results[f"rejected: {name}"] = rejected | {"n": float(len(videos))}
    return results


def judge_vae(backbone: Backbone, count: int) -> Results:
    """Return the mean PSNR in dB of reconstructions, by contrast."""
    results = {}
    for part in ("motion-dominant", "appearance-dominant"):
        values = [psnr(reconstructed(backbone, scene), render(scene)) for scene in scenes(part, count)]
        results[f"VAE, {part}"] = {"psnr": float(np.mean(values)), "n": float(np.size(values))}
    return results


def judge_scoring_models(count: int) -> Results:
    """Return how often the CLIP picks a frame's caption among 21, and the scorer the better of two frames.

    The columns of single attributes are the shares among the captions, or frames, that differ in it.
    """
    clip, scorer = OpenClip.load(), PreferenceModel.load()
    results = {}
    for part in PARTS:
        truth = unseen_scenes(part, count)
        results[f"CLIP, {part}"] = caption_accuracy(clip, truth) | {"n": float(count)}
        results[f"scorer, {part}"] = preference_accuracy(scorer, truth) | {"n": float(count)}
    return results


def judge_samples(
    backbone: Backbone,
    classifier: AttributeClassifier,
    counts: dict[str, int],
    settings: SampleSettings,
    folder: Path,
) -> Results:
    """Sample captions of every part; return how often each attribute is right, and write contact sheets."""
    results: Results = {}
    for part, count in counts.items():
        truth = scenes(part, count)
        edits = [Edit("caption", scene.caption) for scene in truth]
        samples = sample(backbone, None, edits, settings, indices=range(len(truth)))
        videos = [video.frames[:FRAMES] for video in track(samples, f"sampling {part}", count)]
        if part == "pairs":
            cut = [half for video in videos for half in halves(video)]
            singles = [replace(scene, things=(thing,)) for scene in truth for thing in scene.things]
            results["samples, pairs (each object)"] = rates(classifier, cut, singles)
        else:
            results[f"samples, {part}"] = rates(classifier, videos, truth)
        sheets = [contact_sheet(video[::2], columns=8) for video in videos[:16]]
        write_png(folder / f"samples-{part}.png", np.concatenate(sheets))
        write_mp4(folder / f"samples-{part}.mp4", enlarged(videos[0]), 8)
    return results


def energy_table(backbone: Backbone) -> list[dict[str, float | str]]:
    """Return the energies of every factor in the backbone's latents, with the predicted log-SNR and t."""
    log_snr = np.array([float(backbone.schedule.log_snr(t)) for t in range(1000)])

    def encode(video: np.ndarray) -> np.ndarray:
        return backbone.encode(torch.from_numpy(video)[None]).float().cpu().numpy()

    columns = ("contrast", "factor", "energy", "log_snr")
    return [
        {name: getattr(row, name) for name in columns} | {"t": float((log_snr > row.log_snr).sum())}
        for row in (energy_of(*kind, encode, frames=backbone.frames) for kind in KINDS)
    ]


def show(title: str, results: Results, table: Sequence[Mapping[str, float | str]] = ()) -> None:
    """Print what was measured of one model, and the energies in its latents."""
    columns = [*ATTRIBUTES, "all", "abstained", "psnr", "n"]
    measured = [
        [name, *(f"{row[column]:.4g}" if column in row else "" for column in columns)]
        for name, row in results.items()
    ]
    print_grid(Console(), ["measured", *columns], measured, title=title)
    if table:
        predicted = [
            [value if isinstance(value, str) else f"{value:.4g}" for value in line.values()] for line in table
        ]
        header = ["contrast", "factor", "energy", "log-SNR", "t"]
        print_grid(Console(), header, predicted, labels=2, title="predicted: where each factor is set")


def report_model(name: str, classifier: AttributeClassifier, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one bundled text-to-video model; returns its results and its energies."""
    folder = args.output / name
    folder.mkdir(parents=True, exist_ok=True)
    config = load([f"model={name}"]).model
    backbone = load_backbone(config.path, precision=args.precision, name=name)
    guidance = args.guidance or config.guidance_scale
    settings = SampleSettings(SamplerSettings(steps=args.steps or config.steps, guidance_scale=guidance))
    counts = dict.fromkeys(("motion-dominant", "held_out", "appearance-dominant", "pairs"), args.count // 4)
    counts["motion-dominant"] = args.count
    results = judge_vae(backbone, max(args.count // 8, 1))
    results |= judge_samples(backbone, classifier, counts, settings, folder)
    table = energy_table(backbone)
    show(name, results, table)
    if args.count >= CARD_COUNT:
        write_model_card(name, results, settings.sampler)
    return {"results": results, "energies": table}


def main() -> None:
    """Measure, print, and write ``report.json`` and pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    trained = [name for name in MODELS if (BUNDLED / name).is_dir()]
    parser.add_argument("models", nargs="*", default=trained, help=f"of {', '.join(MODELS)}")
    parser.add_argument(
        "--count", type=int, default=256, help="motion-dominant samples; other parts have a quarter"
    )
    parser.add_argument("--steps", type=int, help="sampling steps; the model's own unless given")
    parser.add_argument("--guidance", type=float, help="the model's own unless given")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path, default=Path("outputs/model-report"))
    args = parser.parse_args()
    classifier = AttributeClassifier.load(BUNDLED / "classifier")
    judged = judge_classifier(load_backbone(), classifier, args.count)
    instruments = judged | judge_scoring_models(args.count)
    report: dict[str, dict[str, Any]] = {"instruments": {"results": instruments}}
    show("instruments", instruments)
    if args.count >= CARD_COUNT:
        write_classifier_card(judged)
    for name in args.models:
        report[name] = report_model(name, classifier, args)
        (args.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"pictures and report.json in {args.output}")


if __name__ == "__main__":
    main()
