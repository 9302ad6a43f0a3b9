"""README's claims follow from the published rows; what a claim cannot be computed from is named."""

import pytest

from motionexp.files import ROOT
from motionexp.results.claims_table import (
    CLAIMS,
    END,
    README,
    START,
    claims_csv,
    claims_markdown,
    with_claims,
)
from motionexp.results.designs import record_design
from motionexp.results.layout_file import read_layout
from motionexp.scripts.claims import findings, main
from tests.support.made_rows import RANK_LAYOUT, rank_rows
from tests.support.published_lines import to_published

CLAIM = """claims:
  - statement: Rank 1 has less motion
    differences:
      - {table: mine, group: motion-dominant, ours: one, theirs: four, expected: {motion: less}}
"""
BOUNDARY = "claims: [{statement: Motion is set first, boundaries: [tiny_latte]}]\n"


def test_readme_and_the_committed_tables_are_those_of_the_published_rows():
    claims = list(findings(ROOT))
    assert (ROOT / CLAIMS.with_suffix(".md")).read_text(encoding="utf-8") == claims_markdown(claims)
    assert (ROOT / CLAIMS.with_suffix(".csv")).read_text(encoding="utf-8") == claims_csv(claims)
    readme = (ROOT / README).read_text(encoding="utf-8")
    assert readme == with_claims(readme, claims)


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "README.md").write_text(f"{START}\n{END}\n")
    (tmp_path / "experiments" / "mine.yaml").write_text(RANK_LAYOUT + CLAIM)
    (tmp_path / "results" / "shapes").mkdir(parents=True)
    (tmp_path / "results" / "shapes" / "mine.jsonl").write_text(to_published(rank_rows()))
    path = tmp_path / "experiments" / "mine.yaml"
    record_design(path, read_layout(path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(named: str, capsys) -> bool:
    """Whether the command ends with exit code 2 and one line that has all these words."""
    assert main([]) == 2
    text = capsys.readouterr().err
    return len(text.splitlines()) == 1 and all(word in text for word in named.split())


def test_the_command_writes_the_claims_of_all_experiments(root, capsys):
    assert main([]) == 0
    tables = [f"results/claims.{suffix}" for suffix in ("md", "tex", "csv")]
    assert capsys.readouterr().out.split() == [*tables, "README.md"]
    assert "| Rank 1 has less motion | motion −0.10 [−0.10, −0.10] | 6 | < 0.001 | shown |" in (
        root / "README.md"
    ).read_text(encoding="utf-8")


def test_what_has_no_rows_or_changed_after_them_is_one_line(root, capsys):
    path = root / "experiments" / "mine.yaml"
    path.write_text((RANK_LAYOUT + CLAIM).replace("rank=1,4", "rank=1,2"))
    assert refused("mine.yaml sweep changed", capsys)
    path.write_text(RANK_LAYOUT + CLAIM.replace("motion: less", "motion: equal"))
    assert refused("mine.yaml 'Rank margin", capsys)
    path.write_text(RANK_LAYOUT + BOUNDARY)
    motion = root / "experiments" / "probe-motion.yaml"
    motion.write_text(RANK_LAYOUT)
    record_design(motion, read_layout(motion))
    assert refused("mine 'Motion tiny_latte probe", capsys)
    path.write_text(RANK_LAYOUT + CLAIM)
    motion.unlink()
    (root / "results" / "shapes" / "mine.jsonl").unlink()
    assert refused("mine 'Rank mine.jsonl", capsys)
    assert (root / "README.md").read_text() == f"{START}\n{END}\n"
