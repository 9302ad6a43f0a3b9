"""Links of the documentation's site; `make docs`, which is strict about them, builds it whole."""

import re
from pathlib import Path

import pytest

from motionexp.config.metrics import METRICS
from motionexp.config.options import options
from motionexp.scripts.docs_site import START, reference_pages, site_links, start_page

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("path", "page", "link", "expected"),
    [
        ("docs/usage.md", "usage.md", "../README.md#start", "index.md#start"),
        ("docs/usage.md", "usage.md", "../results/shapes/tau.md", "results/shapes/tau.md"),
        ("docs/usage.md", "usage.md", "scores.md", "scores.md"),
        ("README.md", "index.md", "docs/usage.md#sweeps", "usage.md#sweeps"),
        ("README.md", "index.md", "experiments/README.md#gate", "experiments/README.md#gate"),
        ("experiments/README.md", "experiments/README.md", "../docs/world.md", "../world.md"),
        ("experiments/README.md", "experiments/README.md", "../README.md", "../index.md"),
        ("experiments/README.md", "experiments/README.md", "tau.yaml", "tau.yaml"),
        ("README.md", "index.md", "https://example.org/a/b", "https://example.org/a/b"),
        ("README.md", "index.md", "#start", "#start"),
    ],
)
def test_links_of_the_repository_are_those_of_the_site(path, page, link, expected):
    assert site_links(f"[a]({link}) ![b]({link})", path, page) == f"[a]({expected}) ![b]({expected})"


def test_every_page_of_docs_is_in_the_menu_and_so_is_the_start():
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = [START, *(path.name for path in (ROOT / "docs").glob("*.md"))]
    assert [page for page in pages if f": {page}\n" not in menu] == []
    assert "python run.py status" in start_page()
    assert "\n## " not in start_page()
    # Links within README would lead nowhere on a page of its own.
    assert "](#" not in start_page()


def test_every_method_and_metric_is_in_the_reference():
    pages = dict(reference_pages())
    assert [*pages] == ["reference/methods.md", "reference/metrics.md", "reference/python.md"]
    assert all(f"## `{name}`" in pages["reference/methods.md"] for name in options("method"))
    assert all(f"## `{name}`" in pages["reference/metrics.md"] for name in METRICS)
    assert "::: motionexp.methods.training.fit" in pages["reference/python.md"]


def test_every_message_of_troubleshooting_is_one_of_the_program():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    first_cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    messages = [message for cell in first_cells for message in re.findall(r"`([^`]+)`", cell)]
    # A message may be broken over lines of the source, and hold values.
    source = "".join(re.sub(r'"\s*f?"', "", path.read_text()) for path in (ROOT / "motionexp").rglob("*.py"))
    assert len(messages) > 25
    assert [message for message in messages if message not in source] == []
