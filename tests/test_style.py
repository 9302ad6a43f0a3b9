import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "motionexp"
MODULES = sorted(PACKAGE.rglob("*.py"))
FILES = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), ROOT / "run.py"]
GUIDE = ROOT / "CONTRIBUTING.md"
PRONOUNS = {
    *("each", "own", "found", "known", "wanted", "kept", "said", "there"),
    *("given", "made", "asked", "taken", "others", "other"),
}
PRONOUNS_AT_MOST = 0.055
"""Share of assigned names."""
TOP = {
    *(".ci", "conf", "docs", "experiments", "motionexp", "results", "tests"),
    *(".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
    *("requirements.in", "requirements.lock", "run.py"),
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def nodes(path: Path, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


def function_lengths(path: Path) -> list[tuple[str, int]]:
    """(name, lines of body without the docstring) of each function."""
    lengths = []
    for node in nodes(path, ast.FunctionDef, ast.AsyncFunctionDef):
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
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


def test_a_module_says_what_it_is():
    silent = [
        path for path in MODULES if path.read_text() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_nothing_hides_a_mistake():
    hiding = []
    for path in MODULES:
        for node in nodes(path, ast.ExceptHandler):
            assert isinstance(node, ast.ExceptHandler)
            if node.type is None or ast.unparse(node.type) == "Exception":
                hiding.append(f"{name(path)}:{node.lineno}")
    assert hiding == []


def test_diffusers_is_imported_by_backbones_and_pretraining_alone():
    rest = [path for path in MODULES if not {"backbones", "pretrain"} & set(path.parts)]
    importing = re.compile(r"^\s*(import|from) diffusers\b", re.MULTILINE)
    assert [name(path) for path in rest if importing.search(path.read_text())] == []


def test_only_the_composition_sees_hydra_s_config():
    seen = [name(path) for path in MODULES if "DictConfig" in path.read_text()]
    assert seen == ["motionexp/cli.py", "motionexp/config/compose.py"]


def layout_of(guide: str) -> set[str]:
    """Paths below the package that the page's layout lists: `cli.py`, `data`, `data/shapes`."""
    paths = set()
    for line in re.findall(r"^motionexp/.*", guide, re.MULTILINE):
        listed = [word for word in line.split("  ")[0].removeprefix("motionexp/").split()]
        packages = [word.rstrip("/") for word in listed if word.endswith("/")]
        paths |= {word for word in listed if word.endswith(".py")}
        for word in packages:
            parent = f"{packages[0]}/" if (PACKAGE / packages[0] / word).is_dir() else ""
            paths.add(parent + word)
    return paths


def layout_on_disk(package: Path) -> set[str]:
    """Modules at the top of the package, and folders of its two top levels."""
    tops = [path for path in package.iterdir() if path.name[0] not in "_."]
    folders = [path for path in tops if path.is_dir()]
    inner = [
        path for folder in folders if folder.name != "bundled" for path in folder.iterdir() if path.is_dir()
    ]
    paths = [*(path for path in tops if path.suffix == ".py"), *folders, *inner]
    return {path.relative_to(package).as_posix() for path in paths if path.name != "__pycache__"}


def test_the_layout_lists_every_room_by_its_path():
    rooms = layout_on_disk(PACKAGE)
    assert layout_of(GUIDE.read_text()) == rooms
    assert len(rooms - {"bundled"}) <= 20


@pytest.mark.parametrize("stray", ["stray.py", "stray/", "data/stray/"])
def test_a_stray_module_or_folder_is_seen(tmp_path, stray):
    for room in layout_on_disk(PACKAGE):
        (tmp_path / room).mkdir(parents=True, exist_ok=True) if "." not in room else (tmp_path / room).touch()
    assert layout_on_disk(tmp_path) == layout_on_disk(PACKAGE)
    (tmp_path / stray).mkdir() if stray.endswith("/") else (tmp_path / stray).touch()
    assert layout_on_disk(tmp_path) - layout_of(GUIDE.read_text()) == {stray.rstrip("/")}


def test_variables_are_nouns():
    names = [
        node.id
        for path in MODULES
        for node in nodes(path, ast.Name)
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
