"""The folder of a study: a static page with videos and questionnaires, links, instructions and the key."""

import html
import json
import string
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from motionexp.config.study import StudyConfig
from motionexp.data.base import Reference
from motionexp.data.videos import enlarged, write_mp4
from motionexp.files import user_path, version, write_whole
from motionexp.jobs.pages.study.forms import FORMS, MANNERS, Form
from motionexp.jobs.pages.study.questionnaires import (
    ELSE,
    REFERENCE,
    STILL,
    Page,
    Plan,
    make_key,
    video_namer,
)
from motionexp.jobs.pages.study.samples import Candidates, Pair, sample_video
from motionexp.jobs.references import stored_reference

KEY, SITE, ANSWERS, LINKS = "key.json", "site", "answers", "links.txt"
STATIC = Path(__file__).parent / "page"
TITLE = "Which video moves like the reference?"


def write_study(cfg: StudyConfig, candidates: Candidates, plan: Plan, command: Sequence[str]) -> Path:
    """Write a study to its new folder; returns the folder.

    `site/` is all that participants need. `key.json` says what they saw, and comes last: with it the folder
    is whole. `answers/` is for their files.

    Raises:
        InputError: a video of a sample or a reference is missing. OSError: the folder cannot be written.
    """
    folder, form = user_path(cfg.folder), FORMS[cfg.form]
    created = datetime.now(UTC).isoformat(timespec="seconds")
    key = make_key(cfg, candidates, plan)
    videos = _Videos(folder / SITE / "videos", video_namer(key), candidates, plan)
    for code, pages in plan.pages.items():
        content = {
            "study": key["study"],
            "code": code,
            "title": TITLE,
            "instructions": [*_instructions(form, len(pages))],
            "contact": cfg.contact,
            "questions": [
                {"name": question.name, "text": question.text, "about": question.about}
                for question in form.questions
            ],
            "levels": [*form.levels],
            "pages": [videos.page(page) for page in pages],
        }
        # A script, not JSON: a page from the disk may load no other kind of file.
        text = f"window.QUESTIONNAIRE = {json.dumps(content)};\n"
        _write(folder / SITE / "questionnaires" / f"{code}.js", text)
    key |= {"command": ["study", *command], "created": created, "motionexp": version()}
    for pair in key["pairs"].values():
        pair["seconds"] = videos.seconds(pair["suite"], pair["reference"])
    for path in sorted(STATIC.glob("*.*")):
        if path.name != "instructions.html":
            _write(folder / SITE / path.name, path.read_text(encoding="utf-8"))
    pages_each = len(next(iter(plan.pages.values())))
    _write(folder / SITE / "instructions.html", _printable(form, pages_each, cfg.contact))
    base = cfg.url.rstrip("/") if cfg.url else (folder / SITE).resolve().as_uri()
    _write(folder / LINKS, "".join(f"{code} {base}/index.html#{code}\n" for code in plan.pages))
    (folder / ANSWERS).mkdir()
    _write(folder / KEY, json.dumps(key, indent=1) + "\n")
    return folder


class _Videos:
    """Writes the videos of a study, each once, under names that say nothing."""

    def __init__(self, folder: Path, named: Callable[..., str], candidates: Candidates, plan: Plan) -> None:
        self.folder, self.named, self.candidates, self.plan = folder, named, candidates, plan
        self._seconds: dict[str, float] = {}

    def seconds(self, suite: str, reference: str) -> float:
        """How long the video of a reference lasts, after a page with it."""
        return self._seconds[self.named(suite, reference)]

    def page(self, page: Page) -> dict[str, Any]:
        """What a participant's page needs: captions and the files of the videos of each column."""
        name = self.named(*page.pair[:2])
        if name not in self._seconds:
            reference = self._reference(page.pair)
            self._write(name, reference.frames, reference.fps)
            self._seconds[name] = round(len(reference.frames) / reference.fps, 2)
        columns = self._checks(page) if page.is_check else [self._samples(page.pair, m) for m in page.columns]
        return {
            "caption": page.pair.caption,
            "reference": name,
            "seconds": self._seconds[name],
            "columns": columns,
        }

    def _samples(self, pair: Pair, method: str) -> list[str]:
        rows = [self.candidates.shown[pair][method].samples[seed] for seed in self.plan.seeds[pair]]
        names = []
        for row in rows:
            name = self.named(row.sample_id)
            if not (self.folder / name).exists():
                source = sample_video(self.candidates, row)
                write_whole(self.folder / name, source.read_bytes())
            names.append(name)
        return names

    def _checks(self, page: Page) -> list[list[str]]:
        """The videos of the columns of an attention check; see `questionnaires`."""
        count = len(self.plan.seeds[page.pair])
        columns = [
            # Names of their own: equal names of equal videos would give the right answer away.
            [self.named(*page.pair[:2], kind, column, place) for place in range(count)]
            for column, kind in enumerate(page.columns)
        ]
        if all((self.folder / name).exists() for names in columns for name in names):
            return columns
        reference = self._reference(page.pair)
        still = np.repeat(reference.frames[:1], len(reference.frames), axis=0)
        # The last of them differs in motion from those before it.
        moving = [still] * (count - 1) + [reference.frames[::-1]]
        videos = {REFERENCE: [reference.frames] * count, STILL: [still] * count, ELSE: moving}
        for kind, names in zip(page.columns, columns, strict=True):
            for name, frames in zip(names, videos[kind], strict=True):
                self._write(name, frames, reference.fps)
        return columns

    def _reference(self, pair: Pair) -> Reference:
        shown = next(iter(self.candidates.shown[pair].values()))
        row = next(iter(shown.samples.values()))
        return stored_reference(sample_video(self.candidates, row).parents[1], row)

    def _write(self, name: str, frames: np.ndarray, fps: float) -> None:
        if not (self.folder / name).exists():
            write_mp4(self.folder / name, enlarged(frames), fps)


def _instructions(form: Form, pages: int) -> list[str]:
    return [f"There are {pages} pages.", *form.tasks, *MANNERS]


def _printable(form: Form, pages: int, contact: str) -> str:
    """The instructions as a page to print."""
    template = string.Template((STATIC / "instructions.html").read_text(encoding="utf-8"))
    questions = [f"{question.text} {question.about}" for question in form.questions]
    end = f"Send the file with your answers to {contact}." if contact else ""
    parts: Mapping[str, str] = {
        "title": html.escape(TITLE),
        "instructions": _items(_instructions(form, pages)),
        "questions": _items(questions),
        "levels": html.escape(f"Ratings: {', '.join(form.levels)}." if form.levels else ""),
        "end": html.escape(end),
    }
    return template.substitute(parts)


def _items(texts: Sequence[str]) -> str:
    return "\n".join(f"<li>{html.escape(text)}</li>" for text in texts)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
