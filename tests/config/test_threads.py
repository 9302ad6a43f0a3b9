"""Threads: what is set before torch is imported, and what stays."""

import pytest

from motionexp.config import threads


@pytest.fixture
def before_torch(monkeypatch) -> None:
    monkeypatch.setattr(threads.sys, "modules", {})
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    monkeypatch.setattr(threads, "quotas", lambda: iter([2.5, 4.0]))


def test_threads_spin_for_a_short_time_and_fit_the_smallest_quota(before_torch):
    environment: dict[str, str] = {}
    threads.settle_threads(environment)
    assert environment == {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1", "OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize("name", [*threads.WAITING, *threads.COUNTS])
def test_what_the_user_set_stays(name, before_torch):
    environment = {name: "3"}
    threads.settle_threads(environment)
    assert environment[name] == "3"
    family = threads.WAITING if name in threads.WAITING else threads.COUNTS
    assert [key for key in environment if key in family] == [name]


@pytest.mark.parametrize(("limits", "count"), [([], None), ([8.0], None), ([0.5], "1")])
def test_a_quota_counts_below_the_cores(limits, count, before_torch, monkeypatch):
    monkeypatch.setattr(threads, "quotas", lambda: iter(limits))
    environment: dict[str, str] = {}
    threads.settle_threads(environment)
    assert environment.get("OMP_NUM_THREADS") == count


def test_nothing_is_set_after_torch(before_torch, monkeypatch):
    monkeypatch.setattr(threads.sys, "modules", {"torch": None})
    environment: dict[str, str] = {}
    threads.settle_threads(environment)
    assert environment == {}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, [1.5]),
        ("0::/host/path\n", {"cpu.max": "200000 100000"}, [2.0]),
        (
            "3:memory:/x\n2:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            [0.5],
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
    ],
)
def test_quotas_of_both_versions_of_control_groups(groups, files, expected, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "groups").write_text(groups)
    assert list(threads.quotas(tmp_path / "groups", tmp_path)) == expected


def test_a_system_without_control_groups_has_no_quota(tmp_path):
    assert list(threads.quotas(tmp_path / "none", tmp_path)) == []
