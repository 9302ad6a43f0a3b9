"""Parts of the page as HTML, in which all text out of data is escaped."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from motionexp.jobs.pages.ui.progress import job_progress
from motionexp.jobs.pages.ui.queue import DONE, FAILED, RUNNING, WAITING, JobQueue, UiJob
from motionexp.jobs.pages.ui.results import JobResult
from motionexp.results.formats import duration

CSS = """
.videos {display: flex; flex-wrap: wrap; gap: 12px}
.videos figure {margin: 0; flex: 1 1 180px; max-width: 320px}
.videos video {width: 100%; border-radius: 4px}
.videos figcaption {font-size: 0.9em}
.status progress {width: 100%; height: 1.2em}
.status .error {color: #b91c1c; white-space: pre-wrap}
.dark .status .error {color: #fca5a5}
.min_value, .max_value, .or {color: var(--body-text-color) !important}
.printed textarea {font-family: ui-monospace, monospace; white-space: pre; overflow-x: auto}
.curve img {max-width: 100%; background: white; border-radius: 4px}
"""


def video(path: Path, label: str, more: str = "") -> str:
    """A video that plays again and again, with its label below it."""
    source = f"/gradio_api/file={quote(str(path))}"
    text = escape(f"{label}: {more}" if more else label)
    return (
        f'<figure><video src="{source}" aria-label="{text}" autoplay loop muted playsinline controls></video>'
        f"<figcaption><b>{escape(label)}</b> {escape(more)}</figcaption></figure>"
    )


def videos(figures: Iterable[str]) -> str:
    """Videos side by side."""
    return f'<div class="videos">{"".join(figures)}</div>'


def result_videos(result: JobResult, caption: str) -> str:
    """Reference, sample of the base model and sample of the tuned model, side by side."""
    base, tuned = result.samples[caption]
    figures = [video(result.reference, "Reference")]
    figures += [video(base, "Base model", caption)] if base is not None else []
    return videos([*figures, video(tuned, "Tuned", caption)])


def picture(content: bytes | None, words: str) -> str:
    """The probe's curve with what it says in words below it; without a curve the words."""
    text = f"<p>{escape(words)}</p>"
    if content is None:
        return f'<div class="curve">{text}</div>'
    source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
    alternative = "Shares of appearance and motion that a changed caption below t still changes, and tau"
    return f'<div class="curve"><img alt="{alternative}" src="{source}">{text}</div>'


def error(text: str) -> str:
    """What is wrong, in the place of a job's state."""
    return f'<div class="status"><p class="error" role="alert">{escape(text)}</p></div>'


def status(job: UiJob | None, queue: JobQueue) -> str:
    """The state of a job, how far it is, and the queue."""
    parts = [] if job is None else _of_job(job)
    parts += _of_queue(job, queue.running(), queue.waiting())
    return f'<div class="status" role="status">{"".join(parts)}</div>'


def _of_job(job: UiJob) -> list[str]:
    name = f"Job {job.number}"
    if job.state == RUNNING and job.is_stopping:
        return [f"<p>{name} is being stopped.</p>"]
    if job.state == RUNNING:
        progress = job_progress(job)
        left = "" if progress.left is None else f"; about {duration(progress.left)} left"
        text = f"{name}: {progress.doing}; {duration(job.seconds)} so far{left}"
        bar = f'<progress aria-label="{name}" max="1" value="{progress.share:.3f}"></progress>'
        return [bar, f"<p>{escape(text)}</p>"]
    if job.state == DONE:
        return [f"<p>{name} is done, after {duration(job.seconds)}.</p>"]
    if job.state == FAILED:
        return [f'<p class="error" role="alert">{name} failed: {escape(job.error() or "see its output")}</p>']
    return [f"<p>{name} is {job.state}.</p>"]


def _of_queue(job: UiJob | None, running: UiJob | None, waiting: Sequence[UiJob]) -> list[str]:
    """Who is before a job, or that others work."""
    if job is not None and job.state == WAITING and job in waiting:
        before = waiting.index(job) + (running is not None)
        return [f"<p>Jobs before it: {before}. One job runs at a time.</p>"]
    if running is None:
        return [] if job is not None else ["<p>No job runs.</p>"]
    numbers = ", ".join(str(one.number) for one in waiting)
    rest = f"; waiting: {numbers}" if numbers else ""
    return [f"<p>Queue: job {running.number} runs{rest}.</p>"]
