"""The table of which metric to trust: its numbers against closed forms, its rows from real renders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motionexp.data.shapes.splits import ShapesReferences
from motionexp.errors import InputError
from motionexp.metrics.scorer import Scorer
from motionexp.results.formats import to_markdown
from motionexp.results.layout_file import read_layout
from motionexp.results.published import write_published
from motionexp.results.rows import Row
from motionexp.scripts import metric_trust
from motionexp.scripts.metric_trust import CHANGES, answers, correlations, dose_rows, spearman, trust_table
from motionexp.scripts.perturbations import PERTURBATIONS

ROOT = Path(__file__).parents[2]
COMMON = {"metric_version": 1, "suite": "shapes", "model": "render", "tau": 0.0, "steps": 2}


def row(metric, value, **fields):
    reason = "no" if np.isnan(value) else ""
    return Row(metric=metric, value=value, reason=reason, **COMMON | {"method": "lora"} | fields)


def doses(answer_of):
    """Rows in which {metric: {change: difference at the largest dose}} holds of every reference."""
    return [
        row(
            metric, 5.0 + (difference * (number + 1) / 1.5 if dose else 0.0), method="dose",
            strata={"change": change, "dose": f"{dose:g}", "split": "tuning"},
            reference=f"r{number}", sample_id=f"{change}{dose}{number}",
        )
        for metric, changes in answer_of.items()
        for change, difference in changes.items()
        for number in range(2)
        for dose in (PERTURBATIONS[change].doses[0], PERTURBATIONS[change].doses[-1])
    ]  # fmt: skip


def samples(references=2, count=9):
    """Real samples whose metric `motion` ranks them as the truth does, and `leak` as leakage does."""
    rng, rows = np.random.default_rng(0), []
    for reference, index in np.ndindex(references, count):
        similarity, leakage, chance, noise = rng.random(4)
        values = {
            "velocity_similarity_counted": similarity,
            "nuisance_similarity": leakage + chance,
            "nuisance_chance": chance,
            "motion": 10 * similarity**3,
            "leak": -np.exp(leakage),
            "constant": 1.0,
            "noise": noise,
        }
        fields = {"reference": f"r{reference}", "sample_id": f"{reference}{index}", "seed": index}
        fields |= {"strata": {"split": "tuning"}, "edit_kind": "style"}
        rows += [row(name, value, **fields) for name, value in values.items()]
    return rows


def test_ranks_are_those_of_enough_pairs_without_nan():
    assert spearman([1, 2, np.nan, 3, 4], [1, 4, 0, 9, 16]) == pytest.approx(1)
    assert np.isnan(spearman([1, 2, 3], [1, 2, 3]))
    assert np.isnan(spearman([1, 1, 1, 1], [1, 2, 3, 4]))


def test_samples_are_ranked_beside_the_truth_within_each_reference():
    motion, leakage = (correlations(samples(), truth) for truth in metric_trust.TRUTHS)
    assert motion["motion"].mean == pytest.approx(-1)
    assert leakage["leak"].mean == pytest.approx(-1)
    assert leakage["motion"].mean != pytest.approx(-1, abs=0.1)
    assert (motion["constant"].n, motion["constant"].missing) == (0, 2)
    assert "velocity_similarity_counted" not in motion
    assert motion["noise"].clusters == 2


def test_answers_are_shares_of_the_largest_and_small_ones_are_blindness():
    changes = dict.fromkeys(CHANGES, 0.0)
    rows = doses(
        {
            "motion": changes | {"frozen": -8.0, "path bent": -2.0, "blurred": 0.1},
            "leak": changes | {"hue turned": 0.5},
            "silent": dict.fromkeys(CHANGES, np.nan),
        }
    )
    shares = answers(rows)
    assert shares["motion"]["frozen"].mean == pytest.approx(-1)
    assert shares["motion"]["path bent"].mean == pytest.approx(-0.25)
    assert shares["leak"]["hue turned"].mean == pytest.approx(1)
    table = trust_table(rows + samples())
    blind = {line.labels[0]: line.labels[1] for line in table.blocks[0].lines}
    assert blind["motion"] == "frames shuffled, hue turned, identity swapped, blurred"
    assert blind["leak"] == "path bent, frames shuffled, frozen, identity swapped, blurred"
    assert blind["silent"] == "all: it abstains"
    assert "| motion |" in to_markdown(table)
    assert table.blocks[0].lines[0].n == "18 (2)"
    with pytest.raises(InputError, match="experiment=metric-trust"):
        trust_table(samples())


def test_doses_are_rows_of_every_value_on_real_renders(monkeypatch):
    monkeypatch.setattr(metric_trust, "CHANGES", ("frozen", "path bent"))
    reader = ShapesReferences("tuning")
    scorer = Scorer(["flow_similarity", "trajectory"])
    rows = dose_rows([reader.read(reader.names()[index]) for index in (0, 4)], scorer)
    values = [value for metric in scorer.metrics.values() for value in metric.values]
    assert len(rows) == 2 * (2 + 5) * len(values)
    assert len({row.score_id for row in rows}) == len(rows)
    shares = answers(rows)
    assert shares["velocity_similarity_counted"]["frozen"].mean == pytest.approx(-1)
    assert -1 < shares["flow_similarity"]["path bent"].mean < 0
    assert np.isnan(shares["velocity_similarity"]["frozen"].mean)


def test_the_table_is_made_of_published_rows(tmp_path, capsys):
    (tmp_path / "experiments").mkdir()
    layout = tmp_path / "experiments" / "metric-trust.yaml"
    layout.write_bytes((ROOT / "experiments" / "metric-trust.yaml").read_bytes())
    assert metric_trust.main([str(layout)]) == 2
    published = tmp_path / read_layout(layout).rows
    published.parent.mkdir(parents=True)
    rows = doses({"motion": dict.fromkeys(CHANGES, 1.0)}) + samples()
    rows[0] = replace(rows[0], dirty=True)
    write_published(published, rows)
    capsys.readouterr()
    assert metric_trust.main([str(layout)]) == 0
    assert "metric-trust.md" in capsys.readouterr().out
    text = published.with_suffix(".md").read_text()
    assert "| motion |" in text
    assert f"1 of {len(rows)} rows are of a working tree with uncommitted changes" in text
    assert published.with_suffix(".csv").exists()
