import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "motionexp"
MODULES = sorted(PACKAGE.rglob("*.py"))
FILES = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), ROOT / "run.py"]
PRONOUNS = {
    *("each", "own", "found", "known", "wanted", "kept", "said", "there"),
    *("given", "made", "asked", "taken", "others", "other"),
}
PRONOUNS_AT_MOST = 0.0
"""Share of assigned names."""
TOP = {
    *(".ci", "conf", "docs", "experiments", "motionexp", "results", "tests"),
    *(".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
    *("mkdocs.yml", "requirements.in", "requirements.lock", "run.py"),
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def function_lengths(path: Path) -> list[tuple[str, int]]:
    """(name, lines of body without the docstring) of each function."""
    lengths = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            lengths.append((f"{name(path)}: {node.name}", (body[-1].end_lineno or 0) - body[0].lineno + 1))
    return lengths


def test_a_module_has_400_lines_at_most():
    lengths = {name(path): len(path.read_text().splitlines()) for path in [*MODULES, ROOT / "run.py"]}
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


def test_a_function_has_60_lines_at_most_and_nine_of_ten_have_35():
    assert [function for path in FILES for function in function_lengths(path) if function[1] > 60] == []
    lengths = [lines for path in MODULES for _, lines in function_lengths(path)]
    assert sum(lines <= 35 for lines in lengths) >= 0.9 * len(lengths)


def test_no_module_is_a_drawer_for_everything():
    assert [name(path) for path in MODULES if path.stem in ("utils", "helpers", "common", "misc")] == []


def test_the_layout_lists_every_room_by_its_path():
    # 1. What the guide lists, as paths below the package: `hub.py`, `data`, `data/shapes`.
    listed = set()
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    for line in re.findall(r"^motionexp/(.*)", guide, re.MULTILINE):
        # A line names modules, or a room and then the folders in it, or several rooms.
        room, *words = (word.rstrip("/") for word in line.split("  ")[0].split())
        listed |= {room, *(f"{room}/{word}" if (PACKAGE / room / word).is_dir() else word for word in words)}
    # 2. Modules at the top of the package, and folders of its two top levels.
    patterns = ("[!_.]*.py", "[!_.]*/", "[!_.]*/[!_.]*/")
    paths = [path for pattern in patterns for path in PACKAGE.glob(pattern) if path.parent.name != "bundled"]
    rooms = {path.relative_to(PACKAGE).as_posix() for path in paths}
    assert listed == rooms
    assert len(rooms - {"bundled"}) <= 20


def test_variables_are_nouns():
    names = [
        node.id
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    assert sum(name in PRONOUNS for name in names) <= PRONOUNS_AT_MOST * len(names)


def test_nothing_else_lies_at_the_top():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {path.split("/")[0] for path in tracked.splitlines()} <= TOP


def test_a_relative_link_of_a_page_leads_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "experiments").glob("*.md")]
    pages += (ROOT / "results").rglob("*.md")
    links = [
        (name(page), link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]
    assert links == []
