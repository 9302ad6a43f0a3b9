"""How many threads torch computes with, and how long they spin: set before torch is imported."""

import os
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# Measured with GNU's OpenMP (`results/bench/threads.md`). Without any spinning a step takes 1.8 times as
# long on an idle machine. With GNU's default, 300,000 rounds, it takes 4 times as long beside busy
# neighbours, and now and then 50 times. 5,000 to 50,000 rounds are as fast as the default on an idle
# machine. The other OpenMP, LLVM's, counts milliseconds (its default: 200).
SHORT_SPINNING = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
CGROUPS = Path("/sys/fs/cgroup")
GROUPS_OF_PROCESS = Path("/proc/self/cgroup")


def settle_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make threads that wait for each other sleep soon, and no more of them than the machine grants.

    By default OpenMP's threads spin long while they wait. Where other processes use the cores too, a thread
    spins on the core that the slowest thread of its own process needs. OpenMP reads the variables when torch
    is imported: afterwards this does nothing. What the user has set stays.
    """
    if "torch" in sys.modules:
        return
    if not any(name in environment for name in WAITING):
        environment.update(SHORT_SPINNING)
    if any(name in environment for name in COUNTS):
        return
    # OpenMP counts the cores of the process's affinity itself, and knows nothing of a container's quota.
    quota = min(quotas(), default=None)
    if quota is not None and quota < available_cores():
        environment["OMP_NUM_THREADS"] = str(max(1, int(quota)))


def available_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quotas(groups: Path = GROUPS_OF_PROCESS, root: Path = CGROUPS) -> Iterator[float]:
    """The limits of this process in cores: those of its control group and of the groups around that one.

    Args:
        groups: the process's groups, as in `/proc/self/cgroup`: lines of ID:CONTROLLERS:PATH.
        root: where the groups' files are, of version 1 (`cpu.cfs_quota_us`) or 2 (`cpu.max`).
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        group = top / path.lstrip("/")
        # Inside a container the path may be that of the host, which is not mounted here: the top is.
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """The limit of one group; none where it has none."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
    except OSError:
        return
    if quota.isdecimal() and int(period) > 0:  # without a limit it is `max` or -1
        yield int(quota) / int(period)
