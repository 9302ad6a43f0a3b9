"""HDR as SDR, by closed forms: curves of ITU-R BT.2100, primaries of BT.2087, white of BT.2408."""

import numpy as np

# The codes of ITU-T H.273, by which files name their transfer curves.
PQ, HLG = 16, 18
WHITE = 203.0
"""Nits of diffuse white (BT.2408), which becomes 255."""
PEAK = 1000.0
"""Nits of the screen for which HLG is shown (BT.2100)."""
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
"""Of red, green and blue of BT.2020."""
BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
ROWS = 256


def tone_mapped(pixels: np.ndarray, curve: int) -> np.ndarray:
    """SDR in sRGB (H, W, 3) uint8 of HDR in BT.2020 (H, W, 3) uint16 by the curve `PQ` or `HLG`.

    Diffuse white of 203 nits becomes 255, and darker light keeps its ratio to it. Brighter light and colours
    that BT.709 does not have are clipped.
    """
    table = _pq_table() if curve == PQ else _hlg_table()
    # In bands of rows, so that memory holds few of these numbers.
    bands = (_to_sdr(table[pixels[top : top + ROWS]], curve) for top in range(0, len(pixels), ROWS))
    return np.concatenate(list(bands))


def _to_sdr(light: np.ndarray, curve: int) -> np.ndarray:
    # (rows, W, 3): relative light of PQ's screen, where white is 1, or of HLG's scene.
    if curve == HLG:
        light = light * (PEAK / WHITE * (light @ LUMINANCE) ** 0.2)[..., None]
    linear = np.clip(light @ BT2020_TO_BT709.T, 0, 1)
    return _srgb_table()[np.rint(linear * 65535).astype(np.uint16)]


def _pq_table() -> np.ndarray:
    """(65536,) light of every code; 1 is diffuse white."""
    power = np.linspace(0, 1, 65536) ** (32 / 2523)
    base = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
    return np.asarray(10000 / WHITE * base ** (16384 / 2610), np.float32)


def _hlg_table() -> np.ndarray:
    """(65536,) light of the scene for every code, 0..1."""
    code = np.linspace(0, 1, 65536)
    bright = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(code <= 0.5, code**2 / 3, bright).astype(np.float32)


def _srgb_table() -> np.ndarray:
    """(65536,) uint8 of linear light from 0 to 1."""
    light = np.linspace(0, 1, 65536)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve).astype(np.uint8)
