"""The folder of a hub's repository for an adapter: its card, the file and videos, from its cell."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.config.adapter_files import FILE_NAME, adapter_file
from motionexp.config.card import CardConfig
from motionexp.config.compose import load
from motionexp.config.options import options
from motionexp.config.schema import RECIPE_SETTINGS, JobConfig, ModelConfig
from motionexp.data.videos import enlarged, write_mp4
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.flow_matching import FlowSchedule, respaced
from motionexp.diffusion.schedule import TIMESTEPS, Window
from motionexp.diffusion.solvers import solver_of
from motionexp.errors import InputError
from motionexp.files import file_name, write_whole
from motionexp.jobs.card_scores import Scores, read_scores, sample_files
from motionexp.jobs.card_text import card_text
from motionexp.jobs.cell import Cell, read_fit_record
from motionexp.jobs.machine import clear_disk_errors
from motionexp.jobs.plan import BackboneSettings
from motionexp.jobs.references import stored_reference
from motionexp.methods.adapters import METADATA_KEY, check_adapter
from motionexp.results.rows import ROWS_NAME

README = "README.md"
REFERENCE = "reference.mp4"
COMMIT = "An adapter of motionexp with its card"


@dataclass(frozen=True)
class WindowInSteps:
    """What a window means in sampling.

    Attributes:
        steps: sampling steps.
        on: in how many of them the adapter acts.
        t: of the first and the last of these; None: it acts in none.
        off: the first t after them at which it does not act; None: it acts to the end.
        log_snr: at the window's lower end, and at `off`.
    """

    steps: int
    on: int
    t: tuple[float, float] | None
    off: float | None
    log_snr: tuple[float, float | None]

    @classmethod
    def of(cls, window: Window, backbone: Backbone, steps: int, sampler: str = "ddim") -> "WindowInSteps":
        """The window along a backbone's sampling steps."""
        timesteps = [float(t) for t in solver_of(backbone.schedule, sampler, steps).timesteps]
        inside = [place for place, t in enumerate(timesteps) if window.contains(t)]
        after = timesteps[inside[-1] + 1 :][:1] if inside else []

        def log_snr(t: float) -> float:
            # t = 0 is clean data; the schedule's first timestep stands for it.
            return float(backbone.schedule.log_snr(min(max(t, 1.0), 999.0)))

        return cls(
            steps,
            len(inside),
            (timesteps[inside[0]], timesteps[inside[-1]]) if inside else None,
            after[0] if after else None,
            (log_snr(window.low), log_snr(after[0]) if after else None),
        )


@dataclass(frozen=True)
class CardContent:
    """All that a card says.

    Attributes:
        file: the adapter's name in the repository.
        about: the metadata of the adapter: model, source, method, window, settings and recipe.
        record: of its training; empty: the adapter has no cell.
        window, in_steps: of the adapter.
        pipeline: the class in diffusers; empty: it has none.
        model: its settings.
        scores: of the samples that are shown; None: there are none.
        videos: {name of a file below the card: what it shows}.
        reference_video: the name of the reference's file; empty: it is not included.
        repository: USER/NAME, or a placeholder.
        shift: of flow matching; None: the schedule is discrete.
    """

    file: str
    about: Mapping[str, Any]
    record: Mapping[str, Any]
    window: Window
    in_steps: WindowInSteps
    pipeline: str
    model: ModelConfig
    scores: Scores | None
    videos: Mapping[str, str]
    reference_video: str
    repository: str
    shift: float | None

    def share(self, t: float) -> float:
        """The share of ComfyUI's schedule, 0 (noise) to 1, at t: its `percent_to_sigma` inverted."""
        if self.shift is None:
            return min(1.0, max(0.0, 1 - t / (TIMESTEPS - 1)))
        sigma = t / TIMESTEPS
        return 1 - sigma / (self.shift - (self.shift - 1) * sigma)


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
    file, folder = adapter_file(cfg.adapter or ""), cfg.target
    about = _read_about(file)
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
    content = _content(about, file, scores, videos, cfg.push or "USER/NAME")
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
    about: Mapping[str, Any],
    file: Path,
    scores: Scores | None,
    videos: tuple[Mapping[str, str], str],
    repository: str,
) -> CardContent:
    if about["model"] not in options("model"):
        raise InputError(
            f"adapter={file}: it is for the model {about['model']:.80}, of which conf/model/ has no file"
        )
    model = _with_recipe(load([f"model={about['model']}"]), scores.rows[0].settings if scores else {})
    backbone, window = _without_weights(model), _window(about["window"], file)
    backbone.schedule = respaced(backbone.schedule, model.shift, model.timestep_spacing)
    in_steps = WindowInSteps.of(window, backbone, scores.steps if scores else model.steps, model.sampler)
    shift = backbone.schedule.shift if isinstance(backbone.schedule, FlowSchedule) else None
    pipeline = backbone.pipeline if isinstance(backbone, PipelineBackbone) else ""
    return CardContent(
        *(FILE_NAME, about, read_fit_record(file), window, in_steps, pipeline, model, scores),
        *videos,
        repository,
        shift,
    )


def _with_recipe(cfg: JobConfig, settings: Mapping[str, Any]) -> ModelConfig:
    """A model's settings with those of sampling that samples were made with, or else those of its recipe."""
    chosen = {name: settings.get(name, getattr(cfg, name)) for name in RECIPE_SETTINGS}
    return replace(cfg.model, **chosen)


def _read_about(file: Path) -> dict[str, Any]:
    """The metadata of an adapter of motionexp, whose content agrees with its digest."""
    check_adapter(file, has_window=True)
    with safe_open(file, framework="np") as tensors:
        metadata = tensors.metadata() or {}
    if METADATA_KEY not in metadata:
        raise InputError(
            f"adapter={file}: of another trainer: the file says nothing of a window or a training, which a"
            " card is about"
        )
    about: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    return about


def _window(stored: Mapping[str, Any], file: Path) -> Window:
    try:
        return Window(stored["low"], stored["high"], tuple((t, w) for t, w in stored.get("knots", ())))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"adapter={file}: its window is not of this version ({error})") from error


def _without_weights(model: ModelConfig) -> Backbone:
    settings = BackboneSettings(model, model.frames, "fp32", "auto", False, False, False, False)
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
