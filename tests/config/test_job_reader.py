"""Jobs are composed once for the same options, and are those that Hydra composes one by one."""

import re
import shutil
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from motionexp.config import compose
from motionexp.config.compose import JobReader, job_reader, read_job
from motionexp.config.options import CONF
from motionexp.errors import InputError

PLAIN = ["references=1", "adapter_scale=0.5"]


@pytest.fixture(autouse=True)
def _hydra():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.fixture
def compositions(monkeypatch):
    """The overrides of each call of Hydra's `compose`."""
    calls = []

    def composed(name, overrides, **more):
        calls.append(overrides)
        return original(name, overrides, **more)

    original = compose.compose
    monkeypatch.setattr(compose, "compose", composed)
    return calls


def outcome(read, job) -> str:
    """The settings, with the types of their values, or what is wrong with them."""
    try:
        return repr(read(job))
    except InputError as error:
        return f"error: {error}"


@pytest.mark.parametrize(
    ("jobs", "count"),
    [
        ([("tau=0", "rank=2"), ("tau=700", "rank=8")], 1),
        ([("model=tiny_latte", "tau=0"), ("model=tiny_unet3d", "tau=0"), ("model=tiny_unet3d", "tau=1")], 2),
        ([("references=[]",), ("references=2",), ("references=null",)], 1),
        ([("projections=[q]", "method.rank=3"), ("projections=[v,o]", "method.rank=4")], 1),
        ([("caption='a, ${tau}'", "scoring.resize=0"), ("caption=null", "scoring.resize=1")], 1),
        ([("++data.split=tuning",), ("data.split=benchmark",)], 2),
        ([("data.split=tuning", "++data.split=benchmark"), ("tau=0", "++data.split=benchmark")], 2),
        ([("++data.split=tuning", "data.split=benchmark"), ("++data.split=tuning", "tau=0")], 1),
    ],
)
def test_every_job_is_the_one_that_hydra_composes(jobs, count, compositions):
    reader = JobReader(())
    outcomes = [outcome(reader.read, [*PLAIN, *job]) for job in jobs]
    assert len(compositions) == count
    assert outcomes == [outcome(read_job, [*PLAIN, *job]) for job in jobs]


@pytest.mark.parametrize(
    "job",
    [
        ("tau=1001",),
        ("tau=abc",),
        ("taau=1",),
        ("method.taau=1",),
        ("model=nobody", "tau=0"),
        ("tau=[0",),
        ("tau=0,700",),
        ('caption=choice("a","b")',),
    ],
)
def test_what_is_wrong_is_said_as_of_a_single_job(job):
    with pytest.raises(InputError) as expected:
        read_job([*PLAIN, *job])
    with pytest.raises(InputError, match=f"^{re.escape(str(expected.value))}$"):
        JobReader(()).read([*PLAIN, *job])


def test_what_is_wrong_with_all_jobs_is_said_of_each():
    reader = JobReader(())
    for job in (("tau=0",), ("tau=1",)):
        with pytest.raises(InputError, match="nothing: "):
            reader.read(["nothing=1", *job])


def test_a_swept_class_of_a_method_counts_as_typed():
    """Values that another class does not take are left out unless they were typed."""
    target = "method._target_=motionexp.methods.full_rank.FullRank"
    assert "rank" not in JobReader(()).read([*PLAIN, target]).method
    with pytest.raises(InputError, match=r"method\.rank"):
        JobReader(()).read([*PLAIN, target, "method.rank=3"])


def test_a_name_that_is_a_folder_of_options_is_no_value(tmp_path):
    (tmp_path / "references").mkdir()
    (tmp_path / "references" / "few.yaml").touch()
    path = f"hydra.searchpath=[file://{tmp_path}]"
    with pytest.raises(InputError, match="references: "):
        JobReader([path]).read([path, "references=few"])


def test_a_reader_is_kept_until_a_file_of_options_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(compose, "CONF", Path(shutil.copytree(CONF, tmp_path / "conf")))
    reader = job_reader(["tau=0"])
    assert job_reader(["model=tiny_unet3d"]) is reader
    with (tmp_path / "conf" / "model" / "family" / "bundled.yaml").open("a") as file:
        file.write("# one more line\n")
    assert job_reader(["tau=0"]) is not reader


def test_a_reader_for_folders_of_one_s_own_is_not_kept(tmp_path):
    path = f"hydra.searchpath=[file://{tmp_path}]"
    assert job_reader([path]) is not job_reader([path])
