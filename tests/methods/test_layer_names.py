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
        # A file such as wan22_high_kick.
        ([SECOND], "transformer", ""),
        # Both experts' layers, in a file such as high_quality or low_poly.
        ([FIRST, SECOND], "transformer", ""),
        ([FIRST, SECOND], "transformer_2", ""),
    ],
)
def test_layers_that_name_the_second_expert_are_its_own(keys, named, expert):
    assert expert_of_keys(keys, named) == expert


@pytest.mark.parametrize("keys", [[SECOND], [FIRST, SECOND], ["lora_transformer_2_blocks_0_attn1_to_v"]])
def test_high_noise_contradicts_layers_of_the_second_expert(keys):
    with pytest.raises(InputError, match=rf"high_noise.*transformer_2 \({keys[-1]}\)"):
        expert_of_keys(keys, "transformer", True)
    assert expert_of_keys([FIRST], "transformer", True) == "transformer"
