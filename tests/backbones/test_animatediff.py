"""What AnimateDiff has for itself: a model of two checkpoints."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

from motionexp.backbones import load_backbone
from motionexp.backbones.animatediff import AnimateDiffBackbone
from motionexp.errors import InputError
from tests.support.tiny_animatediff import MOST_FRAMES, save_tiny_animatediff


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_animatediff(tmp_path_factory.mktemp("models"))


def test_it_takes_as_many_frames_as_the_adapter_has_positions(path: str) -> None:
    backbone = AnimateDiffBackbone.from_pretrained(path)
    assert isinstance(backbone.network, UNetMotionModel)
    with pytest.raises(InputError, match=f"frames=9: .* {MOST_FRAMES} "):
        backbone.latent_shape(9, 16, 16)


def test_what_does_not_go_together_is_refused(path: str, tmp_path: Path) -> None:
    image, adapter = path.split("+")
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "model_index.json").write_text(json.dumps({"_class_name": "LattePipeline"}))
    with pytest.raises(InputError, match=r"LattePipeline.*StableDiffusionPipeline"):
        load_backbone(f"{tmp_path / 'video'}+{adapter}")
    with pytest.raises(InputError, match=str(tmp_path / "none")):
        load_backbone(f"{image}+{tmp_path / 'none'}")
    replaced = Path(shutil.copytree(adapter, tmp_path / "replaced"))
    MotionAdapter(block_out_channels=(8, 16, 32), motion_norm_num_groups=2).save_pretrained(replaced)
    with pytest.raises(InputError, match="motion adapter"):
        load_backbone(f"{image}+{replaced}")
    shutil.rmtree(replaced)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    UNet2DConditionModel(block_out_channels=(8, 16), norm_num_groups=2, **blocks).save_pretrained(replaced)
    with pytest.raises(
        InputError, match=r"motion_adapter/config\.json.* UNet2DConditionModel.* MotionAdapter"
    ):
        load_backbone(f"{image}+{replaced}")
    assert torch.get_default_dtype() == torch.float32
