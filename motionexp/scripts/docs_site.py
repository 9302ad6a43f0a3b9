"""What `make docs` adds to the pages of docs/: the repository's other pages, and the reference.

mkdocs loads this file as a hook (mkdocs.yml). README is the site's first page. The pages of experiments/ and
results/ stand where the repository has them, so that the links between them hold. Links of docs/ that begin
with `../` are rewritten, for on the site docs/ is the root.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import motionexp
from motionexp.config.metrics import METRICS
from motionexp.config.yaml_file import read_yaml

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "experiments/*.md", "experiments/*.yaml")
RESULTS = ("results/**/*.md", "results/**/*.csv", "results/**/*.png", "results/**/*.mp4")
LINK = re.compile(r"(\]\()([^)\s#]+)")
"""An inline link or picture, up to its fragment."""
HOME, README, START = "index.md", "README.md", "start.md"
HEADED = "    options: {show_root_heading: false}\n"
"""Under a heading that is there already."""
ALONE = "    options: {members: false, show_root_heading: false}\n"
"""As `HEADED`; of a class without its members."""


def on_files(files: Any, config: Any) -> Any:
    """Add the repository's pages and pictures, and the reference, to the site."""
    from mkdocs.structure.files import File  # only where the site is built

    for pattern in (*PAGES, *RESULTS):
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, HOME if name == README else name, abs_src_path=str(path)))
    for name, text in ((START, start_page()), *reference_pages()):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite the links of a page, which are those of the repository, for the site."""
    name = page.file.src_uri
    if name.startswith("reference/"):
        return markdown
    generated = page.file.generated_by is not None
    return site_links(markdown, README if name == HOME else name if generated else f"docs/{name}", name)


def site_links(markdown: str, repository_path: str, site_path: str) -> str:
    """A page with its links as the site has them.

    Args:
        markdown: of the page.
        repository_path: of its file.
        site_path: of the page on the site, whose root is docs/.
    """
    folder = posixpath.dirname(repository_path)

    def rewritten(link: re.Match[str]) -> str:
        target = link[2]
        if ":" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        on_site = HOME if path == README else path.removeprefix("docs/")
        return link[1] + posixpath.relpath(on_site, posixpath.dirname(site_path) or ".")

    return LINK.sub(rewritten, markdown)


def start_page() -> str:
    """Markdown of README's section on the start, which has a place of its own in the menu."""
    section = (ROOT / README).read_text(encoding="utf-8").partition("\n## Start\n")[2].partition("\n## ")[0]
    return f"# Getting started\n{section}\n"


def reference_pages() -> Iterator[tuple[str, str]]:
    """(path on the site, Markdown) of the reference pages, which mkdocstrings fills from docstrings."""
    methods = {}
    for option in sorted((ROOT / "conf" / "method").glob("*.yaml")):
        settings = read_yaml(option)
        methods[option.stem] = settings.get("method", settings)["_target_"]
    # What a method can be told is in its class; its members are the same for all.
    sections = [f"## `{name}`\n\n::: {target}\n{ALONE}" for name, target in methods.items()]
    yield "reference/methods.md", "\n".join(["# Methods, from their docstrings\n", *sections])
    sections = [f"## `{name}`\n\n::: {spec.module}\n{HEADED}" for name, spec in sorted(METRICS.items())]
    yield "reference/metrics.md", "\n".join(["# Metrics, from their docstrings\n", *sections])
    places = [f"{motionexp.__name__}.{place}.{name}" for name, place in motionexp._MODULES.items()]
    sections = [f"::: {place}\n" for place in places if place not in methods.values()]
    yield "reference/python.md", "\n".join(["# The Python API, from its docstrings\n", *sections])
