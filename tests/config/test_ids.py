"""The ids of what comes out: which settings and inputs each of them is of."""

import re
from dataclasses import replace
from typing import Any

from motionexp.config import ids as stages
from motionexp.config.compose import load
from motionexp.config.ids import adapter_id, pair_id, probe_id, sample_id, score_id
from motionexp.config.job_settings import row_settings
from motionexp.config.schema import JobConfig
from motionexp.config.settings import Stage, names_in, settings_in

CHANGED = {"tau": 300.0, "soft_window": [[700.0, 0.5]], "text_precision": "8bit"}
"""Values of settings whose other values do not follow from the type or the choices."""


CONTENT = {"weights_hash": "w", "precision": "fp32", "reference_hash": "r"}


def names_of(stage: Stage) -> tuple[str, ...]:
    return names_in(JobConfig, lambda about: stage in about.stages)


def changed_value(cfg: JobConfig, name: str) -> Any:
    """A value of a setting that is not the one in `cfg`."""
    value, choices = getattr(cfg, name), settings_in(JobConfig)[name].choices
    if name in CHANGED or choices:
        return CHANGED.get(name) or next((choice for choice in reversed(choices) if choice != value), "other")
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}a"
        case list():
            return [*value, 5]
    return True if "bool" in str(JobConfig.__dataclass_fields__[name].type) else 0.0


def ids(cfg: JobConfig) -> tuple[str, str]:
    adapter = adapter_id(cfg, **CONTENT)
    return adapter, sample_id(cfg, adapter, caption="c", index=0)


def changed(cfg: JobConfig, name: str) -> JobConfig:
    if name == "method":
        return replace(cfg, method={**cfg.method, "rank": 9})
    return replace(cfg, **{name: changed_value(cfg, name)})


def test_each_setting_has_a_stage():
    assert all(about.stages for about in settings_in(JobConfig).values())


def test_videos_that_were_made_in_tiles_are_other_videos(base):
    fast, tiled = (load([*base, f"mode={mode}", "model.video_vae=true"]) for mode in ("fast", "low_memory"))
    assert ids(fast) == ids(load(base))
    assert ids(tiled)[0] != ids(fast)[0]
    assert (row_settings(tiled)["mode"], "mode" in row_settings(fast)) == ("low_memory", False)


def test_an_id_is_of_what_determines_the_result(base):
    cfg = load([*base, "stg_scale=1", "stg_blocks=[1]"])  # without the one the other has no effect
    adapter, sample = ids(cfg)
    assert re.fullmatch("[0-9a-f]{12}", adapter)
    training = {*names_of("cell"), *names_of("training")}
    for name in training | {*names_of("sampling"), *names_of("applying")}:
        assert (ids(changed(cfg, name))[0] != adapter) == (name in training), name
        assert ids(changed(cfg, name))[1] != sample, name
    for name in {*names_of("none")} - {"trainer"}:
        assert ids(changed(cfg, name)) == (adapter, sample), name


def test_an_id_is_of_the_draws_in_a_step_and_not_of_how_they_are_spread(base):
    spread = [
        ["batch_size=8"],
        ["batch_size=2", "trainer.accumulate=4"],
        ["batch_size=1", "trainer.devices=2", "trainer.num_nodes=2", "trainer.accumulate=2"],
        ["batch_size=4", "trainer.devices=2", "trainer.strategy=fsdp"],
    ]
    jobs = [load([*base, *words]) for words in spread]
    assert len({ids(cfg) for cfg in jobs}) == 1
    assert {row_settings(cfg)["batch_size"] for cfg in jobs} == {8}
    assert ids(jobs[0]) != ids(load(base)) == ids(load([*base, "batch_size=1"]))


def test_what_comes_from_elsewhere_is_in_the_ids(base):
    cfg = load(base)
    adapters = [adapter_id(cfg, **{**CONTENT, name: "changed"}) for name in CONTENT] + [ids(cfg)[0]]
    samples = [sample_id(cfg, "a", caption="c", index=0), sample_id(cfg, "b", caption="c", index=0)]
    samples += [sample_id(cfg, "a", caption="d", index=0), sample_id(cfg, "a", caption="c", index=1)]
    scores = [score_id("s", metric="m", version=1), score_id("t", metric="m", version=1)]
    scores += [score_id("s", metric="n", version=1), score_id("s", metric="m", version=2)]
    for results in (adapters, samples, scores):
        assert len(set(results)) == len(results)


def test_the_base_model_is_one_cell_whatever_the_training(base):
    cfg = load([*base, "tau=1000"])
    for name in ("method", "train_steps", "learning_rate", "adapter_scale", "adapter_in_unconditional"):
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


def test_the_settings_of_pefts_file_are_part_of_it(base, tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"one")
    config = tmp_path / "adapter_config.json"
    cfg, adapters = load([*base, f"adapter={tmp_path}"]), set()
    for content in ("", '{"lora_alpha": 4}', '{"lora_alpha": 8}'):
        config.write_text(content)
        adapters.add(ids(cfg)[0])
    assert len(adapters) == 3


def test_a_stage_with_a_new_version_is_run_again(base, monkeypatch):
    cfg = load(base)
    adapter, sample = ids(cfg)
    monkeypatch.setattr(stages, "SAMPLE_VERSION", stages.SAMPLE_VERSION + 1)
    assert ids(cfg)[0] == adapter
    assert ids(cfg)[1] != sample
    monkeypatch.setattr(stages, "FIT_VERSION", stages.FIT_VERSION + 1)
    assert ids(cfg)[0] != adapter


def test_auto_gives_the_ids_of_the_number_that_it_stands_for(base):
    auto = load([*base, "tau=auto", "model.boundary=640", "model.boundary_weights=0123456789ab"])
    assert ids(load([*base, "tau=640"])) == ids(auto)


def test_a_probes_id_is_of_what_determines_its_videos(base, monkeypatch):
    cfg = load([*base, "probe=tampering"])
    content = {"caption": "c", **CONTENT}
    names = (*names_of("probe"), *names_of("cell"))
    probes = [probe_id(changed(cfg, name), **content) for name in names]
    probes += [probe_id(cfg, **{**content, name: "changed"}) for name in content]
    probe = probe_id(cfg, **content)
    assert len({probe, *probes}) == 1 + len(probes)
    for name in ("tau", "train_steps", "learning_rate", "adapter_scale", "steps", *names_of("none")):
        assert probe_id(changed(cfg, name), **content) == probe, name
    assert probe_id(replace(cfg, inversion_prompt="caption"), **content) == probe
    pairs = [pair_id(probe, "1000 0"), pair_id(probe, "900 0"), pair_id(probes[0], "1000 0")]
    assert len(set(pairs)) == 3

    # A new version is run again.
    monkeypatch.setattr(stages, "PROBE_VERSION", stages.PROBE_VERSION + 1)
    assert probe_id(cfg, **content) != probe
    assert pair_id(probe, "1000 0") != pairs[0]
