"""The ids of what comes out: which settings and inputs each of them is of."""

import re
from dataclasses import fields, replace

from motionexp.config import ids as stages
from motionexp.config.compose import load
from motionexp.config.ids import adapter_id, pair_id, probe_id, sample_id, score_id
from motionexp.config.schema import JobConfig
from motionexp.jobs.inputs import row_settings

# Which id a setting is part of. A new setting has to be put here, and so to be thought about.
STAGES = {
    "adapter": [
        "method.rank", "tau", "train_steps", "learning_rate", "weight_decay", "batch_size", "seed", "frames",
        "tau_high", "soft_window", "text_precision",
    ],
    "through tau": ["tau_from"],
    "sample": [
        "adapter_scale", "adapter_in_unconditional", "sampler", "steps", "eta", "guidance_scale",
        "negative_prompt", "sampling_tau", "sampling_tau_high",
    ],
    # The content of references and captions, the weights and the resolved precision enter as arguments.
    "by content": [
        "model", "data", "references", "edits", "seeds", "video", "caption", "start", "fps", "stride", "fit",
        "adapter", "precision", "metrics", "scoring", "edit_kinds",
    ],
    "probe": ["probe", "probe_steps", "inversion_guidance_scale", "inversion_prompt"],
    "through method": ["rank", "alpha", "projections", "attention"],
    "none": [
        "checkpoint_every", "keep_steps", "logger", "preview_every", "device", "memory_limit", "output",
        "dry_run", "mode", "checkpointing", "offload",
    ],
}  # fmt: skip
CHANGED = {
    "tau": 300.0, "train_steps": 7, "learning_rate": 0.5, "weight_decay": 0.5, "batch_size": 3, "seed": 9,
    "frames": 8, "adapter_scale": 0.5, "adapter_in_unconditional": False, "sampler": "other", "steps": 7,
    "eta": 0.5, "guidance_scale": 4.5, "negative_prompt": "a", "checkpoint_every": 3, "logger": "wandb",
    "tau_high": 900.0, "soft_window": [[700.0, 0.5]], "sampling_tau": 0.0, "sampling_tau_high": 900.0,
    "keep_steps": [5], "preview_every": 3, "device": "cuda",
    "memory_limit": 1.0, "output": "elsewhere", "dry_run": True,
    "mode": "low_memory", "checkpointing": True, "offload": True, "text_precision": "8bit",
}  # fmt: skip


def ids(cfg: JobConfig) -> tuple[str, str]:
    adapter = adapter_id(cfg, weights_hash="w", precision="fp32", reference_hash="r")
    return adapter, sample_id(cfg, adapter, caption="c", index=0)


def changed(cfg: JobConfig, name: str) -> JobConfig:
    if name == "method.rank":
        return replace(cfg, method={**cfg.method, "rank": 9})
    return replace(cfg, **{name: CHANGED[name]})


def test_each_setting_has_its_place():
    placed = [name.split(".")[0] for names in STAGES.values() for name in names]
    assert sorted(placed) == sorted(each.name for each in fields(JobConfig)), (
        "a setting without a stage, or with two"
    )


def test_videos_that_were_made_in_tiles_are_other_videos(base):
    fast, tiled = (load([*base, f"mode={mode}", "model.video_vae=true"]) for mode in ("fast", "low_memory"))
    assert ids(fast) == ids(load(base))
    assert ids(tiled)[0] != ids(fast)[0]
    assert (row_settings(tiled)["mode"], "mode" in row_settings(fast)) == ("low_memory", False)


def test_an_id_is_of_what_determines_the_result(base):
    cfg = load(base)
    adapter, sample = ids(cfg)
    assert re.fullmatch("[0-9a-f]{12}", adapter)
    for name in STAGES["adapter"]:
        assert ids(changed(cfg, name))[0] != adapter, name
        assert ids(changed(cfg, name))[1] != sample, name
    for name in STAGES["sample"]:
        assert ids(changed(cfg, name))[0] == adapter, name
        assert ids(changed(cfg, name))[1] != sample, name
    for name in STAGES["none"]:
        assert ids(changed(cfg, name)) == (adapter, sample), name


def test_what_comes_from_elsewhere_is_in_the_ids(base):
    cfg = load(base)
    given = {"weights_hash": "w", "precision": "fp32", "reference_hash": "r"}
    adapters = [adapter_id(cfg, **given)] + [adapter_id(cfg, **{**given, name: "other"}) for name in given]
    samples = [sample_id(cfg, "a", caption="c", index=0), sample_id(cfg, "b", caption="c", index=0)]
    samples += [sample_id(cfg, "a", caption="d", index=0), sample_id(cfg, "a", caption="c", index=1)]
    scores = [score_id("s", metric="m", version=1), score_id("t", metric="m", version=1)]
    scores += [score_id("s", metric="n", version=1), score_id("s", metric="m", version=2)]
    for each in (adapters, samples, scores):
        assert len(set(each)) == len(each)


def test_the_base_model_is_one_cell_whatever_the_training(base):
    cfg = load([*base, "tau=1000"])
    for name in ("method.rank", "train_steps", "learning_rate", "adapter_scale", "adapter_in_unconditional"):
        assert ids(changed(cfg, name)) == ids(cfg), name
    assert ids(changed(cfg, "frames"))[0] != ids(cfg)[0]
    assert ids(changed(cfg, "seed"))[1] != ids(cfg)[1]


def test_a_kept_adapter_is_known_by_its_content(base, tmp_path):
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(b"one")
    cfg = load([*base, f"adapter={tmp_path}"])
    first = ids(cfg)
    assert ids(replace(cfg, train_steps=7)) == first
    assert ids(replace(cfg, tau=300.0))[1] != first[1]
    file.write_bytes(b"two")
    assert ids(cfg)[0] != first[0]


def test_a_stage_with_a_new_version_is_run_again(base, monkeypatch):
    cfg = load(base)
    adapter, sample = ids(cfg)
    monkeypatch.setattr(stages, "SAMPLE_VERSION", stages.SAMPLE_VERSION + 1)
    assert ids(cfg)[0] == adapter
    assert ids(cfg)[1] != sample
    monkeypatch.setattr(stages, "FIT_VERSION", stages.FIT_VERSION + 1)
    assert ids(cfg)[0] != adapter


def test_auto_gives_the_ids_of_the_number_that_it_stands_for(base):
    cfg = load([*base, "tau=auto", "model.boundary=640", "model.boundary_weights=0123456789ab"])
    assert ids(load([*base, "tau=640"])) == ids(cfg)


def test_a_probes_id_is_of_what_determines_its_videos(base):
    cfg = load([*base, "probe=tampering"])
    given = {"caption": "c", "weights_hash": "w", "precision": "fp32", "reference_hash": "r"}
    others = {"probe": "partial_guidance", "probe_steps": 10, "inversion_guidance_scale": 2.0}
    others["inversion_prompt"] = "empty"
    assert set(others) == set(STAGES["probe"])
    others |= {"guidance_scale": 4.5, "negative_prompt": "a", "frames": 8}
    probes = [probe_id(replace(cfg, **{name: value}), **given) for name, value in others.items()]
    probes += [probe_id(cfg, **{**given, name: "other"}) for name in given]
    probe = probe_id(cfg, **given)
    assert len({probe, *probes}) == 1 + len(probes)
    for name in ("tau", "train_steps", "learning_rate", "adapter_scale", "steps", *STAGES["none"]):
        assert probe_id(changed(cfg, name), **given) == probe, name
    assert probe_id(replace(cfg, inversion_prompt="caption"), **given) == probe
    pairs = [pair_id(probe, "1000 0"), pair_id(probe, "900 0"), pair_id(probes[0], "1000 0")]
    assert len(set(pairs)) == 3


def test_a_probe_with_a_new_version_is_run_again(base, monkeypatch):
    cfg = load([*base, "probe=tampering"])
    given = {"caption": "c", "weights_hash": "w", "precision": "fp32", "reference_hash": "r"}
    probe, pair = probe_id(cfg, **given), pair_id("p", "1000 0")
    monkeypatch.setattr(stages, "PROBE_VERSION", stages.PROBE_VERSION + 1)
    assert probe_id(cfg, **given) != probe
    assert pair_id("p", "1000 0") != pair
