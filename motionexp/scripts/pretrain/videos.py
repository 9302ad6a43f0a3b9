"""The pretraining videos and their latents, made once: ``python -m motionexp.scripts.pretrain.videos``."""

import argparse
import io
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from motionexp.data.shapes.render import FRAMES, SIZE, render
from motionexp.data.shapes.scenes import Scene, pretraining_scene
from motionexp.files import write_whole

CHUNK = 500
FOLDER = Path("outputs/pretrain")


def _render_chunk(path: Path, first: int, frames: int, chroma: float) -> None:
    # 3D VAEs need 4k + 1 frames. The motion then runs once in the first 4k.
    scenes = [replace(pretraining_scene(index), chroma=chroma) for index in range(first, first + CHUNK)]
    videos = np.stack([render(scene, frames, period=frames - frames % 2) for scene in scenes])
    save_array(path, videos)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy`` file whole or not at all."""
    memory = io.BytesIO()
    np.save(memory, array)
    write_whole(path, memory.getvalue())


class PretrainingVideos:
    """Rendered videos ``0 .. count - 1`` of the pretraining part, memory-mapped from chunks on disk.

    Args:
        count: how many videos, rounded up to whole chunks; missing chunks are rendered first.
        frames: of each video. Of an odd number, the motion runs once in all frames but the last.
        folder: of the chunks, which have about 100 MB each at 16 frames.
        chroma: factor of the objects' colour contrast.
    """

    def __init__(
        self,
        count: int,
        frames: int = FRAMES,
        folder: Path = FOLDER,
        processes: int | None = None,
        chroma: float = 1.0,
    ) -> None:
        self.frames, self.chroma = frames, chroma
        folder = folder / "videos" / (str(frames) if chroma == 1 else f"{frames}-chroma-{chroma:g}")
        folder.mkdir(parents=True, exist_ok=True)
        firsts = range(0, count, CHUNK)
        paths = [folder / f"{first:07d}.npy" for first in firsts]
        missing = [(path, first) for path, first in zip(paths, firsts, strict=True) if not path.exists()]
        if missing:
            with ProcessPoolExecutor(processes) as pool:
                pending = [pool.submit(_render_chunk, path, first, frames, chroma) for path, first in missing]
                for future in track(pending, f"rendering to {folder}"):
                    future.result()
        self._chunks = [np.load(path, mmap_mode="r") for path in paths]
        self.count = len(paths) * CHUNK

    def __len__(self) -> int:
        return self.count

    def video(self, index: int) -> np.ndarray:
        """Return video ``index``: uint8 (F, 64, 64, 3)."""
        return self._chunks[index // CHUNK][index % CHUNK]

    def scenes(self) -> list[Scene]:
        """Return the scenes of all videos."""
        return [replace(pretraining_scene(index), chroma=self.chroma) for index in range(self.count)]

    def single_frames(self, videos: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Return single frames by (video, frame) index: uint8 (N, 64, 64, 3)."""
        out = np.empty((len(videos), SIZE, SIZE, 3), np.uint8)
        for row, (video, frame) in enumerate(zip(videos, frames, strict=True)):
            out[row] = self.video(int(video))[frame]
        return out


class Latents:
    """Scaled latents of the pretraining videos, encoded once and memory-mapped in half precision.

    Args:
        videos: rendered.
        encode: a video (F, 64, 64, 3) uint8 to its latents (C, f, 16, 16).
        folder: of the stored latents, with a folder for each length of videos.
    """

    def __init__(
        self, videos: PretrainingVideos, encode: Callable[[np.ndarray], Tensor], folder: Path
    ) -> None:
        folder = folder / str(videos.frames)
        folder.mkdir(parents=True, exist_ok=True)
        self._chunks = []
        for first in range(0, len(videos), CHUNK):
            path = folder / f"{first:07d}.npy"
            if not path.exists():
                print(f"encoding to {path}", flush=True)
                with torch.no_grad():
                    encoded = [encode(videos.video(first + row)).half().numpy() for row in range(CHUNK)]
                save_array(path, np.stack(encoded))
            self._chunks.append(np.load(path, mmap_mode="r"))

    def batch(self, rows: np.ndarray) -> Tensor:
        """Return latents (B, C, f, 16, 16) of videos ``rows``."""
        return torch.from_numpy(np.stack([self._chunks[row // CHUNK][row % CHUNK] for row in rows])).float()


def main() -> None:
    """Render the pretraining videos."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help=f"how many videos of {FRAMES} frames")
    PretrainingVideos(parser.parse_args().count)


if __name__ == "__main__":
    main()
