"""Imports of the libraries that are put off until something needs them. Imports no torch."""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest.mock import patch

COMPILER = "torch._dynamo"
# What transformers and torchvision import of it, and call only while something is compiled.
CALLED = {
    f"{COMPILER}._trace_wrapped_higher_order_op": "TransformGetItemToIndex",
    f"{COMPILER}.utils": "is_compile_supported",
}
Decorated = Callable[..., Any] | type


def defer_compiler() -> None:
    """Let diffusers, transformers, lightning and torch's optimizers be imported without torch's compiler.

    They only tell the compiler how to treat some of their functions. Importing it takes three seconds, sympy
    included. `torch.compile` still works: the first use of the compiler imports it.
    """
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = compiler = _DeferredCompiler(COMPILER)
        sys.modules.update({part: _DeferredPart(part) for part in CALLED})
        setattr(sys.modules["torch"], "_dynamo", compiler)  # noqa: B010
        sys.meta_path.insert(0, _CompilersModules())


def _compiler() -> ModuleType:
    """The compiler itself, imported now."""
    if isinstance(sys.modules.get(COMPILER), _DeferredCompiler):
        for name in (COMPILER, *CALLED):
            del sys.modules[name]
    return importlib.import_module(COMPILER)


class _DeferredCompiler(ModuleType):
    """In place of `torch._dynamo`: what importers call; all else imports the compiler."""

    class OptimizedModule:
        """Of a module that the compiler has changed; without the compiler there is none."""

    @staticmethod
    def disable(function: Decorated | None = None, *_: Any, **__: Any) -> Any:
        """The function as it is: nothing compiles it."""
        return (lambda later: later) if function is None else function

    @staticmethod
    def allow_in_graph(function: Decorated) -> Decorated:
        """The function as it is."""
        return function

    @staticmethod
    def assume_constant_result(function: Decorated) -> Decorated:
        """The function as it is."""
        return function

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # of a package: its modules may be imported
            return [f"{folder}/_dynamo" for folder in sys.modules["torch"].__path__]
        if name.startswith("__"):
            raise AttributeError(f"module {COMPILER!r} has no attribute {name!r}")
        return getattr(_compiler(), name)


class _DeferredPart(ModuleType):
    """In place of a module of the compiler, with a function that imports the compiler when called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name == CALLED[self.__name__]:
            return lambda *arguments, **more: getattr(self._itself(), name)(*arguments, **more)
        return getattr(self._itself(), name)

    def _itself(self) -> ModuleType:
        _compiler()
        return importlib.import_module(self.__name__)


class _CompilersModules(MetaPathFinder):
    """Imports the whole compiler when a module of it is imported."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(f"{COMPILER}."):
            return None
        sys.meta_path.remove(self)
        _compiler()
        return ModuleSpec(name, _Imported()) if name in sys.modules else None


class _Imported(Loader):
    """Loads a module that is imported already."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Deferred(ModuleType):
    """In place of a module that is imported when an attribute of it is first read."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def defer(name: str) -> None:
    """Import a module only when an attribute of it is first read; none below it may be imported before."""
    if name not in sys.modules:
        sys.modules[name] = _Deferred(name)


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
