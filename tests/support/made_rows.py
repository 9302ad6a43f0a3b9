"""Layouts and rows of two small experiments: windows with adapter scales, and ranks with a default row."""

from dataclasses import replace

from motionexp.config.ids import score_id
from motionexp.results.rows import Row

TOY_LAYOUT = """
question: Does the window leak less?
cost: a minute
sweep: ["tau=0,700,1000"]
rows: results/shapes/toy.jsonl
select: {suite: shapes, precision: fp32}
settings:
  base: {labels: [tiny_latte, "1000"], select: {tau: "1000"}, base: true}
  window: {labels: [tiny_latte, "700"], select: {tau: "700", adapter_scale: "1"}}
  every: {labels: [tiny_latte, "0"], select: {tau: "0", adapter_scale: "1"}}
columns:
  text: {label: Text align. ↑, metric: text_alignment}
  motion: {label: motion, metric: velocity_similarity, digits: 3}
  leak: {label: leakage (replaced), metric: replaced_attributes, minus: base, digits: 3}
  nuisance: {label: leakage (nuisance), metric: nuisance_similarity, minus: nuisance_chance, digits: 3}
tables:
  - file: results/shapes/toy
    title: "Toy: 100% of τ & co_."
    labels: [Backbone, τ]
    settings: [base, window, every]
    columns: [text, motion, leak, nuisance]
    groups:
      - {title: motion-dominant, select: {contrast: motion-dominant}}
      - {title: appearance-dominant, select: {contrast: appearance-dominant}}
      - {title: "motion-dominant, style edits", select: {contrast: motion-dominant, edit_kind: style|object}}
    differences:
      - {labels: ["700 - 0", ""], ours: window, theirs: every}
    reported:
      - {source: "B, Table 1", labels: [Latte, "700"], values: {text: 31.96}}
    decision:
      motion: motion
      leakage: [leak]
      levels: [0.1]
      scales: [0.5, 1]
      curves: [window, every]
      against: [every]
    notes: [A toy.]
"""
TOY_METRICS = (
    "text_alignment",
    "velocity_similarity",
    "replaced_attributes",
    "nuisance_similarity",
    "nuisance_chance",
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


def toy_rows() -> list[Row]:
    rows = []
    for tau, scale in ((1000, 1.0), (700, 0.5), (700, 1.0), (0, 0.5), (0, 1.0)):
        for reference in range(4):
            for edit_kind in ("style", "background"):
                for seed in range(2):
                    sample = f"{tau}-{scale}-{reference}-{edit_kind}-{seed}"
                    rows += [
                        Row(
                            metric=metric,
                            metric_version=1,
                            value=toy_value(metric, tau, scale, reference, seed),
                            score_id=score_id(sample, metric=metric, version=1),
                            suite="shapes",
                            reference=f"r{reference}",
                            strata={
                                "contrast": "appearance-dominant" if reference == 3 else "motion-dominant"
                            },
                            edit_kind=edit_kind,
                            seed=seed,
                            sample_id=sample,
                            sample_file=f"media/{sample}.mp4",
                            adapter_steps=50 if tau == 0 else 15 * (tau < 1000),
                            model="tiny_latte",
                            method="lora",
                            tau=float(tau),
                            steps=50,
                            adapter_scale=scale,
                            settings={"tau": tau, "rank": 4},
                            precision="fp32",
                            weights_hash="w",
                        )
                        for metric in TOY_METRICS
                    ]
    return rows


RANK_LAYOUT = """
question: Which rank?
cost: a minute
sweep: ["model=tiny_latte tau=700 rank=1,4"]
rows: results/shapes/mine.jsonl
select: {suite: shapes}
settings:
  base: {labels: [base], select: {tau: "1000"}, base: true}
  four: {labels: ["4"], select: {tau: "700"}}
  one: {labels: ["1"], select: {tau: "700", rank: "1"}}
  sixteen: {labels: ["16"], select: {tau: "700", rank: "16"}}
tables:
  - file: results/shapes/mine
    title: Rank
    labels: [rank]
    settings: [base, four, one, sixteen]
    default: four
    groups: [{title: motion-dominant, select: {contrast: motion-dominant}}]
"""
RANK_METRICS = (
    *("text_alignment", "frame_consistency_consecutive", "pick_score", "velocity_similarity"),
    *("flow_similarity", "replaced_attributes", "nuisance_similarity", "nuisance_chance"),
)


def rank_row(metric: str, reference: int, tau: float = 700.0, rank: int = 4, **changes) -> Row:
    model = {"steps": 25, "train_steps": 100, "learning_rate": 0.01, "full_rank_learning_rate": 0.001}
    settings = {"rank": rank, "steps": 25, "learning_rate": 0.01, "projections": ["v", "o"], "frames": 16}
    # Rank 1 is a tenth lower on every reference, rank 16 higher on some references and lower on others.
    effect = {1: -0.1, 4: 0.0, 16: 0.1 * (-1) ** reference}[rank] if metric == "velocity_similarity" else 0.0
    row = Row(
        metric=metric,
        metric_version=1,
        value=0.5 + reference / 10 + effect,
        score_id=f"{metric} {reference} {tau} {rank} {changes}",
        suite="shapes",
        reference=f"r{reference}",
        reference_hash=f"hash {reference}",
        strata={"contrast": "motion-dominant"},
        edit_kind="style",
        seed=0,
        model="tiny_latte",
        method="base" if tau == 1000 else "lora",
        tau=tau,
        steps=25,
        train_steps=100,
        settings={**settings, "model": {**model, "frames": 16, "height": 64, "width": 64}},
        precision="fp32",
        weights_hash="w",
    )
    return replace(row, **changes)


def rank_rows(references: int = 6) -> list[Row]:
    settings = [(1000.0, 4), (700.0, 4), (700.0, 1), (700.0, 16)]
    return [
        rank_row(metric, number, tau, rank)
        for metric in RANK_METRICS
        for number in range(references)
        for tau, rank in settings
    ]
