"""Results of operations on the meta device are those that torch computes, and are computed once."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.ops import aten

from motionexp.jobs import memory_plan, meta_results
from motionexp.jobs.inputs import plan_job
from motionexp.jobs.meta_results import result_of


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """What is known, which is nothing at first."""
    known: dict[Any, Any] = {}
    monkeypatch.setattr(meta_results, "_KNOWN", known)
    return known


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def form(value: Any) -> Any:
    if isinstance(value, tuple):
        return [form(item) for item in value]
    return value.shape, value.stride(), value.dtype, value.untyped_storage().nbytes(), type(value)


WHOLE = meta(2, 3, dtype=torch.long)
CASES = [
    (aten.add.Tensor, (WHOLE, 1)),
    (aten.add.Tensor, (WHOLE, 1.0)),
    (aten.add.Tensor, (WHOLE, True)),
    (aten.mm.default, (meta(2, 3), meta(3, 4))),
    (aten.mm.default, (meta(3, 2).t(), meta(3, 4))),
    (aten.native_layer_norm.default, (meta(2, 8), [8], None, None, 1e-5)),
    (aten.cat.default, ([meta(2, 8), meta(1, 8)],)),
    (aten.cat.default, ([meta(2, 8), meta(1, 8)], 0)),
    (aten.clone.default, (meta(4, 4)[:2],)),
]


def test_a_second_result_has_the_form_of_the_first_and_a_storage_of_its_own(known: dict[Any, Any]) -> None:
    for func, args in CASES:
        expected, first, second = form(func(*args)), result_of(func, args, {}), result_of(func, args, {})
        assert form(first) == form(second) == expected
        if isinstance(first, Tensor):
            assert first.untyped_storage()._cdata != second.untyped_storage()._cdata
    assert len(known) == len(CASES)


def test_the_default_type_counts() -> None:
    assert result_of(aten.add.Tensor, (WHOLE, 1.0), {}).dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert result_of(aten.add.Tensor, (WHOLE, 1.0), {}).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_shares_memory_or_has_values_or_is_drawn_is_computed_each_time(known: dict[Any, Any]) -> None:
    values, whole = torch.ones(2, 2), meta(4, 4)
    assert torch.equal(result_of(aten.add.Tensor, (values, 1), {}), values + 1)
    for func, args in (
        (aten.view.default, (whole, [16])),
        (aten.add_.Tensor, (whole, 1)),
        (aten._unsafe_view.default, (whole, [16])),
        (aten.bernoulli.p, (whole, 0.5)),
    ):
        for _ in range(2):
            output = result_of(func, args, {})
            is_view = output.untyped_storage()._cdata == whole.untyped_storage()._cdata
            assert is_view == (func is not aten.bernoulli.p)
    assert not known


def test_a_plan_is_that_of_results_computed_each_time(
    make: Any, known: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plan_job(make(checkpointing=True, batch_size=2))
    plan = memory_plan.memory_plan(job)
    assert len(known) > 100
    monkeypatch.setattr(memory_plan, "result_of", lambda func, args, kwargs: func(*args, **kwargs))
    assert plan == memory_plan.memory_plan(job)
