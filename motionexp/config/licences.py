"""The licences of the real models' weights, for the cards of adapters that are made for them.

As their owners' pages on the hub named them when they were noted; nobody has compared them since. A card says
so, and links the page.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """A licence: `key` is the hub's word for it; where that is `other`, `name` and `link` say which one."""

    key: str
    name: str = ""
    link: str = ""


NON_COMMERCIAL = Licence("cc-by-nc-4.0")
APACHE = Licence("apache-2.0")
UNKNOWN = Licence("unknown")
LICENCES: Mapping[str, Licence] = {
    "ali-vilab/text-to-video-ms-1.7b": NON_COMMERCIAL,
    "cerspense/zeroscope_v2_576w": NON_COMMERCIAL,
    "showlab/show-1-base": NON_COMMERCIAL,
    "maxin-cn/Latte-1": APACHE,
    "zai-org/CogVideoX-2b": APACHE,
    "zai-org/CogVideoX-5b": Licence(
        "other", "cogvideox-license", "https://huggingface.co/zai-org/CogVideoX-5b/blob/main/LICENSE"
    ),
    "zai-org/CogVideoX-5b-I2V": Licence(
        "other", "cogvideox-license", "https://huggingface.co/zai-org/CogVideoX-5b-I2V/blob/main/LICENSE"
    ),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": Licence("creativeml-openrail-m"),
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": APACHE,
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": APACHE,
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": APACHE,
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": APACHE,
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": APACHE,
    "Lightricks/LTX-Video": Licence(
        "other", "ltx-video-license", "https://huggingface.co/Lightricks/LTX-Video/tree/main"
    ),
    "hunyuanvideo-community/HunyuanVideo": Licence(
        "other", "tencent-hunyuan-community", "https://huggingface.co/tencent/HunyuanVideo/blob/main/LICENSE"
    ),
    "genmo/mochi-1-preview": APACHE,
}
"""{hub id: licence}; of a model of two hub ids the first one's, which is the stricter one."""


def licence_of(source: str) -> Licence:
    """The licence of a model's weights by their place: `bundled:NAME`, a hub id, or two with a plus."""
    if source.startswith("bundled:"):
        return APACHE
    return LICENCES.get(source.partition("+")[0], UNKNOWN)
