"""What somebody chose on the page, as the words of a command, and as the settings that the command has."""

import hashlib
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motionexp.config.checks import check_device
from motionexp.config.command_line import listed_texts, named, override_key
from motionexp.config.compose import load
from motionexp.config.effects import check_effects
from motionexp.config.schema import JobConfig, model_folder
from motionexp.data.base import Description
from motionexp.data.select import check_source, make_reader
from motionexp.data.videos import frame_count, frame_rate
from motionexp.errors import InputError
from motionexp.files import plain_name, user_path

SUFFIXES = (".mp4", ".gif", ".webm", ".mov")
MOST_BYTES = 50_000_000
MOST_SECONDS = 60.0
"""Of an uploaded clip. The models take a few seconds of it."""
MOST_EDITS = 8
UPLOADS = "uploads"
"""The folder of uploaded clips below that of the results: the command line names the files in it."""
BASE_METHOD = "lora"


@dataclass(frozen=True)
class Request:
    """A job as it was chosen on the page.

    Attributes:
        model, method: options of `model=` and `method=`.
        reference: a reference of the bundled world; with a video nothing is read of it.
        video: an uploaded clip; None: the bundled reference.
        caption: of the video.
        edits: captions of what the samples should show.
        tau: the window is [tau, 1000].
        output: the folder of results, as it was typed.
    """

    model: str
    method: str
    reference: str
    video: Path | None
    caption: str
    edits: Sequence[str]
    tau: float
    output: str

    def words(self) -> list[str]:
        """The words after `python run.py`."""
        words = [f"model={self.model}"]
        if self.method != BASE_METHOD:
            words.append(f"method={self.method}")
        if self.video is not None:
            words += [f"video={self.video}", f"caption={self.caption}", listed_texts("edits", self.edits)]
        else:
            words += [named("references", [self.reference]), self._edits_of_reference()]
        return [*words, f"tau={self.tau:g}", f"output={self.output}"]

    def _edits_of_reference(self) -> str:
        """The kinds of the reference's own edits, which have scores of their own; else the captions."""
        kinds = {edit.caption: edit.kind for edit in described(self.reference).edits}
        if all(caption in kinds for caption in self.edits):
            return named("edit_kinds", [kinds[caption] for caption in self.edits])
        return listed_texts("edits", self.edits)

    def dry_words(self, cfg: JobConfig) -> list[str]:
        """The words of the dry run. Of a model from a hub it is a sweep's, which computes GPU-hours."""
        is_here = model_folder(cfg.model) is not None
        return [*([] if is_here else ["-m"]), *self.words(), "dry_run=true"]

    def command(self) -> str:
        """The command line that does the same, for a shell."""
        return shlex.join(["python", "run.py", *self.words()])

    def settings(self) -> JobConfig:
        """The checked settings of the job, as `python run.py` checks them before it loads a model.

        Raises:
            InputError: a caption is missing, or what is wrong with the settings or the clip.
        """
        if self.video is not None and not self.caption.strip():
            raise InputError("caption: write what the clip shows")
        if not 1 <= len(self.edits) <= MOST_EDITS:
            raise InputError(f"edits: one to {MOST_EDITS} captions, each on a line of its own")
        words = self.words()
        cfg = load(words)
        check_effects([(cfg, set(map(override_key, words)))])
        check_device(cfg.device)
        check_source(cfg)
        return cfg


def lines_of(text: str | None) -> list[str]:
    """The captions in a text with one on each line; a caption that is there twice counts once."""
    return list(dict.fromkeys(line.strip() for line in (text or "").splitlines() if line.strip()))


def references() -> list[str]:
    """The names of the bundled references."""
    return make_reader(load().data).names()


def described(reference: str) -> Description:
    """The captions of a bundled reference."""
    return make_reader(load().data).describe(reference)


def store_upload(file: Path, output: str) -> Path:
    """Check an uploaded clip, and copy it to where it stays: `OUTPUT/uploads/NAME-DIGEST.SUFFIX`.

    Raises:
        InputError: its type, its size or its length is beyond the limits, or it cannot be read.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(f"{file.name}: a clip is one of {', '.join(SUFFIXES)}")
    if (size := file.stat().st_size) > MOST_BYTES:
        raise InputError(f"{file.name}: {size / 1e6:.0f} MB; at most {MOST_BYTES / 1e6:.0f} MB")
    rate, count = frame_rate(file), frame_count(file)
    if rate and count / rate > MOST_SECONDS:
        raise InputError(f"{file.name}: {count / rate:.0f} s long; at most {MOST_SECONDS:.0f} s")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    folder = user_path(output) / UPLOADS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{plain_name(file.stem)[:40] or 'clip'}-{digest}{file.suffix.lower()}"
    if not path.exists():
        shutil.copyfile(file, path)
    return path
