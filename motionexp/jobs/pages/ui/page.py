"""The page itself, built with Gradio. It is served to this machine alone, and asks no other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from motionexp.config.compose import load
from motionexp.config.options import options
from motionexp.errors import InputError
from motionexp.files import user_path
from motionexp.jobs.pages.ui import markup
from motionexp.jobs.pages.ui.curve import curve, in_words
from motionexp.jobs.pages.ui.progress import estimate_in_words
from motionexp.jobs.pages.ui.queue import DONE, JobQueue
from motionexp.jobs.pages.ui.request import (
    MOST_BYTES,
    MOST_EDITS,
    MOST_SECONDS,
    SUFFIXES,
    Request,
    described,
    lines_of,
    references,
    store_upload,
)
from motionexp.jobs.pages.ui.results import MEDIA, JobResult, job_result, preview

BUNDLED, UPLOAD = "a bundled reference", "a clip of your own"
DEFAULT_MODEL = "tiny_latte"
TICK_SECONDS = 1.0
FONTS = ("system-ui", "sans-serif")
MONO_FONTS = ("ui-monospace", "monospace")


@contextmanager
def served(output: str, host: str, port: int) -> Iterator[str]:
    """The page's address; at the end its jobs are stopped.

    Args:
        output: the folder of results, as it was typed.
        host, port: where the page is served.

    Raises:
        InputError: the port is taken.
    """
    folder = user_path(output).absolute()
    (folder / MEDIA).mkdir(parents=True, exist_ok=True)
    queue = JobQueue(folder / MEDIA)
    page = Page(output, queue).blocks()
    try:
        try:
            _, address, _ = page.launch(
                **{"server_name": host, "server_port": port, "share": False, "prevent_thread_lock": True},
                **{"quiet": True, "ssr_mode": False, "mcp_server": False, "pwa": False, "footer_links": []},
                allowed_paths=[str(folder)],
                max_file_size=MOST_BYTES,
                css=markup.CSS,
                theme=_theme(),
            )
        except OSError as error:
            raise InputError(f"port={port}: taken; name another port") from error
        yield address.rstrip("/")
    finally:
        queue.close()
        page.close(verbose=False)


@dataclass
class Page:
    """The page and what its controls do.

    Attributes:
        output: the folder of results, as it was typed.
        queue: of the jobs of all who opened the page.
    """

    output: str
    queue: JobQueue

    def blocks(self) -> gr.Blocks:
        """The controls, and their events."""
        with gr.Blocks(title="motionexp", analytics_enabled=False) as page:
            gr.Markdown("# motionexp\nOne video's motion, carried over to new captions.")
            with gr.Row():
                with gr.Column():
                    inputs = self._inputs()
                with gr.Column():
                    outputs = _outputs()
            self._connect(page, inputs, outputs)
        return page

    def _inputs(self) -> "Inputs":
        names = references()
        about = described(names[0])
        return Inputs(
            model=gr.Dropdown(options("model"), value=DEFAULT_MODEL, label="Model"),
            source=gr.Radio([BUNDLED, UPLOAD], value=BUNDLED, label="Reference"),
            reference=gr.Dropdown(names, value=names[0], label="Bundled reference"),
            clip=gr.File(
                label=f"Clip: {', '.join(SUFFIXES)}; at most {MOST_BYTES / 1e6:.0f} MB, {MOST_SECONDS:.0f} s",
                file_types=list(SUFFIXES),
                visible=False,
            ),
            preview=gr.HTML(label="What the model sees"),
            caption=gr.Textbox(about.caption, label="Caption of the reference", interactive=False),
            edits=gr.Textbox(
                about.edits[0].caption,
                label=f"Edits: what to show instead; one caption a line, at most {MOST_EDITS}",
                lines=2,
            ),
            method=gr.Dropdown(options("method"), value="lora", label="Method"),
            tau=gr.Slider(0, 1000, value=_tau(DEFAULT_MODEL), step=10, label="τ: the window is [τ, 1000]"),
            curve=gr.HTML(label="The probe's curve"),
        )

    def _connect(self, page: gr.Blocks, inputs: "Inputs", outputs: "Outputs") -> None:
        chosen = [inputs.model, inputs.source, inputs.reference, inputs.clip]
        shown = [inputs.preview, inputs.caption, inputs.edits]
        of_job = [*chosen, inputs.caption, inputs.edits, inputs.method, inputs.tau]
        number, result = gr.State(None), gr.State(None)
        event = partial(_event, page)
        event(
            inputs.source.change,
            lambda source: _visible(source),
            inputs.source,
            [inputs.reference, inputs.clip],
        )
        for component in (inputs.source, inputs.reference, inputs.clip):
            event(component.change, self.on_reference, chosen, shown)
        event(inputs.model.change, self.on_preview, chosen, inputs.preview)
        event(inputs.model.change, _tau, inputs.model, inputs.tau)
        for listen in (inputs.model.change, inputs.tau.change):
            event(listen, on_tau, [inputs.model, inputs.tau], inputs.curve)
        for listen in (page.load, *(component.change for component in (inputs.model, inputs.method))):
            event(listen, self.on_cost, of_job, outputs.cost)
        event(page.load, self.on_preview, chosen, inputs.preview)
        event(page.load, on_tau, [inputs.model, inputs.tau], inputs.curve)
        event(page.load, self.on_load, None, number)
        started = [number, outputs.status, outputs.command]
        event(outputs.run.click, self.on_run, [number, *of_job], started)
        event(outputs.estimate.click, partial(self.on_run, dry=True), [number, *of_job], started)
        event(outputs.stop.click, self.on_stop, number, outputs.status)
        event(
            gr.Timer(TICK_SECONDS).tick,
            self.on_tick,
            [number, result],
            [
                outputs.status,
                outputs.log,
                result,
                outputs.edit,
                outputs.videos,
                outputs.adapter,
            ],
        )
        # A job that is done tells what the next one takes.
        event(outputs.adapter.change, self.on_cost, of_job, outputs.cost)
        event(outputs.edit.change, self.on_edit, [number, outputs.edit], outputs.videos)

    # What the controls do

    def on_load(self) -> int | None:
        """The number of the job that runs, so that a page that is opened again shows it."""
        running = self.queue.running()
        return running.number if running else None

    def on_preview(self, model: str, source: str, reference: str, clip: str | None) -> str:
        """The reference's video as the model sees it."""
        if source == UPLOAD and not clip:
            return ""
        try:
            video = store_upload(Path(clip), self.output) if source == UPLOAD and clip else None
            path = preview(load([f"model={model}", f"output={self.output}"]), reference, video)
        except InputError as error:
            return markup.error(str(error))
        return markup.videos([markup.video(path, "Reference")])

    def on_reference(self, *chosen: Any) -> list[Any]:
        """The video and the captions of another reference."""
        _, source, reference, _ = chosen
        video = self.on_preview(*chosen)
        if source == UPLOAD:
            return [video, gr.Textbox("", interactive=True), gr.Textbox("")]
        about = described(reference)
        return [
            video,
            gr.Textbox(about.caption, interactive=False),
            gr.Textbox(about.edits[0].caption),
        ]

    def on_cost(self, *about: Any) -> str:
        """What the job takes, where finished cells say it."""
        try:
            return estimate_in_words(self._request(*about).settings())
        except InputError:
            return ""  # said when the job is started

    def _request(self, *about: Any) -> Request:
        model, source, reference, clip, caption, edits, method, tau = about
        if source == UPLOAD and not clip:
            raise InputError("clip: choose a file, or a bundled reference")
        video = store_upload(Path(clip), self.output) if source == UPLOAD else None
        return Request(model, method, reference, video, caption, lines_of(edits), float(tau), self.output)

    def on_run(self, number: int | None, *about: Any, dry: bool = False) -> list[Any]:
        """Put the job, or its dry run, into the queue."""
        try:
            request = self._request(*about)
            cfg, words = request.settings(), request.words()
            job = self.queue.submit(replace(cfg, dry_run=dry), request.dry_words(cfg) if dry else words)
        except InputError as error:
            return [number, markup.error(str(error)), gr.skip()]
        return [job.number, markup.status(job, self.queue), gr.Code(request.command(), visible=True)]

    def on_stop(self, number: int | None) -> str:
        """Stop the job that this page shows."""
        if job := self.queue.get(number):
            self.queue.stop(job)
        return markup.status(job, self.queue)

    def on_tick(self, number: int | None, shown: int | None) -> list[Any]:
        """How far the job is; its results when it has ended."""
        job = self.queue.get(number)
        if job is None:
            return [gr.skip()] * 6
        state = [markup.status(job, self.queue), job.printed()]
        if not job.is_over or shown == number:
            return [*([gr.skip()] * 2 if shown == number and job.is_over else state), *[gr.skip()] * 4]
        if job.state != DONE or job.cfg.dry_run:
            return [*state, number, *[gr.skip()] * 3]
        try:
            result = job_result(job.cfg)
        except InputError as error:
            return [markup.error(str(error)), state[1], number, *[gr.skip()] * 3]
        return [*state, number, *_shown(result)]

    def on_edit(self, number: int | None, caption: str | None) -> str:
        """The videos of another edit."""
        job = self.queue.get(number)
        if job is None or job.state != DONE or caption is None:
            return gr.skip()
        result = job_result(job.cfg)
        return markup.result_videos(result, caption) if caption in result.samples else gr.skip()


@dataclass(frozen=True)
class Inputs:
    """The controls that describe a job."""

    model: gr.Dropdown
    source: gr.Radio
    reference: gr.Dropdown
    clip: gr.File
    preview: gr.HTML
    caption: gr.Textbox
    edits: gr.Textbox
    method: gr.Dropdown
    tau: gr.Slider
    curve: gr.HTML


@dataclass(frozen=True)
class Outputs:
    """The controls that start a job, and that show it."""

    cost: gr.Markdown
    run: gr.Button
    estimate: gr.Button
    stop: gr.Button
    status: gr.HTML
    edit: gr.Radio
    videos: gr.HTML
    adapter: gr.DownloadButton
    command: gr.Code
    log: gr.Textbox


def _outputs() -> Outputs:
    cost = gr.Markdown()
    with gr.Row():
        run = gr.Button("Run", variant="primary")
        estimate = gr.Button("Estimate")
        stop = gr.Button("Stop", variant="stop")
    status = gr.HTML("")
    edit = gr.Radio([], label="Edit", visible=False)
    return Outputs(
        *(cost, run, estimate, stop, status, edit),
        videos=gr.HTML(""),
        adapter=gr.DownloadButton("Download the adapter", visible=False),
        command=gr.Code(
            "", label="The command that does the same", language="shell", interactive=False, wrap_lines=True,
            lines=1, visible=False,
        ),
        log=gr.Textbox(
            "", label="What the job prints", lines=6, max_lines=16, interactive=False, elem_classes="printed"
        ),
    )  # fmt: skip


def _theme() -> gr.themes.Base:
    """Gradio's own with fonts of this machine, and buttons whose letters are easy to read."""
    colours = {"primary": "*primary_700", "cancel": "#b91c1c"}
    fills = {
        f"button_{name}_background_fill{state}": colour
        for name, colour in colours.items()
        for state in ("", "_dark", "_hover", "_hover_dark")
    }
    letters = {f"button_{name}_text_color{mode}": "white" for name in colours for mode in ("", "_dark")}
    return gr.themes.Default(font=FONTS, font_mono=MONO_FONTS).set(**fills, **letters)


def _event(page: gr.Blocks, listen: Any, function: Any, inputs: Any, outputs: Any) -> None:
    """Connect an event. Jobs have a queue of their own, so that no event waits in Gradio's."""
    listen(function, inputs, outputs, queue=False, show_progress="hidden", api_visibility="private")


def _visible(source: str) -> list[Any]:
    return [gr.Dropdown(visible=source == BUNDLED), gr.File(visible=source == UPLOAD)]


def _tau(model: str) -> float:
    """The default of a model."""
    return load([f"model={model}"]).model.default_tau


def on_tau(model: str, tau: float) -> str:
    """The probe's curve of a model with tau in it."""
    return markup.picture(curve(model, tau), in_words(load([f"model={model}"])))


def _shown(result: JobResult) -> list[Any]:
    """The edits, the videos and the adapter of a job."""
    captions = list(result.samples)
    return [
        gr.Radio(captions, value=captions[0], visible=len(captions) > 1),
        markup.result_videos(result, captions[0]),
        gr.DownloadButton(value=result.adapter and str(result.adapter), visible=result.adapter is not None),
    ]
