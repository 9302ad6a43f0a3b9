"""Several GPUs: what is refused before torch is imported, and which processes are there."""

import pytest

from motionexp.cli import main
from motionexp.config.compose import load
from motionexp.config.effects import check_effects
from motionexp.config.ranks import Rank, check_ranks, rank_of, visible_gpus
from motionexp.errors import InputError

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0"}
FOUR = ("trainer.devices=2", "trainer.num_nodes=2")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["trainer.devices=0"], "trainer.devices=0"),
        (["trainer.num_nodes=0"], "trainer.num_nodes=0"),
        (["trainer.accumulate=0"], "trainer.accumulate=0"),
        (["trainer.strategy=ddb"], "trainer.strategy=ddb: did you mean ddp"),
        (["trainer.device=2"], "trainer.device: .*trainer.devices"),
        (["trainer=2"], r"trainer=2: .*NAME\.SETTING=VALUE"),
        (["~trainer.devices"], "~trainer.devices: .*cannot be removed"),
        (["trainer.devices=auto"], "trainer.devices=auto: a whole number"),
        (["trainer.devices=2", "retry=smaller_batch", "train_together=2"], "retry=smaller_batch: "),
        (["batch_size=5000", "trainer.devices=4"], "batch_size=5000: 20000 draws"),
        (["trainer.devices=2", "device=cuda:1"], "device=cuda:1"),
        (["trainer.devices=2", "probe=tampering"], "trainer.devices=2: probe=tampering"),
        (["trainer.strategy=fsdp"], "trainer.strategy=fsdp: .*trainer.devices="),
        (["trainer.strategy=fsdp", "trainer.devices=2", "method=full_rank"], "FullRank needs whole weights"),
        (["trainer.strategy=fsdp", "trainer.devices=2", "offload=model", "device=cuda"], "offload=model"),
    ],
)
def test_settings_that_do_not_fit_are_named(words, named):
    with pytest.raises(InputError, match=named):
        load(words)


def test_batch_1_on_two_ranks_is_two_draws_and_no_error():
    assert load(["batch_size=1", "trainer.devices=2"]).batch_size == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["adapter=a", "trainer.accumulate=2"], "trainer.accumulate=: .*adapter="),
        (["tau=1000", "trainer.accumulate=2"], "trainer.accumulate=: .*tau=1000"),
        (["trainer.strategy=ddp"], "trainer.strategy=: .*one device"),
    ],
)
def test_a_setting_without_effect_is_refused(words, named, tmp_path):
    (tmp_path / "adapter.safetensors").write_bytes(b"")
    cfg = load([word.replace("adapter=a", f"adapter={tmp_path}") for word in words])
    with pytest.raises(InputError, match=named):
        check_effects([(cfg, {word.partition("=")[0] for word in words})])


@pytest.mark.parametrize(
    ("environment", "rank"),
    [(TORCHRUN, Rank(3, 4, 1)), (SRUN, Rank(2, 4, 0)), (SRUN | TORCHRUN, Rank(3, 4, 1)), ({}, None)],
)
def test_the_rank_is_that_of_torchrun_or_srun(environment, rank):
    cfg = load(FOUR).trainer
    assert rank_of(cfg, environment) == rank
    assert (
        rank_of(load(["trainer.accumulate=2"]).trainer, environment) is None
    )  # its processes are jobs of their own


def test_a_batch_script_of_slurm_is_no_rank():
    assert (
        rank_of(load(FOUR).trainer, {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}) is None
    )


@pytest.mark.parametrize(
    ("words", "environment", "named"),
    [
        (FOUR, {}, "trainer.num_nodes=2: .*srun or torchrun"),
        (["trainer.devices=2"], TORCHRUN, "4 processes were started"),
        (["trainer.devices=2"], {"CUDA_VISIBLE_DEVICES": "0"}, "trainer.devices=2: this machine has 1 GPU"),
        (["trainer.devices=8"], {"CUDA_VISIBLE_DEVICES": "0,3,5"}, "has 3 GPUs; at most 3"),
        (["trainer.devices=2"], {"CUDA_VISIBLE_DEVICES": ""}, "has no GPUs.*device=cpu"),
    ],
)
def test_what_is_not_there_is_named(words, environment, named):
    with pytest.raises(InputError, match=named):
        check_ranks(load(words), environment)


def test_processes_on_a_cpu_need_no_gpu():
    check_ranks(load(["trainer.devices=2", "device=cpu"]), {"CUDA_VISIBLE_DEVICES": ""})
    check_ranks(load(FOUR), TORCHRUN | {"CUDA_VISIBLE_DEVICES": "0,1"})


def test_gpus_are_counted_by_their_files(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == 3
    assert visible_gpus({}, tmp_path / "none") == 0
    (tmp_path / "wsl").mkdir()
    (tmp_path / "wsl" / "dxg").touch()  # how many, only torch can tell
    assert visible_gpus({}, tmp_path / "wsl") is None


def test_the_command_says_how_many_there_are(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert main(["trainer.devices=3", f"output={tmp_path}"]) == 2
    assert "trainer.devices=3: this machine has 1 GPU; at most 1" in capsys.readouterr().err
