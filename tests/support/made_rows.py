"""Layouts and rows of two small experiments: windows with adapter scales, and ranks with a default row."""

from itertools import product
from pathlib import Path

from motionexp.config.ids import score_id
from motionexp.results.rows import Row

SUPPORT = Path(__file__).parent
TOY_LAYOUT = (SUPPORT / "toy.yaml").read_text(encoding="utf-8")
TOY_METRICS = (
    *("text_alignment", "velocity_similarity", "replaced_attributes"),
    *("nuisance_similarity", "nuisance_chance"),
)


def toy_value(metric: str, tau: int, scale: float, reference: int, seed: int) -> float:
    """Motion and leakage grow with the scale, leakage twice as fast without a window."""
    on = scale * (tau < 1000)
    offset = reference / 10 + seed / 100
    return {
        "text_alignment": 27 + offset,
        "velocity_similarity": 0.2 + offset + 0.5 * on,
        "replaced_attributes": 0.125 + on * (0.4 if tau == 0 else 0.2),
        "nuisance_similarity": offset + 0.3 * on,
        "nuisance_chance": offset,
    }[metric]


def made_row(**changes) -> Row:
    """A row of one sample of tiny_latte, with these changes."""
    fields = {
        "metric": "text_alignment",
        "metric_version": 1,
        "value": 27.5,
        "suite": "shapes",
        "reference": "a",
        "edit_kind": "style",
        "seed": 0,
        "model": "tiny_latte",
        "method": "lora",
        "tau": 700.0,
        "steps": 50,
        "precision": "fp32",
        "weights_hash": "w",
    }
    return Row(**fields | changes)


def toy_rows() -> list[Row]:
    rows = []
    settings = ((1000, 1.0), (700, 0.5), (700, 1.0), (0, 0.5), (0, 1.0))
    subjects = product(range(4), ("style", "background"), range(2))
    for (tau, scale), (reference, edit_kind, seed) in product(settings, subjects):
        sample = f"{tau}-{scale}-{reference}-{edit_kind}-{seed}"
        rows += [
            made_row(
                metric=metric,
                value=toy_value(metric, tau, scale, reference, seed),
                score_id=score_id(sample, metric=metric, version=1),
                reference=f"r{reference}",
                strata={"contrast": "appearance-dominant" if reference == 3 else "motion-dominant"},
                edit_kind=edit_kind,
                seed=seed,
                sample_id=sample,
                sample_file=f"media/{sample}.mp4",
                adapter_steps=50 if tau == 0 else 15 * (tau < 1000),
                tau=float(tau),
                adapter_scale=scale,
                settings={"tau": tau, "rank": 4},
            )
            for metric in TOY_METRICS
        ]
    return rows


RANK_LAYOUT = (SUPPORT / "ranks.yaml").read_text(encoding="utf-8")
RANK_METRICS = (
    *("text_alignment", "frame_consistency_consecutive", "pick_score", "velocity_similarity"),
    *("flow_similarity", "replaced_attributes", "nuisance_similarity", "nuisance_chance"),
)


def rank_row(metric: str, reference: int, tau: float = 700.0, rank: int = 4, **changes) -> Row:
    model = {"steps": 25, "train_steps": 100, "learning_rate": 0.01, "full_rank_learning_rate": 0.001}
    settings = {"rank": rank, "steps": 25, "learning_rate": 0.01, "projections": ["v", "o"], "frames": 16}
    # Rank 1 is a tenth lower on every reference, rank 16 higher on some references and lower on others.
    effect = {1: -0.1, 4: 0.0, 16: 0.1 * (-1) ** reference}[rank] if metric == "velocity_similarity" else 0.0
    fields = {
        "metric": metric,
        "value": 0.5 + reference / 10 + effect,
        "score_id": f"{metric} {reference} {tau} {rank} {changes}",
        "reference": f"r{reference}",
        "reference_hash": f"hash {reference}",
        "strata": {"contrast": "motion-dominant"},
        "method": "base" if tau == 1000 else "lora",
        "tau": tau,
        "steps": 25,
        "train_steps": 100,
        "settings": {**settings, "model": {**model, "frames": 16, "height": 64, "width": 64}},
    }
    return made_row(**fields | changes)


def rank_rows(references: int = 6) -> list[Row]:
    settings = [(1000.0, 4), (700.0, 4), (700.0, 1), (700.0, 16)]
    subjects = product(RANK_METRICS, range(references), settings)
    return [rank_row(metric, reference, *setting) for metric, reference, setting in subjects]
