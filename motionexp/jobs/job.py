"""What the cells of one job share: settings, a backbone loaded once, and how a cell is fit and sampled."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import OmegaConf
from rich.console import Console
from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.backbones.memory import give_memory_back
from motionexp.backbones.precision import DTYPES, resolve_device, resolve_precision
from motionexp.config.ids import adapter_id, sample_id
from motionexp.config.metrics import check_metrics
from motionexp.config.schema import JobConfig, checkpoints, method_name, offloads, tiles
from motionexp.data.base import Edit, Reference
from motionexp.data.select import make_reader
from motionexp.diffusion.backbone import Backbone
from motionexp.diffusion.schedule import Window
from motionexp.jobs import checks, inputs, provenance
from motionexp.jobs.anchors import anchor_rows
from motionexp.jobs.cell import FIT_FILE, Cell, write_json
from motionexp.jobs.checks import check_grid
from motionexp.jobs.encoding_cache import EncodingCache
from motionexp.jobs.evaluation import peak_memory, sample
from motionexp.jobs.loggers import make_logger
from motionexp.jobs.scoring import Samples, Wanted, score_cell
from motionexp.jobs.summary import write_grid
from motionexp.methods.adapters import Recipe, check_adapter, load_adapter, save_adapter
from motionexp.methods.base import TuningMethod
from motionexp.methods.training import Example, FitResult, fit
from motionexp.metrics.scorer import Scorer, ScoringModels
from motionexp.results.rows import Row


def encode(backbone: Backbone, reference: Reference) -> Example:
    """A reference as training takes it: its latents and its embedded caption."""
    frames = torch.from_numpy(reference.frames.copy())[None]
    return Example(backbone.encode(frames), backbone.embed([reference.caption]))


class Job:
    """One backbone, loaded once, and what its cells share.

    What can be wrong with references, captions, metrics and a kept adapter's file is looked at before weights
    are loaded.
    """

    def __init__(self, cfg: JobConfig, console: Console) -> None:
        self.cfg, self.console = cfg, console
        self.output = Path(cfg.output).expanduser()
        self.reader = make_reader(cfg)
        self.references = inputs.read_references(cfg, self.reader)
        check_metrics(cfg.metrics, [each.name for each in self.references if each.truth is None])
        if cfg.adapter is not None:
            check_adapter(Path(cfg.adapter).expanduser(), cfg.tau is not None, cfg.plugins)
        self.device = resolve_device(cfg.device)
        checks.check_offload(cfg, self.device)
        self.precision = resolve_precision(self.device, cfg.precision)
        checks.check_probed(self.references, cfg)
        checks.check_captions(self.references, cfg)
        checks.check_boundary(cfg)
        checks.check_attention(cfg)
        if cfg.probe is not None:
            check_grid(cfg)
        give_memory_back()  # of an earlier job of a sweep
        self.backbone = self.make_backbone(self.device)
        self.window = self._window()
        self.sampling_window = inputs.sampling_window(cfg, self.window)
        precisions = "-".join(dict.fromkeys([self.precision, self.text_precision, *["tiles"] * tiles(cfg)]))
        self.cache = EncodingCache(self.output / ".cache", self.backbone, precisions)
        self._scored: Samples | None = None

    def make_backbone(self, device: torch.device) -> Backbone:
        """The backbone of the settings on a device; its weights are loaded when they are needed."""
        cfg, model = self.cfg, self.cfg.model
        backbone: Backbone = get_object(model._target_)(
            model.path,
            revision=model.revision,
            device=device,
            dtype=DTYPES[self.precision],
            name=model.name,
            fps=model.fps,
            checkpointing=checkpoints(cfg),
            offload=device.type != "meta" and offloads(cfg, device.type),
            tiling=tiles(cfg),
            text_precision=cfg.text_precision,
        )
        if model.frame_range is not None:
            backbone.frames = cfg.frames  # such a model has no number of its own
        if backbone.any_size:
            backbone.height, backbone.width = model.height, model.width
            backbone.latent_shape(cfg.frames, model.height, model.width)
        checks.check_size(backbone, cfg)
        return backbone

    @property
    def text_precision(self) -> str:
        """What captions are embedded in: the network's precision, or the text encoder's own bits."""
        return self.precision if self.cfg.text_precision == "auto" else self.cfg.text_precision

    @property
    def tau(self) -> float:
        """The window's lower end."""
        return self.window.low

    def _window(self) -> Window:
        """The settings' window; of a kept adapter its own, as far as the settings say no other."""
        cfg = self.cfg
        if cfg.adapter is None:
            return inputs.training_window(cfg, cfg.tau)
        given = None if cfg.tau is None else Window(cfg.tau)
        # Attached to a backbone without weights: the job's own is to load after the text encoder is gone.
        method = load_adapter(
            Path(cfg.adapter).expanduser(), self.make_backbone(torch.device("meta")), given, cfg.plugins
        )
        method.remove()
        own = method.window
        if cfg.tau is None and cfg.tau_high >= own.high:
            return own
        low = own.low if cfg.tau is None else cfg.tau
        return Window(low, max(low, min(own.high, cfg.tau_high)))

    @cached_property
    def scorer(self) -> Scorer:
        """The metrics and their models, which wait in main memory; see `at_work`."""
        models, folder = self._scoring_models, self.output / ".cache" / "features"
        return Scorer(self.cfg.metrics, models, chance_references=self.others, folder=folder)

    @cached_property
    def others(self) -> list[Reference]:
        """References against which chance is measured."""
        size = self.cfg.frames, self.cfg.model.height, self.cfg.model.width
        return inputs.chance_references(self.cfg, self.reader, size, self.references)

    @cached_property
    def probe_scorer(self) -> Scorer:
        """What probes measure, whatever `metrics=` says; without ground truth what needs none."""
        return Scorer(None, self._scoring_models, use="probes")

    def check_scoring(self) -> None:
        """Load what scores, and give it every caption: what is wrong there is said before the network loads.

        Raises:
            InputError: a model cannot be had, or a caption is too long for one.
        """
        scorer = self.scorer if self.cfg.probe is None else self.probe_scorer
        for reference in self.references:
            for caption in (reference.caption, *(edit.caption for edit in reference.edits)):
                scorer.features.caption(caption)

    @contextmanager
    def at_work(self, scorer: Scorer) -> Iterator[Scorer]:
        """The scorer on the job's device; afterwards its room there is free for the network again."""
        scorer.to(self.device)
        try:
            yield scorer
        finally:
            scorer.to(torch.device("cpu"))
            give_memory_back()

    @property
    def _scoring_models(self) -> ScoringModels:
        return inputs.scoring_models(self.cfg.scoring, self.cfg.model.closed_vocabulary)

    @property
    def trains(self) -> bool:
        """Whether cells of this job have an adapter of their own."""
        return self.cfg.adapter is None and self.cfg.tau != 1000

    def cell(self, reference: Reference, cfg: JobConfig | None = None) -> Cell:
        """The folder of a reference's cell, under these settings or others."""
        key = adapter_id(
            cfg or self.cfg,
            weights_hash=self.backbone.weights_hash,
            precision=self.precision,
            reference_hash=reference.trained_hash,
        )
        return Cell(self.output / reference.suite / self.cfg.model.name / key)

    def wanted(self, reference: Reference, seeds: int, cfg: JobConfig | None = None) -> list[Wanted]:
        """The samples of a reference, under these settings or others."""
        adapter = self.cell(reference, cfg).folder.name
        return [
            Wanted(edit, index, sample_id(cfg or self.cfg, adapter, caption=edit.caption, index=index))
            for edit in reference.edits
            for index in range(seeds)
        ]

    def run_cell(self, reference: Reference) -> list[Row]:
        """Do what is missing of one cell, and return the rows that were asked for."""
        cell, wanted = self.cell(reference), self.wanted(reference, self.cfg.seeds)
        about = {"reference": reference.name, "tau": self.tau, "adapter_id": cell.folder.name}
        waiting = f"another process works on {cell.folder}: waiting for it"
        with cell.running(about, lambda: self.console.print(waiting, markup=False)):
            cell.write_config(OmegaConf.to_yaml(OmegaConf.structured(self.cfg)))
            if self.unfinished(reference):
                self._generate(cell, reference, self.missing(reference))
            self._scored = Samples(cell)
            with self.at_work(self.scorer) as scorer:
                return score_cell(self._scored, reference, wanted, scorer, self.common(cell, reference))

    def anchors(self, reference: Reference) -> list[Row]:
        """The rows of a reference's anchors, where they are asked for."""
        if not self.cfg.scoring.sanity_baselines:
            return []
        name = f"anchors-{reference.content_hash[:12]}"
        cell = Cell(self.output / reference.suite / self.cfg.model.name / name)
        with self.at_work(self.scorer) as scorer:
            return anchor_rows(cell, reference, scorer, self.common(cell, reference))

    def missing(self, reference: Reference) -> list[Wanted]:
        """The samples of a reference that are not there yet."""
        cell = self.cell(reference)
        wanted = self.wanted(reference, self.cfg.seeds)
        return [each for each in wanted if not cell.has_sample(each.edit, each.index, each.sample_id)]

    def unfinished(self, reference: Reference) -> bool:
        """Whether there is anything to train or to sample."""
        return bool(self.missing(reference)) or (self.trains and not self.cell(reference).has_adapter)

    def encode(self) -> None:
        """Encode all that the unfinished cells need, and give the encoders' memory back."""
        references = [each for each in self.references if self.unfinished(each)]
        captions = [edit.caption for each in references for edit in each.edits]
        trained_on = [each for reference in references for each in reference.trained_on]
        captions += [each.caption for each in trained_on] + [self.cfg.negative_prompt]
        self.cache.fill(trained_on if self.trains else [], captions if references else [])

    def _generate(self, cell: Cell, reference: Reference, missing: Sequence[Wanted]) -> None:
        method = self._method(cell, reference)
        ids = {(each.edit.caption, each.index): each.sample_id for each in missing}
        try:
            with tqdm(total=0, desc="sample", unit="step", leave=False) as bar:

                def progress(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                for made in sample(
                    self.backbone,
                    method,
                    [(each.edit, each.index) for each in missing],
                    inputs.sample_settings(self.cfg),
                    memory=inputs.sampling_memory(self.cfg, self.device),
                    embed=self.cache.conditioning,
                    progress=progress,
                ):
                    cell.keep_sample(made, ids[made.edit.caption, made.index], self.backbone.fps)
        finally:
            if method is not None:
                method.remove()

    def _method(self, cell: Cell, reference: Reference) -> TuningMethod | None:
        """The method to sample with, attached: given, kept, or trained now; None for the base model."""
        cfg = self.cfg
        if cfg.adapter is not None:
            method = load_adapter(Path(cfg.adapter).expanduser(), self.backbone, self.window, cfg.plugins)
            method.window = self.sampling_window
            return method
        if not self.trains:
            return None
        if cell.has_adapter:
            method = load_adapter(cell.adapter, self.backbone, plugins=cfg.plugins)
            method.window = self.sampling_window
            return method
        settings = dict(cfg.method)
        method = get_object(settings.pop("_target_"))(self.backbone, self.window, **settings)
        try:
            self._fit(cell, reference, method)
        except BaseException:
            method.remove()
            raise
        method.window = self.sampling_window
        return method

    def _fit(self, cell: Cell, reference: Reference, method: TuningMethod) -> None:
        cfg = self.cfg
        settings = inputs.training_settings(cfg)
        examples = [
            Example(self.cache.latents(each), self.cache.conditioning(each.caption))
            for each in reference.trained_on
        ]
        logger = make_logger(cfg.logger, cell.folder / "logs", inputs.row_settings(cfg))
        try:
            result = fit(
                self.backbone,
                method,
                examples,
                settings,
                cell.adapter,
                logger=logger,
                on_preview=lambda step: self._preview(cell, reference.edits[0], method, step),
                on_keep=lambda done: self._keep(reference, method, done),
            )
        finally:
            if cfg.logger == "wandb":
                logger.experiment.finish()
        self._keep(reference, method, result)
        if result.checkpoint is not None:
            result.checkpoint.unlink()

    def _keep(self, reference: Reference, method: TuningMethod, result: FitResult) -> None:
        """Keep the adapter in the cell of as many training steps as are done."""
        cfg = replace(self.cfg, train_steps=len(result.losses))
        cell = self.cell(reference, cfg)
        recipe = Recipe(
            captions=[each.caption for each in reference.trained_on],
            seed=cfg.seed,
            steps=cfg.train_steps,
            batch_size=cfg.batch_size,
            learning_rate=cfg.learning_rate,
            weight_decay=cfg.weight_decay,
            optimizer=inputs.training_settings(self.cfg).optimizer.name,
            packages=provenance.packages(),
        )
        # The adapter last: where it is, the training is done and its record is there.
        cell.adapter.mkdir(parents=True, exist_ok=True)
        write_json(cell.adapter / FIT_FILE, self._fit_record(reference, result))
        save_adapter(cell.adapter, self.backbone, method, recipe)

    def _fit_record(self, reference: Reference, result: FitResult) -> dict[str, Any]:
        return {
            "suite": reference.suite,
            "reference": reference.name,
            "reference_hash": reference.content_hash,
            "steps": len(result.losses),
            "trained": result.trained,
            "seconds": round(result.seconds, 3),
            "resumed_from": result.resumed_from,
            "peak_memory": peak_memory(self.device),
            "device": provenance.device_name(self.device),
            "losses": [round(loss, 6) for loss in result.losses],
        }

    def _preview(self, cell: Cell, edit: Edit, method: TuningMethod, step: int) -> None:
        settings = inputs.sample_settings(self.cfg)
        for made in sample(self.backbone, method, [(edit, 0)], settings, embed=self.cache.conditioning):
            cell.keep_preview(made, step, self.backbone.fps)

    def common(self, cell: Cell, reference: Reference) -> dict[str, Any]:
        """The fields that all rows of a cell share."""
        cfg = self.cfg
        record = inputs.fit_record(Path(cfg.adapter).expanduser() if cfg.adapter else cell.adapter)
        return {
            "suite": reference.suite,
            "reference": reference.name,
            "reference_hash": reference.content_hash,
            "strata": dict(reference.strata),
            "adapter_id": cell.folder.name,
            "method": "base" if self.tau == 1000 else method_name(cfg),
            "tau": float(self.tau),
            "steps": cfg.steps,
            "train_steps": int(record.get("steps", 0)),
            "adapter_scale": float(cfg.adapter_scale),
            "seconds": {"fit": float(record.get("seconds", 0.0))},
            "settings": inputs.row_settings(cfg),
            **self.origin(),
        }

    def origin(self) -> dict[str, Any]:
        """The fields of a row that say what model it is of, and what made it."""
        return {
            "model": self.cfg.model.name,
            "precision": self.precision,
            "weights_hash": self.backbone.weights_hash,
            **provenance.origin(self.device),
        }

    def write_grid(self, reference: Reference) -> list[Path]:
        """Put this cell beside the base model's, τ = 0's and the default's, as far as they are there."""
        cfg = self.cfg
        folder = self.cell(reference).folder
        taus = [1000.0, 0.0, cfg.model.default_tau] if cfg.adapter is None else [1000.0]
        others = [replace(cfg, tau=tau, adapter=None) for tau in taus]
        labelled = [("base" if each.tau == 1000 else f"τ = {each.tau:g}", each) for each in others]
        if cfg.adapter is not None or cfg.tau not in taus:
            labelled.append((f"τ = {self.tau:g}", cfg))
        columns = [
            (label, self._samples(self.cell(reference, each)), self.wanted(reference, 1, each))
            for label, each in labelled
        ]
        name = reference.name if cfg.adapter is None else f"{reference.name}-{folder.name}"
        path = folder.parent / "grids" / f"{name}.mp4"
        return [path] if write_grid(path, reference, columns) else []

    def _samples(self, cell: Cell) -> Samples:
        """A cell's samples; those that were scored just now are decoded already."""
        return self._scored if self._scored is not None and self._scored.cell == cell else Samples(cell)
