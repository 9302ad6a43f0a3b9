"""Bounds of a method's arguments, checked before weights are loaded."""

import math
from collections.abc import Sequence

from motionexp.errors import InputError


def check_positive(**values: float) -> None:
    """Raise InputError for arguments of a method, by their names, that are no finite numbers above 0."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise InputError(f"method.{name}={value:g}: a finite number above 0")


def check_blocks(name: str, blocks: Sequence[int] | None) -> None:
    """Raise InputError for an empty list of blocks; `name` is the method's argument."""
    if blocks is not None and not blocks:
        raise InputError(f"method.{name}=[]: at least one number of a block; null takes the published one")
