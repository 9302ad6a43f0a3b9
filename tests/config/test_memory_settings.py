"""Settings of memory: what is wrong with them is told before torch is imported."""

from importlib.machinery import ModuleSpec

import pytest

from motionexp.config import memory
from motionexp.config.compose import load
from motionexp.config.ids import adapter_id
from motionexp.config.job_settings import row_settings
from motionexp.config.schema import JobConfig
from motionexp.errors import InputError

FSDP = ["trainer.strategy=fsdp", "trainer.devices=2", "device=cuda"]


@pytest.fixture(autouse=True)
def _bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "find_spec", lambda name: ModuleSpec(name, None))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["offload=group", "device=cpu"], "offload=group"),
        (["offload=model", "device=mps"], "offload=model"),
        (["offload=group_stream", "device=cpu"], "offload=group_stream"),
        (["offload=true", "device=cuda"], "offload=true"),
        (["offload=blocks", "device=cuda"], "offload=blocks"),
        (["offload=group", "device=cuda", "checkpointing=false"], "checkpointing=false"),
        (["network_precision=fp8", "checkpointing=false"], "checkpointing=false"),
        (["network_precision=fp8", "device=mps"], "network_precision=fp8"),
        (["network_precision=4bit", "device=mps"], "network_precision=4bit"),
        (["network_precision=4bit", "device=cuda", "offload=group"], "offload=group"),
        (["network_precision=8bit", "device=cuda", "offload=model"], "offload=model"),
        (["network_precision=4bit", "method=full_rank"], "network_precision=4bit"),
        (["network_precision=8bit", "method=vmc"], "network_precision=8bit"),
        (["network_precision=bf16"], "network_precision=bf16"),
        (["network_precision=fp8", *FSDP], "network_precision=fp8"),
        (["offload=group", *FSDP], "trainer.strategy=fsdp"),
    ],
)
def test_what_does_not_suit_the_device_or_each_other_is_refused(
    base: list[str], words: list[str], named: str
) -> None:
    with pytest.raises(InputError) as error:
        load([*base, *words])
    (line,) = str(error.value).splitlines()
    assert named in line


def test_an_old_truth_value_is_refused_with_its_new_name(base: list[str]) -> None:
    for old, new in (("true", "model"), ("false", "none")):
        with pytest.raises(InputError, match=f"offload={new}"):
            load([*base, f"offload={old}", "device=cuda"])


@pytest.mark.parametrize("words", [["network_precision=4bit"], ["network_precision=fp8", "method=full_rank"]])
def test_low_rank_goes_with_few_bits_and_full_rank_with_casting(base: list[str], words: list[str]) -> None:
    assert load([*base, *words])


def test_without_bitsandbytes_the_package_is_named(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"network_precision=8bit: .*bitsandbytes"):
        load([*base, "network_precision=8bit"])
    # A plan may be for another machine.
    assert load([*base, "network_precision=8bit", "dry_run=true"]).network_precision == "8bit"


def test_bits_of_the_network_are_part_of_ids_and_where_it_waits_is_not(base: list[str]) -> None:
    def ident(*words: str) -> str:
        cfg: JobConfig = load([*base, *words])
        return adapter_id(cfg, weights_hash="w", precision="bf16", reference_hash="r")

    ids = [ident(f"network_precision={name}") for name in ("auto", "fp8", "8bit", "4bit")]
    assert len({*ids}) == 4
    assert ident("offload=group_stream", "device=cuda") == ids[0] == ident()
    assert row_settings(load([*base, "network_precision=fp8"]))["network_precision"] == "fp8"
    assert row_settings(load([*base, "offload=model", "device=cuda"])) == row_settings(load(base))
