"""The text of a card: front matter by the hub's own library, then Markdown."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from motionexp.config.licences import licence_of
from motionexp.config.metrics import METRICS
from motionexp.diffusion.schedule import Window
from motionexp.jobs.card_scores import ADAPTER, BASE, Mean
from motionexp.results.formats import Grid, markdown_text
from motionexp.results.rows import SANITY_BASELINES

if TYPE_CHECKING:
    from motionexp.jobs.card_folder import CardContent

WITHOUT_LORA = ("", "LattePipeline", "TextToVideoSDPipeline")
"""Pipelines of diffusers that load no LoRA into their network; Show-1 has none at all."""
TAGS = ("text-to-video", "lora", "motion", "motionexp")
PAPERS = (
    "V. Baherwani, Y. Ren, A. Shrivastava: Video Diffusion Models Encode Motion in Early Timesteps.",
    "V. Baherwani, Y. Ren, A. Shrivastava: Timestep-Constrained One-Shot Video Motion Customization.",
)


def card_text(content: "CardContent") -> str:
    """The whole README.md."""
    parts = [
        _front_matter(content),
        f"# The motion of {_reference(content)}, for {markdown_text(content.model.name)}",
        _summary(content),
        *_videos(content),
        "## Window",
        _window(content),
        "## Use",
        *_use(content),
        "## Training",
        _training(content),
        *_scores(content),
        "## Licence",
        _licence(content),
        "## Papers",
        "\n".join(f"- {paper}" for paper in PAPERS),
    ]
    return "\n\n".join(parts) + "\n"


def _source(content: "CardContent") -> str:
    return str(content.about.get("source") or content.model.path)


def _hub_ids(content: "CardContent") -> list[str]:
    """The backbone's repositories on the hub; none of a bundled model or a folder."""
    source = _source(content)
    ids = source.split("+")
    return [] if source.startswith(("bundled:", "/", ".", "~")) or "/" not in source else ids


def _front_matter(content: "CardContent") -> str:
    from huggingface_hub import ModelCardData

    licence, ids = licence_of(_source(content)), _hub_ids(content)
    about = {
        "license": licence.key,
        "license_name": licence.name or None,
        "license_link": licence.link or None,
        "base_model": ids or None,
        "base_model_relation": "adapter" if ids else None,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-video",
        "tags": [*TAGS],
        "widget": [{"text": caption, "output": {"url": name}} for name, caption in content.videos.items()]
        or None,
    }
    chosen: dict[str, Any] = {name: value for name, value in about.items() if value is not None}
    return f"---\n{ModelCardData(**chosen).to_yaml().strip()}\n---"


def _reference(content: "CardContent") -> str:
    return markdown_text(str(content.record.get("reference", "one video")))


def _summary(content: "CardContent") -> str:
    method, settings = content.about["method"], content.about["settings"]
    rank = f" of rank {settings['rank']}" if "rank" in settings else ""
    backbone = " and ".join(f"[{name}](https://huggingface.co/{name})" for name in _hub_ids(content))
    captions = "; ".join(f"\N{LEFT DOUBLE QUOTATION MARK}{markdown_text(text)}\N{RIGHT DOUBLE QUOTATION MARK}"
                         for text in _captions(content))  # fmt: skip
    shows = f" Its caption: {captions}." if captions else ""
    made_for = backbone or markdown_text(_source(content))
    return (
        f"An adapter ({markdown_text(method)}{rank}) for {made_for}. It was tuned on one video,"
        f" {_reference(content)}, and repeats the video's *motion* in scenes of new captions.{shows}"
    )


def _captions(content: "CardContent") -> Sequence[str]:
    recipe = content.about.get("recipe")
    captions = recipe.get("captions") if isinstance(recipe, dict) else None
    return [str(text) for text in captions] if isinstance(captions, list) else []


def _videos(content: "CardContent") -> Iterator[str]:
    if not content.videos:
        return
    yield "## Samples"
    if content.reference_video:
        yield f"The reference:\n\n{_player(content.reference_video)}"
    words = " ".join(content.scores.settings) if content.scores else ""
    yield f"Made with `{words}`:"
    for name, caption in content.videos.items():
        yield f"{_player(name)}\n\n[{markdown_text(caption)}]({name})"


def _player(name: str) -> str:
    return f'<video src="{name}" width="256" controls muted loop playsinline></video>'


def _window(content: "CardContent") -> str:
    window, about = content.window, content.in_steps
    lines = [
        f"| t | {window.low:g} to {window.high:g}, of 0 (clean) to 1000 (noise) |",
        f"| log-SNR at t = {window.low:g} | {about.log_snr[0]:.2f} |",
    ]
    if window.knots:
        knots = ", ".join(f"{weight:g} at t = {t:g}" for t, weight in window.knots)
        lines.append(f"| weight | {knots}, linear between |")
    if about.t is None:
        lines.append(f"| sampling steps | none of {about.steps} |")
    else:
        end = "it stays on to the end"
        if about.off is not None:
            end = f"it goes off at t = {about.off:g} (log-SNR {about.log_snr[1]:.2f})"
        lines.append(
            f"| sampling steps | on in {about.on} of {about.steps}, t = {about.t[0]:g} to {about.t[1]:g};"
            f" {end} |"
        )
    text = "\n".join(["| the adapter acts at | |", "|---|---|", *lines])
    if window == Window(0):
        return f"{text}\n\nThe adapter acts at all timesteps: no tool needs a setting for it."
    return (
        f"{text}\n\nNo tool reads the window from the file: without the setting below the adapter acts in all"
        " steps, and shows more of the reference's appearance."
    )


def _use(content: "CardContent") -> Iterator[str]:
    yield "With motionexp, which keeps the window by itself:"
    name, caption = content.model.name, _example(content)
    lines = (
        f"hf download {content.repository} {content.file} --local-dir adapter",
        f"python run.py adapter=adapter/{content.file} model={name} \\",
        f"""    video=reference.mp4 caption="what it shows" edits='["{caption}"]'""",
    )
    yield _code("bash", "\n".join(lines))
    yield from _in_diffusers(content, caption)
    yield from _in_comfyui(content)


def _example(content: "CardContent") -> str:
    captions = [*content.videos.values(), *_captions(content)]
    # In quotes of a shell and of Python: other signs would end them.
    plain = (text for text in captions if text.isascii() and not set(text) & set("\"'\\`$!\n"))
    return next(plain, "what the new video shows")


def _in_diffusers(content: "CardContent", caption: str) -> Iterator[str]:
    yield "### diffusers"
    if content.pipeline in WITHOUT_LORA:
        which = f"{content.pipeline} loads no LoRA into its network" if content.pipeline else (
            "diffusers has no pipeline for this model"
        )  # fmt: skip
        yield (
            f"{which}: motionexp's docs/python.md shows how peft loads the file, and how a callback keeps the"
            " window."
        )
        return
    source, model = _source(content), content.model
    place = (
        f"motionexp/bundled/{source.removeprefix('bundled:')}" if source.startswith("bundled:") else source
    )
    revision = content.about.get("revision")
    named = f', revision="{revision}"' if revision and "+" not in source else ""
    yield (
        "`keep_window` switches the adapter on and off; motionexp's docs/python.md has it, and what differs"
        " from pipeline to pipeline."
    )
    yield _code("python", f"""import torch
from diffusers import {content.pipeline}
from diffusers.utils import export_to_video
from huggingface_hub import hf_hub_download

adapter = hf_hub_download("{content.repository}", "{content.file}")
pipeline = {content.pipeline}.from_pretrained("{place}"{named}, torch_dtype=torch.bfloat16).to("cuda")
pipeline.load_lora_weights(adapter)
frames = pipeline(
    "{caption}",
    num_inference_steps={content.in_steps.steps},
    {_guidance(model.guidance_scale)},
    num_frames={model.frames},
    height={model.height},
    width={model.width},
    callback_on_step_end=keep_window,
).frames[0]
export_to_video(frames, "video.mp4", fps={model.fps:g})""")  # fmt: skip


def _guidance(scale: Any) -> str:
    """The guidance of a call of a pipeline; by expert where there are several scales."""
    if not isinstance(scale, list):
        return f"guidance_scale={scale:g}"
    return f"guidance_scale={scale[-1][1]:g}, guidance_scale_2={scale[0][1]:g}"


def _in_comfyui(content: "CardContent") -> Iterator[str]:
    yield "### ComfyUI"
    low, high = (content.share(t) for t in (content.window.low, content.window.high))
    shift = (
        "" if content.shift is None else f" at shift {content.shift:g}, which has to be that of the workflow"
    )
    frames = [f"0 from {0:g}"] if high > 0 else []
    frames += [f"1 from {high:.3g}"] + ([f"0 from {low:.3g}"] if low < 1 else [])
    yield (
        "The file has the names of diffusers' layers, which ComfyUI reads for some models and ignores for"
        " others: convert it first. Then the node Create Hook LoRA (MO), with keyframes (strength_mult from"
        f" start_percent): {', '.join(frames)}{shift}."
    )


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _training(content: "CardContent") -> str:
    about, record = content.about, content.record
    recipe = about["recipe"] if isinstance(about.get("recipe"), dict) else {}
    lines = {
        "backbone": f"{_source(content)}, weights {str(about['weights_hash'])[:12]}",
        "reference": _reference(content),
        "suite": record.get("suite"),
        "sha256 of its frames and caption": record.get("reference_hash"),
        "steps": recipe.get("steps"),
        "batch size": recipe.get("batch_size"),
        "learning rate": recipe.get("learning_rate"),
        "optimizer": recipe.get("optimizer"),
        "seed": recipe.get("seed"),
        "device": record.get("device"),
        "settings": ", ".join(f"{name} {value}" for name, value in about["settings"].items()),
        "packages": ", ".join(
            f"{name} {version}" for name, version in (recipe.get("packages") or {}).items()
        ),
    }
    table = [[name, markdown_text(str(value))] for name, value in lines.items() if value not in (None, "")]
    return Grid(["training", ""], table, "l").markdown()


def _scores(content: "CardContent") -> Iterator[str]:
    if content.scores is None:
        return
    yield "## Scores"
    scores = content.scores
    names = {**SANITY_BASELINES, ADAPTER: ADAPTER, BASE: BASE}
    header = ["score", *(names[name] for name in scores.means), "what it is"]
    questions = {value: spec.question for spec in METRICS.values() for value in spec.values}
    lines = [
        [
            markdown_text(column.label),
            *(_cell(means.get(key), column.digits) for means in scores.means.values()),
            markdown_text(questions.get(column.metric, "")),
        ]
        for key, column in scores.columns.items()
        if key in scores.means[ADAPTER]
    ]
    yield Grid(header, lines, "l" + "r" * len(scores.means) + "l").markdown()
    count = len({row.sample_id for row in scores.rows if row.seed is not None})
    more = (
        f" There are samples with {len(scores.alternatives)} other settings." if scores.alternatives else ""
    )
    missing = [SANITY_BASELINES[name] for name in SANITY_BASELINES if name not in scores.means]
    lacking = f" Not scored: {', '.join(missing)} (scoring.sanity_baselines=true)." if missing else ""
    yield (
        f"Means over {count} samples of one reference, which have no interval: they describe this adapter and"
        f" compare no methods. Columns of known videos show what a score means.{more}{lacking}"
    )


def _cell(mean: Mean | None, digits: int) -> str:
    if mean is None:
        return "\N{EN DASH}"
    text = f"{round(mean.value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return text + (f" ({mean.values} of {mean.videos})" if mean.values < mean.videos else "")


def _licence(content: "CardContent") -> str:
    licence, ids = licence_of(_source(content)), _hub_ids(content)
    if not ids:
        return (
            f"The backbone's: {licence.key}."
            if licence.key != "unknown"
            else "The backbone's, which is unknown."
        )
    page = " and ".join(f"[its page](https://huggingface.co/{name})" for name in ids)
    noted = licence.name or licence.key
    return (
        f"An adapter is made of its backbone: the backbone's licence holds, as noted {noted}. Compare it with"
        f" {page} before you use or share this. The reference may have rights of its own."
    )
