"""The results of operations on the meta device, which torch computes in Python: once for equal inputs."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Form = tuple[Any, ...]
"""Of a result: its shape, strides, type and the bytes of its storage."""
MOST_KNOWN = 50_000
"""Results that are kept; a network has some thousands."""
_KNOWN: dict[Form, tuple[bool, list[Form]]] = {}


def result_of(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """`func(*args, **kwargs)` of an operation of torch; blocks of a network repeat most operations.

    A result has no values on the meta device, so that a new tensor of the same form is as good. What is
    a view of an input, or is drawn at random, is computed each time.
    """
    if not _is_pure(func):
        return func(*args, **kwargs)
    try:
        key = (func, torch.get_default_dtype(), *_key(args), *_key(kwargs.items()))
        stored = _KNOWN.get(key)
    except TypeError:  # a value that has no hash, or a tensor that is none of the meta device's
        return func(*args, **kwargs)
    if stored is not None:
        is_tuple, forms = stored
        tensors = tuple(_of_form(*form) for form in forms)
        return tensors if is_tuple else tensors[0]
    result = func(*args, **kwargs)
    outputs = result if isinstance(result, tuple) else (result,)
    if len(_KNOWN) < MOST_KNOWN and _are_new(outputs, (args, kwargs)):
        _KNOWN[key] = isinstance(result, tuple), [_form(output) for output in outputs]
    return result


@cache
def _is_pure(func: Any) -> bool:
    """Whether an operation changes no input, returns no view of one, and draws nothing."""
    about = func._schema
    has_views = any(value.alias_info for value in (*about.arguments, *about.returns))
    return not has_views and torch.Tag.nondeterministic_seeded not in func.tags


def _key(values: Iterable[Any]) -> Iterator[Any]:
    """What the form of a result depends on. Raises TypeError for a tensor that has values."""
    for value in values:
        if isinstance(value, tuple | list):
            yield len(value)
            yield from _key(value)
        elif not isinstance(value, Tensor):
            yield type(value), value  # 1, 1.0 and True are equal, and give other types
        elif value.is_meta and type(value) in (Tensor, nn.Parameter):
            yield value.shape, value.stride(), value.dtype, value.is_conj(), value.is_neg()
        else:
            raise TypeError(type(value))


def _are_new(outputs: tuple[Any, ...], inputs: Any) -> bool:
    """Whether outputs are plain tensors on the meta device with a storage of their own, of their size."""
    leaves = (leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))
    before = {id(leaf.untyped_storage()) for leaf in leaves}
    return all(
        type(output) is Tensor
        and output.is_meta
        and id(output.untyped_storage()) not in before
        and output.untyped_storage().nbytes() == _of_form(*_form(output)).untyped_storage().nbytes()
        for output in outputs
    )


def _form(tensor: Tensor) -> Form:
    return tensor.shape, tensor.stride(), tensor.dtype


def _of_form(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype, device="meta")
