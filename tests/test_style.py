import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "motionexp"
MODULES = sorted(PACKAGE.rglob("*.py"))
FILES = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), ROOT / "run.py"]
GUIDE = ROOT / "CONTRIBUTING.md"
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
    found = []
    for node in nodes(path, ast.FunctionDef, ast.AsyncFunctionDef):
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
        found.append((f"{name(path)}: {node.name}", (body[-1].end_lineno or 0) - body[0].lineno + 1))
    return found


def test_a_module_has_400_lines_at_most():
    lengths = {name(path): len(path.read_text().splitlines()) for path in [*MODULES, ROOT / "run.py"]}
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


def test_a_function_has_60_lines_at_most_and_nine_of_ten_have_35():
    assert [each for path in FILES for each in function_lengths(path) if each[1] > 60] == []
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
    others = [
        path for path in MODULES if not {"backbones", "pretrain"} & set(path.relative_to(PACKAGE).parts)
    ]
    importing = re.compile(r"^\s*(import|from) diffusers\b", re.MULTILINE)
    assert [name(path) for path in others if importing.search(path.read_text())] == []


def test_only_the_composition_sees_hydra_s_config():
    seen = [name(path) for path in MODULES if "DictConfig" in path.read_text()]
    assert seen == ["motionexp/cli.py", "motionexp/config/compose.py"]


def test_the_layout_names_every_module():
    blocks = re.findall(r"```[a-z]*\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    tree = next(block for block in blocks if re.search(r"^motionexp/", block, re.MULTILINE))
    named = {word for line in tree.splitlines() for word in re.findall(r"[\w.-]+", line)}
    modules = [path for path in MODULES if path.name != "__init__.py"]
    assert [name(path) for path in modules if path.name not in named and path.stem not in named] == []


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
