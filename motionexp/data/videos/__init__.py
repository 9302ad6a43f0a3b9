"""Video files, contact sheets and labelled grids. Frames are uint8 RGB (F, H, W, 3)."""

from motionexp.data.videos.grids import contact_sheet, enlarged, side_by_side
from motionexp.data.videos.pictures import read_image
from motionexp.data.videos.psnr import psnr
from motionexp.data.videos.reading import frame_count, frame_rate, read_frames, taken_count
from motionexp.data.videos.writing import as_gif, write_gif, write_mp4, write_png

__all__ = [
    "as_gif",
    "contact_sheet",
    "enlarged",
    "frame_count",
    "frame_rate",
    "psnr",
    "read_frames",
    "read_image",
    "side_by_side",
    "taken_count",
    "write_gif",
    "write_mp4",
    "write_png",
]
