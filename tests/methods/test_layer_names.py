"""For which of two experts a LoRA's file is: by its layers' names, and by its own."""

import pytest

from motionexp.errors import InputError
from motionexp.methods.layer_names import expert_of_keys

LAYER = "blocks.0.attn1.to_v"
FIRST, SECOND = f"transformer.{LAYER}", f"transformer_2.{LAYER}"


@pytest.mark.parametrize(
    ("keys", "named", "expert"),
    [
        ([LAYER], "transformer_2", "transformer_2"),
        ([LAYER], "", ""),
        # diffusers writes it for either expert.
        ([FIRST], "transformer_2", "transformer_2"),
        ([SECOND], "", ""),
        ([SECOND], "transformer_2", ""),
        # Both experts' layers, in a file such as high_quality or low_poly.
        ([FIRST, SECOND], "transformer", ""),
        ([FIRST, SECOND], "transformer_2", ""),
    ],
)
def test_layers_that_name_the_second_expert_are_its_own(keys, named, expert):
    assert expert_of_keys(keys, named) == expert


@pytest.mark.parametrize("key", [SECOND, "lora_transformer_2_blocks_0_attn1_to_v"])
def test_a_name_that_contradicts_the_layers_is_refused(key):
    with pytest.raises(InputError, match=r"transformer_2.*high"):
        expert_of_keys([key], "transformer")
