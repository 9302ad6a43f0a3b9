"""The folder of a hub's repository for an adapter: its card, the file and videos, from its cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.backbones.stock_pipelines import StockSampling, stock_sampling
from motionexp.config.adapter_files import FILE_NAME, adapter_file
from motionexp.config.card import CardConfig
from motionexp.config.compose import load
from motionexp.config.export import SAMPLING as EXPORT_SAMPLING
from motionexp.config.export import method_inverted_noise
from motionexp.config.options import options
from motionexp.config.sampling import BEFORE, sampling_words
from motionexp.config.schema import RECIPE_SETTINGS, ModelConfig
from motionexp.data.videos import enlarged, write_mp4
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.flow_matching import respaced
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.files import file_name, write_whole
from motionexp.jobs.card_scores import Scores, read_scores, sample_files
from motionexp.jobs.card_text import card_text
from motionexp.jobs.cell import Cell, read_fit_record
from motionexp.jobs.export_card import WindowSettings
from motionexp.jobs.machine import clear_disk_errors
from motionexp.jobs.plan import BackboneSettings
from motionexp.jobs.references import stored_reference
from motionexp.methods.adapters import StoredAdapter, plain_window, read_adapter, read_window
from motionexp.results.rows import ROWS_NAME

README = "README.md"
REFERENCE = "reference.mp4"
SAMPLING = (
    *RECIPE_SETTINGS,
    *("eta", "frames", "adapter_scale", "adapter_in_unconditional", "sampling_tau", "sampling_tau_high"),
    "inverted_noise",
)
ALWAYS_SAID = ("sampler", "steps", "shift", "guidance_scale")  # though they may be the model's own
COMMIT = "An adapter of motionexp with its card"


@dataclass(frozen=True)
class CardContent:
    """All that a card says.

    Attributes:
        file: the adapter's name in the repository.
        about: the metadata of the adapter: model, source, method, window, settings and recipe.
        record: of its training; empty: the adapter has no cell.
        in_steps: the adapter's window in the steps of the sampling.
        pipeline: the class in diffusers; empty: it has none.
        model: its settings.
        scores: of the samples that are shown; None: there are none.
        videos: {name of a file below the card: what it shows}.
        reference_video: the name of the reference's file; empty: it is not included.
        repository: USER/NAME, or a placeholder.
        stock: how the pipeline samples as these samples were made; None: diffusers has none.
        run_words, export_words: the sampling as words of `run.py` and `run.py export`.
        adapter_scale: of the samples.
        is_plain: whether the adapter is a pair of matrices for each layer, which other tools apply.
        components: the pipeline's networks that the adapter tunes.
        decoding_note: why the pipeline cannot decode the model's latents; empty: it can.
    """

    file: str
    about: Mapping[str, Any]
    record: Mapping[str, Any]
    in_steps: WindowSettings
    pipeline: str
    model: ModelConfig
    scores: Scores | None
    videos: Mapping[str, str]
    reference_video: str
    repository: str
    stock: StockSampling | None
    run_words: Sequence[str]
    export_words: Sequence[str]
    adapter_scale: float
    is_plain: bool
    components: Sequence[str]
    decoding_note: str


def write_card(cfg: CardConfig, select: Mapping[str, str]) -> Path:
    """Write the folder of a hub repository: README.md, the adapter and videos; upload it if `push=` says so.

    Args:
        cfg: the settings.
        select: which samples are shown, by their rows.

    Returns:
        The folder.

    Raises:
        InputError: the adapter is damaged or another trainer's, its model is unknown here, no sample has what
            is selected, or README.md is there with other text; or the hub refuses the upload.
    """
    file, folder = adapter_file(cfg.adapter), cfg.target
    stored = read_adapter(file)
    cell = Cell(file.parents[1]) if (file.parents[1] / ROWS_NAME).is_file() else None
    if cell is None and (select or cfg.reference_video):
        word = f"{next(iter(select))}=" if select else "reference_video=true"
        raise InputError(f"{word}: the adapter lies in no cell, so that it has no samples")
    scores = None if cell is None else read_scores(cell, select)
    copies, captions = {FILE_NAME: file}, dict[str, str]()
    if cell is not None and scores is not None:
        for number, (row, path) in enumerate(sample_files(cell, scores), start=1):
            name = f"samples/{number}-{file_name(row.edit_kind)}-{row.seed}.mp4"
            copies[name], captions[name] = path, row.edit_caption
    reference = None
    if cfg.reference_video and cell is not None and scores is not None:
        reference = stored_reference(cell.folder, scores.rows[0])
    videos = captions, REFERENCE if reference is not None else ""
    content = _content(stored, file, scores, videos, cfg.push or "USER/NAME")
    _write(folder, copies, card_text(content))
    names = [README, *copies]
    if reference is not None:
        write_mp4(folder / REFERENCE, enlarged(reference.frames), reference.fps)
        names.append(REFERENCE)
    print(f"card: {folder / README}")
    if cfg.push is not None:
        print(f"uploaded to {_push(cfg, folder, names)}")
    return folder


def _content(
    stored: StoredAdapter,
    file: Path,
    scores: Scores | None,
    videos: tuple[Mapping[str, str], str],
    repository: str,
) -> CardContent:
    about = stored.about
    if about["model"] not in options("model"):
        raise InputError(
            f"adapter={file}: it is for the model {about['model']:.80}, of which conf/model/ has no file"
        )
    cfg = load([f"model={about['model']}"])
    model = cfg.model
    defaults = {name: getattr(cfg, name) for name in SAMPLING}
    settings = _sampling(defaults | {"inverted_noise": method_inverted_noise(about["method"])}, scores)
    source = scores.rows[0].settings.get("model", {}) if scores else {}
    size = settings["frames"], source.get("height", model.height), source.get("width", model.width)
    sized = replace(model, frames=size[0], height=size[1], width=size[2])
    backbone = _without_weights(sized)
    if not isinstance(backbone, PipelineBackbone):
        raise InputError(
            f"adapter={file}: {model.name} is in no pipeline of diffusers, which a card is about"
        )
    steps, window = settings["steps"], _window(about["window"], file)
    schedule = respaced(backbone.schedule, settings["shift"], settings["timestep_spacing"])
    words = sampling_words(settings, ALWAYS_SAID, defaults)
    sizes = {"model.height": (size[1], model.height), "model.width": (size[2], model.width)}
    exported = {name: settings[name] for name in EXPORT_SAMPLING if name in settings}
    return CardContent(
        *(FILE_NAME, about, read_fit_record(file)),
        WindowSettings.of(window, schedule, settings["sampler"], steps, backbone, stored.tensors),
        *(backbone.pipeline, sized, scores),
        *videos,
        repository,
        stock=stock_sampling(backbone, schedule, settings, steps, size, model.max_caption_tokens),
        run_words=[
            *words,
            *(f"{name}={length}" for name, (length, default) in sizes.items() if length != default),
        ],
        export_words=sampling_words(exported, ALWAYS_SAID, defaults),
        adapter_scale=settings["adapter_scale"],
        is_plain=_is_plain(stored),
        components=sorted({key.partition(".")[0] for key in stored.tensors}),
        decoding_note=backbone.decoding_note,
    )


def _sampling(defaults: Mapping[str, Any], scores: Scores | None) -> dict[str, Any]:
    """As the samples that are shown were made; without samples, as the model's recipe has it."""
    if scores is None:
        return dict(defaults)
    recorded = scores.rows[0].settings
    values = {name: recorded.get(name, BEFORE.get(name, value)) for name, value in defaults.items()}
    return values | {"steps": scores.steps}


def _is_plain(stored: StoredAdapter) -> bool:
    try:
        plain_window(stored, "")
    except InputError:
        return False
    return True


def _window(stored: Mapping[str, Any], file: Path) -> Window:
    try:
        return read_window(stored)
    except InputError as error:
        raise InputError(f"adapter={file}: {error}") from error


def _without_weights(model: ModelConfig) -> Backbone:
    settings = BackboneSettings(model, model.frames, "fp32")
    return settings.make(torch.device("meta"))


def _write(folder: Path, copies: Mapping[str, Path], text: str) -> None:
    readme = folder / README
    if readme.exists() and readme.read_bytes() != text.encode():
        raise InputError(
            f"folder={folder}: {README} is there with other text: delete it, or name a new folder (to upload"
            f" what you changed by hand: hf upload USER/NAME {folder})"
        )
    with clear_disk_errors(str(folder)):
        for name, path in copies.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, path.read_bytes())
        write_whole(readme, text.encode())


def _push(cfg: CardConfig, folder: Path, names: Sequence[str]) -> str:
    """Upload the files of a card; returns the repository's address. Raises InputError where it fails."""
    from huggingface_hub import HfApi, errors

    # The first base is the error of the library by which the hub's client talks to it.
    refusals: Any = (OSError, ValueError, errors.HfHubHTTPError.__bases__[0])
    repository, api = str(cfg.push), HfApi()
    try:
        url = api.create_repo(repository, private=cfg.private, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, allow_patterns=[*names], commit_message=COMMIT
        )
    except refusals as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"push={repository}: the hub did not take it ({reason:.300}): after `hf auth login` repeat the"
            f" command; the files lie in {folder}"
        ) from error
    return str(url)
