"""The picture of docs/methods.md: `python -m motionexp.scripts.methods_picture` (half an hour on a core).

One reference and one edit by every method at its defaults, on tiny_latte. A method that is finished in
`outputs/methods/` is not run again.
"""

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from motionexp.config.options import options
from motionexp.data.shapes.splits import ShapesReferences
from motionexp.data.videos.lossless import read_lossless_video
from motionexp.results.rows import Row, read_rows
from motionexp.scripts.programs import exit_code

REFERENCE, KIND, FRAMES = "34-zigzag-lime-square", "multiple", 6
OUTPUT, PICTURE = Path("outputs/methods"), Path("docs/methods.jpg")
FIRST = ("base", "lora")


def frames_of(row: Row) -> np.ndarray:
    """The exact frames (F, H, W, 3) of the sample that a row scores."""
    (path,) = OUTPUT.rglob(f"{row.adapter_id}/media/*{row.sample_id}.mkv")
    return read_lossless_video(path.read_bytes())[0]


def draw(lines: Sequence[tuple[str, np.ndarray]]) -> None:
    """Draw labelled videos (F, H, W, 3), one below the other, by equally spaced frames."""
    figure, axes = plt.subplots(len(lines), FRAMES, figsize=(FRAMES + 2, len(lines)), squeeze=False)
    for row, (label, video) in zip(axes, lines, strict=True):
        for axis, number in zip(row, np.linspace(0, len(video) - 1, FRAMES).round().astype(int), strict=True):
            axis.imshow(video[number])
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    figure.subplots_adjust(left=0.27, right=0.99, top=0.995, bottom=0.005, wspace=0.03, hspace=0.03)
    figure.savefig(PICTURE, dpi=90, pil_kwargs={"quality": 85})


def printed(value: float) -> str:
    """A value, or that there is none."""
    return "–" if math.isnan(value) else f"{value:.2f}"


@exit_code
def main(arguments: Sequence[str]) -> None:
    """Run the methods, and draw the reference, the base model's sample and a sample of each method."""
    names = options("method")
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "motionexp",
                "-m",
                "model=tiny_latte",
                f"method={','.join(names)}",
                f"references=[{REFERENCE}]",
            ),
            *("data.split=benchmark", f"edit_kinds=[{KIND}]", "precision=fp32", f"output={OUTPUT}"),
        ],
        check=True,
    )
    rows = {
        row.method: row for row in read_rows(OUTPUT) if row.metric == "velocity_similarity" and row.seed == 0
    }
    reference = ShapesReferences("benchmark").read(REFERENCE)
    ordered = sorted(rows, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    draw(
        [
            ("reference", reference.frames),
            *((f"{name}\nmotion {printed(rows[name].value)}", frames_of(rows[name])) for name in ordered),
        ]
    )
    print(PICTURE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
