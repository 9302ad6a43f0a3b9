"""What the jobs of one process share: the last job's backbone and scorer. Imports no torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

Kind = Literal["backbone", "scorer"]
Value = TypeVar("Value")

# By kind, the value and what it was made for; none outside `keeping`, where a job alone has it.
_KEPT: ContextVar[dict[Kind, tuple[Any, Any]] | None] = ContextVar("_KEPT", default=None)


@contextmanager
def keeping() -> Iterator[None]:
    """Keep backbone and scorer from one job to the next, until the outermost of these contexts ends."""
    if _KEPT.get() is not None:
        yield
        return
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def kept(kind: Kind, settings: Any, make: Callable[[], Value]) -> Value:
    """The last job's value if it was made for equal settings; else a new one, for which the last one goes."""
    store = _KEPT.get()
    if store is None:
        return make()
    if kind in store and store[kind][0] == settings:
        value: Value = store[kind][1]
        return value
    store.pop(kind, None)  # before its follower is made: there may be room for one
    store[kind] = settings, (value := make())
    return value


def drop_kept() -> None:
    """Keep nothing of the last job, which failed: nobody knows in what state it left them."""
    if (store := _KEPT.get()) is not None:
        store.clear()
