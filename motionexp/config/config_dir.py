"""`--config-dir`: a folder of the user's own options, checked before Hydra reads it. Imports no torch."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from motionexp.config.options import CONF, GROUPS
from motionexp.config.yaml_file import read_yaml
from motionexp.errors import InputError
from motionexp.files import user_path

EXAMPLE = "DIR/model/mine.yaml is then model=mine"
# Of the packages that Hydra lets a file name, those that hold settings of this program.
HEADER = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)


def search_path(folder: str) -> str:
    """The override by which Hydra finds the options of a folder.

    Raises:
        InputError: no such folder, one without options, or a file that would change more than settings.
    """
    root = user_path(folder).absolute()
    if not os.path.isdir(root):
        raise InputError(f"--config-dir={folder}: there is no such folder")
    files = [path for group in GROUPS for path in sorted((root / group).rglob("*.yaml"))]
    if not files:
        names = ", ".join(f"{group}/" for group in GROUPS)
        raise InputError(f"--config-dir={folder}: none of {names} in it has a YAML file; {EXAMPLE}")
    if (root / "hydra").exists():
        raise InputError(
            f"--config-dir={folder}: it has hydra/, which would change how jobs are run; leave that out"
        )
    for path in files:
        if problem := next(_problems(path, path.relative_to(root)), None):
            raise InputError(f"{path}: {problem}")
    if re.search(r"['\\$]", str(root)):
        raise InputError(
            f"--config-dir={folder}: its path has a quote, a backslash or a $; rename the folder"
        )
    return f"hydra.searchpath=['file://{root}']"


def _problems(path: Path, inside: Path) -> Iterator[str]:
    """What is wrong with one file: it would be hidden by ours, or reach beyond the settings of a job."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        yield "it has no setting; write KEY: VALUE lines"
        return
    if (CONF / inside).is_file():
        yield f"this program has {inside.with_suffix('')} already, which would be read; rename the file"
    packages = HEADER.findall(path.read_text(encoding="utf-8-sig"))
    if wrong := [name for name in packages if name not in ("_global_", "_group_", inside.parts[0])]:
        yield f"@package {wrong[0]}: leave the line out, or write _global_ to set settings of any group"
    for key in {"hydra", "plugins"} & content.keys():
        yield f"{key}: only the command line can name {key}, not a file of settings"
    if resolver := _resolver(content):
        yield f"{resolver}: only settings can be referred to, as ${{frames}}"
    defaults = content.get("defaults", [])
    if not isinstance(defaults, list) or not all(map(_is_default, defaults)):
        yield f"defaults: {defaults!r:.80}: it must be a list of files beside this one, or of GROUP: OPTION"
        return
    for entry in defaults:
        pairs = entry.items() if isinstance(entry, dict) else [(entry,)]
        if not all(_is_of_groups(str(word)) for pair in pairs for word in pair):
            yield f"defaults: {entry}: only files of {', '.join(GROUPS)} are included, without .. or ${{}}"


def _is_default(entry: Any) -> bool:
    """Whether Hydra can read an entry of a defaults list."""
    if not isinstance(entry, dict):
        return isinstance(entry, str) and len(entry) <= 200
    values = [item for value in entry.values() for item in (value if isinstance(value, list) else [value])]
    return len(entry) == 1 and all(
        isinstance(item, str | None) and item != "???" and len(item or "") <= 200
        for item in (*entry, *values)
    )


def _is_of_groups(word: str) -> bool:
    """Whether a part of an entry of a defaults list stays within the groups of settings."""
    name = word.removeprefix("optional ").removeprefix("override ").strip()
    root = name[1:].partition("/")[0].partition("@")[0] if name.startswith("/") else None
    return (root is None or root in GROUPS) and not re.search(r"\.\.|\$|hydra|://", name)


def _resolver(value: Any) -> str:
    """The first `${resolver:...}` of a file, which could read the environment; empty where there is none."""
    if isinstance(value, dict | list):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        return next(filter(None, map(_resolver, items)), "")
    match = re.search(r"\$\{.*:.*", value, re.DOTALL) if isinstance(value, str) else None
    return match[0] if match else ""
