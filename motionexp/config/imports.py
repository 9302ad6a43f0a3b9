"""Importing a library without packages that it can do without. Imports no torch."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest.mock import patch


class _Absent(MetaPathFinder):
    """Says of some packages that they are not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Import a library as where these optional packages of its are not installed."""
    from lightning_utilities.core import imports

    def version(name: str) -> str:
        if name in names:
            raise imports.PackageNotFoundError(name)
        return installed(name)

    def available(name: str) -> bool:
        return name not in names and is_available(name)

    finder, installed, is_available = _Absent(names), imports._version, imports.package_available
    sys.meta_path.insert(0, finder)
    try:
        with patch.multiple(imports, _version=version, package_available=available):
            yield
    finally:
        sys.meta_path.remove(finder)
