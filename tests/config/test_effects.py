"""A setting that was given and changes nothing is an error."""

import pytest

from motionexp.config.command_line import override_key, prepared
from motionexp.config.compose import load
from motionexp.config.effects import check_effects
from motionexp.errors import InputError


def job(*overrides: str):
    return load(overrides), set(map(override_key, prepared(overrides)))


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ("tau=1000 rank=8 train_steps=9 log_adapter=true keep_steps=[1]",
         "rank train_steps log_adapter keep_steps"),
        ("tau=1000 adapter_scale=2 method=full_rank", "adapter_scale method"),
        ("probe_steps=20 inversion_prompt=empty", "probe_steps inversion_prompt"),
        ("probe=tampering tau=300 seed=1 seeds=2 metrics=[motion_fidelity]", "tau seed seeds metrics"),
        ("method=full_rank rank=8 alpha=2", "rank alpha"),
        ("method.rank=2 rank=8", "rank"),
        ("fit=fit", "fit"),
        ("start=0", "start"),
        ("edits=[red] edit_kinds=[style]", "edit_kinds"),
        ("guidance_scale=1 negative_prompt=red", "negative_prompt"),
        ("stg_blocks=[1] guidance_scale=1 guidance_rescale=0.5", "stg_blocks guidance_rescale"),
        ("guidance_scale=1 stg_scale=1 stg_blocks=[1] guidance_rescale=0.5", ""),
        ("probe=tampering stg_scale=1 stg_blocks=[1] guidance_rescale=0.5",
         "stg_scale stg_blocks guidance_rescale"),
        ("model.steps=9 steps=8 model.boundary=500 model.boundary_weights=0123456789ab",
         "model.steps model.boundary"),
        ("tau=1000 seed=1 eta=1 metrics=[motion_fidelity] references=2 seeds=2", ""),
        ("rank=8 alpha=2 method.attention=cross seed=1 adapter_scale=2 model.train_steps=3", ""),
        ("probe=tampering probe_steps=20 edit_kinds=[style] guidance_scale=1 negative_prompt=red", ""),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_named(overrides, names, base):
    given = job(*base, *overrides.split())
    if not names:
        return check_effects([given])
    with pytest.raises(InputError) as caught:
        check_effects([given])
    assert {line.partition("=:")[0] for line in str(caught.value).splitlines()} == set(names.split())


def test_one_job_of_a_sweep_is_enough(base):
    check_effects([job(*base, "tau=1000", "rank=8"), job(*base, "tau=0", "rank=8")])
