"""`python run.py export`: an adapter in another tool's format, and the setting that carries its window."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save

from motionexp.backbones.pipeline import PipelineBackbone
from motionexp.config.adapter_files import PEFT_CONFIG_NAME
from motionexp.config.export import ExportConfig
from motionexp.diffusion.flow_matching import respaced
from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.files import plain_name, sorted_metadata, write_whole
from motionexp.jobs.export_card import WindowSettings, card, workflow
from motionexp.jobs.machine import clear_disk_errors
from motionexp.jobs.plan import BackboneSettings
from motionexp.methods.adapters import StoredAdapter, plain_window, read_adapter
from motionexp.methods.export_formats import (
    FILE_NAMES,
    SUFFIXES,
    LoRALayer,
    check_format,
    diffusers_metadata,
    export_tensors,
    peft_config,
)
from motionexp.methods.external_lora import EXPORT_KEY


def export(cfg: ExportConfig) -> list[Path]:
    """Write an adapter in another tool's format, with a card and its window; returns the files.

    Raises:
        InputError: the adapter is not one of motionexp, or no plain LoRA; it is of another model or size; no
            tool reads the format for the model; or the model has no shift.
    """
    stored = read_adapter(cfg.adapter)
    window = plain_window(stored, cfg.adapter)
    if stored.about["model"] != cfg.model.name:
        raise InputError(
            f"adapter={cfg.adapter}: it was tuned on {stored.about['model']}, not on model={cfg.model.name}"
        )
    backbone = _without_weights(cfg)
    check_format(cfg.format, backbone.pipeline, cfg.model.name, backbone.decoding_note)
    layers = _layers(cfg, stored, backbone)
    schedule = respaced(backbone.schedule, cfg.sampling["shift"], cfg.sampling["timestep_spacing"])
    sampler, steps = cfg.sampling["sampler"], cfg.sampling["steps"]
    settings = WindowSettings.of(window, schedule, sampler, steps, backbone, stored.tensors)
    if settings.adapter_steps.on == 0:
        moves = "timestep_spacing=" if settings.shift is None else "shift="
        raise InputError(
            f"adapter={cfg.adapter}: {settings.in_words()}; take another steps= or {moves}, at which a step"
            " begins in the window"
        )
    contents, loras = dict[PurePath, bytes](), dict[str, PurePath]()
    for component, of_component in layers.items():
        of_network = _files(cfg, component, of_component, backbone, window)
        loras[component] = next(iter(of_network))
        contents |= of_network
    texts = {
        "README.md": card(cfg, stored, loras, settings, backbone, schedule),
        "window.json": settings.as_json(loras),
    }
    if cfg.format in ("comfyui", "kohya"):
        texts |= {f"{file.stem}_hooks.json": workflow(file.name, settings) for file in loras.values()}
    contents |= {PurePath(name): text.encode() for name, text in texts.items()}
    _write(cfg.folder, contents)
    print(settings.in_words())
    files = [cfg.folder / name for name in contents]
    for file in files:
        print(file)
    return files


def _without_weights(cfg: ExportConfig) -> PipelineBackbone:
    settings = BackboneSettings(cfg.model, cfg.frames, "fp32")
    backbone = settings.make(torch.device("meta"))
    if not isinstance(backbone, PipelineBackbone):
        raise InputError(f"model={cfg.model.name}: only models in diffusers' layout can be exported")
    return backbone


def _layers(
    cfg: ExportConfig, stored: StoredAdapter, backbone: PipelineBackbone
) -> dict[str, dict[str, LoRALayer]]:
    """The layers of each of the pipeline's networks, by their names in it."""
    layers: dict[str, dict[str, LoRALayer]] = {}
    modules = dict(backbone.network.named_modules())
    ends = ".lora_A.weight", ".lora_B.weight"
    for key, down in stored.tensors.items():
        if not key.endswith(ends[0]):
            continue
        up, full_name = stored.tensors.get(key.replace(*ends), down), key.removesuffix(ends[0])
        layer = modules.get(full_name.removeprefix(backbone.key_prefix))
        shape = None if layer is None else tuple(layer.weight.shape)
        if shape != (len(up), down.shape[1]):
            raise InputError(
                f"adapter={cfg.adapter}: {full_name} is of a layer ({len(up)}, {down.shape[1]}), and model="
                f"{cfg.model.name} has {shape or 'no such layer'}"
            )
        component, _, name = full_name.partition(".")
        layers.setdefault(component, {})[name] = LoRALayer(down, up, float(stored.about["settings"]["alpha"]))
    return layers


def _files(
    cfg: ExportConfig,
    component: str,
    layers: Mapping[str, LoRALayer],
    backbone: PipelineBackbone,
    window: Window,
) -> dict[PurePath, bytes]:
    """The LoRA of one network of the pipeline, and then what belongs to it, by the files in the folder."""
    of_expert = SUFFIXES[component] if not backbone.key_prefix else ""
    stem = plain_name(cfg.folder.name)
    if cfg.format == "peft":
        path = PurePath(of_expert, FILE_NAMES["peft"])
    elif of_expert:
        path = PurePath(f"{stem}_{of_expert}.safetensors")
    else:
        path = PurePath(FILE_NAMES.get(cfg.format, f"{stem}.safetensors"))
    metadata = {"format": "pt", EXPORT_KEY: json.dumps(asdict(window))}
    if cfg.format == "diffusers":
        metadata |= diffusers_metadata(layers, backbone.component)
    tensors = export_tensors(layers, cfg.format, backbone, backbone.pipeline)
    files = {path: bytes(sorted_metadata(save(tensors, metadata)))}
    if cfg.format == "peft":
        files[path.with_name(PEFT_CONFIG_NAME)] = json.dumps(peft_config(layers), indent=2).encode()
    return files


def _write(folder: Path, contents: Mapping[PurePath, bytes]) -> None:
    """Write a new folder, or into an empty one, whole or not at all."""
    with clear_disk_errors(str(folder)):
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = folder if folder.exists() else folder.parent
        with TemporaryDirectory(dir=place, prefix=".export-") as partial:
            whole = Path(partial) / "whole"
            for name, content in contents.items():
                (whole / name).parent.mkdir(parents=True, exist_ok=True)
                write_whole(whole / name, content)
            if place != folder:
                whole.replace(folder)
                return
            for entry in whole.iterdir():
                entry.replace(folder / entry.name)
