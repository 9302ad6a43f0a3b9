"""The text of a card: front matter by the hub's own library, then Markdown."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from motionexp.backbones.stock_pipelines import StockSampling, callback_lines, loading_lines
from motionexp.config.licences import licence_of
from motionexp.config.metrics import METRICS
from motionexp.diffusion.schedule import Window
from motionexp.files import user_path
from motionexp.hub import is_hub_id
from motionexp.jobs.card_scores import ADAPTER, BASE, Mean
from motionexp.methods.export_formats import FILE_NAMES, READERS, SUFFIXES, shift_node, task_of
from motionexp.results.formats import Grid, decimal, markdown_text
from motionexp.results.rows import SANITY_BASELINES

if TYPE_CHECKING:
    from motionexp.jobs.card_folder import CardContent

TAGS = ("lora", "motion", "motionexp")
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
    """The place of the backbone's weights by the model's file: an adapter's own words end in no program."""
    return _published(content.model.path, content)


def _published(source: str, content: "CardContent") -> str:
    """A place of weights; in place of a folder of this machine the model's name."""
    return source if source.startswith("bundled:") or hub_ids(source) else content.model.name


def hub_ids(source: str) -> list[str]:
    """The repositories on the hub of `model.path`; none of a bundled model, or where one is a folder."""
    ids = source.split("+")
    return ids if all(is_hub_id(name) and not user_path(name).is_dir() for name in ids) else []


def _front_matter(content: "CardContent") -> str:
    from huggingface_hub import ModelCardData

    licence, ids = licence_of(_source(content)), hub_ids(_source(content))
    about = {
        "license": licence.key,
        "license_name": licence.name or None,
        "license_link": licence.link or None,
        "base_model": ids or None,
        "base_model_relation": "adapter" if ids else None,
        "library_name": "diffusers",
        "pipeline_tag": task_of(content.pipeline),
        "tags": [task_of(content.pipeline), *TAGS],
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
    backbone = " and ".join(f"[{name}](https://huggingface.co/{name})" for name in hub_ids(_source(content)))
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
    about, window = content.in_steps, content.in_steps.window
    lines = [f"| t | {window.low:g} to {window.high:g}, of 0 (clean) to 1000 (noise) |"]
    if window.low > 0:
        lines.append(f"| log-SNR at t = {window.low:g} | {about.log_snr:.2f} |")
    if window.knots:
        knots = ", ".join(f"{weight:g} at t = {t:g}" for t, weight in window.knots)
        lines.append(f"| weight | {knots}, linear between |")
    shift = "" if about.shift is None else f" (shift {about.shift:g})"
    lines.append(f"| sampling steps{shift} | {about.adapter_steps} |")
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
    image = " image=photo.png" * (task_of(content.pipeline) == "image-to-video")
    lines = (
        f"hf download {content.repository} {content.file} --local-dir adapter",
        f"python run.py adapter=adapter/{content.file} model={name} \\",
        f"    {shlex.join(content.run_words)} \\",
        f"""    video=reference.mp4 caption="what it shows" edits='["{caption}"]'{image}""",
    )
    yield _code("bash", "\n".join(lines))
    if not content.is_plain:
        yield f"No other tool applies an adapter of the method {markdown_text(content.about['method'])}."
        return
    if content.decoding_note:
        yield f"No other tool makes videos with this model. {content.decoding_note}"
        return
    yield from _in_diffusers(content, caption)
    yield from _in_comfyui(content)


def _example(content: "CardContent") -> str:
    captions = [*content.videos.values(), *_captions(content)]
    # In quotes of a shell and of Python: other signs would end them.
    plain = (text for text in captions if text.isascii() and not set(text) & set("\"'\\`$!\n"))
    return next(plain, "what the new video shows")


def _in_diffusers(content: "CardContent", caption: str) -> Iterator[str]:
    yield "### diffusers"
    if content.stock is None:
        yield f"{content.pipeline} is no pipeline of diffusers."
        return
    form = "diffusers" if content.pipeline in READERS["diffusers"] else "peft"
    load = ["pipeline.load_lora_weights(adapter)"]
    if form == "peft":
        yield f"{content.pipeline} loads no LoRA. peft does, in its format:"
        loras = dict.fromkeys(content.components, PurePath(FILE_NAMES["peft"]))
    elif "transformer_2" not in content.components:
        loras = {}
    else:
        yield "Each of the two experts needs a file of its own:"
        loras = {name: PurePath(f"exported_{SUFFIXES[name]}.safetensors") for name in content.components}
    if loras:
        yield _code("bash", _export(content, form, "exported"))
        load = loading_lines(form, loras, "exported", "pipeline")
    yield _code("python", _program(content, content.stock, caption, load))
    if differences := [*content.stock.differences, *_other_differences(content, form)]:
        yield "What this program lacks: " + "; ".join(differences) + "."


def _other_differences(content: "CardContent", form: str) -> Iterator[str]:
    if content.adapter_scale != 1 and form == "peft":
        yield f"the samples were made with adapter_scale={content.adapter_scale:g}"
    for word in content.run_words:
        if word.startswith(("sampling_tau", "adapter_in_unconditional=")):
            yield f"the samples were made with {word}"


def _export(content: "CardContent", form: str, folder: str) -> str:
    words = shlex.join(content.export_words)
    return f"python run.py export adapter=adapter/{content.file} format={form} folder={folder} {words}"


def _program(content: "CardContent", stock: StockSampling, caption: str, load: Sequence[str]) -> str:
    model, parts = content.model, _source(content).split("+")
    place = parts[0].replace("bundled:", "motionexp/bundled/")
    options = {"revision": f'"{model.revision}"'} if model.revision and len(parts) == 1 else {}
    imports, load_motion = [content.pipeline, *stock.imports], list[str]()
    if len(parts) == 2:  # an image model, and what moves it
        imports, options = [*imports, "MotionAdapter"], {"motion_adapter": "motion"}
        load_motion = [f'motion = MotionAdapter.from_pretrained("{parts[1]}", torch_dtype=torch.bfloat16)']
    options |= {**stock.options, "torch_dtype": "torch.bfloat16"}
    arguments = ", ".join(f"{name}={value}" for name, value in options.items())
    has_image = task_of(content.pipeline) == "image-to-video"
    before, callback = callback_lines(content.pipeline, "adapter", "pipeline")
    scaled = [f"pipeline.set_adapters(pipeline.get_active_adapters(), {content.adapter_scale:g})"]
    lines = [
        "import motionexp",
        "import torch",
        f"from diffusers import {', '.join(sorted(imports))}",
        f"from diffusers.utils import export_to_video{', load_image' * has_image}",
        "from huggingface_hub import hf_hub_download",
        *["from peft import PeftModel"] * ("PeftModel" in load[0]),
        "",
        f'adapter = hf_hub_download("{content.repository}", "{content.file}")',
        *load_motion,
        f'pipeline = {content.pipeline}.from_pretrained("{place}", {arguments})',
        *stock.lines,
        'pipeline.to("cuda")',
        *load,
        *scaled * (content.adapter_scale != 1 and "PeftModel" not in load[0]),
        *before,
        "frames = pipeline(",
        *['    image=load_image("photo.png"),  # of the aspect of the video'] * has_image,
        f'    {"prompt=" * has_image}"{caption}",',
        # A line of three ` would end the program.
        *(f"    {name}={value.replace('`', chr(92) + 'x60')}," for name, value in stock.arguments.items()),
        f"    {callback},",
        ").frames[0]",
        f'export_to_video(frames, "video.mp4", fps={model.fps:g})',
    ]
    return "\n".join(lines)


def _in_comfyui(content: "CardContent") -> Iterator[str]:
    yield "### ComfyUI"
    if content.pipeline not in READERS["comfyui"]:
        yield f"ComfyUI reads no LoRA for {content.pipeline}."
        return
    frames = ", ".join(f"{weight:g} from {start:g}" for start, weight in content.in_steps.keyframes)
    node = shift_node(content.pipeline, content.in_steps.shift)
    at = f" They are percents of the model's shift: take {node}." if node else ""
    yield (
        "This command writes the names that ComfyUI reads, a workflow with the window, and the text for"
        " prompt-control:"
    )
    yield _code("bash", _export(content, "comfyui", "NEW"))
    yield (
        "By hand: the node Create Hook LoRA (MO) with keyframes of strength_mult from start_percent:"
        f" {frames}.{at}"
    )


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _training(content: "CardContent") -> str:
    about, record = content.about, content.record
    recipe = about["recipe"] if isinstance(about.get("recipe"), dict) else {}
    packages = recipe["packages"] if isinstance(recipe.get("packages"), dict) else {}
    place = str(about.get("source") or content.model.path)
    lines = {
        "backbone": f"{_published(place, content)}, weights {str(about['weights_hash'])[:12]}",
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
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
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
        if key in scores.means.get(ADAPTER, {})
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
    of_videos = f" ({mean.values} of {mean.videos})" if mean.values < mean.videos else ""
    return decimal(mean.value, digits) + of_videos


def _licence(content: "CardContent") -> str:
    licence, ids = licence_of(_source(content)), hub_ids(_source(content))
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
